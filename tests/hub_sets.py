"""The data sets of the recipes and suites in small: their layout and columns, with rows of our own.

Read on 2026-11-30 in stored copies of cards and public code: the columns of open-rs, DeepScaleR,
aime_2024 (problem, solution) and amc23, amc23's layout, and the numbers of rows. The rest is as the
paper's recipes use these sets, and was not found there: the layouts of the others, MATH-500's
columns, aime_2024's id, url and year, and what aime_2025 has beyond problem and answer.

- knoveleng/open-rs: split train, `data/train-*.parquet`; problem, solution, answer, level (Easy or
  Hard)
- agentica-org/DeepScaleR-Preview-Dataset: one list, `deepscaler.json`; problem, answer, solution
- HuggingFaceH4/MATH-500: `test.jsonl`, 500 rows; problem, solution, answer, subject, level (a
  number), unique_id ("test/algebra/1.json")
- HuggingFaceH4/aime_2024: split train, `data/train-*.parquet`, 30 rows; id, problem, solution,
  answer, url, year
- yentinglin/aime_2025: split train, 30 rows; problem, answer and others
- math-ai/amc23: `test-00000-of-00001.parquet` at the top, 40 rows; id, question, answer, url

Nor was found whether the ids and AMC's answers are numbers or text; here they are one of each.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hub_server import Hub

ASSETS = Path(__file__).resolve().parent.parent / "budgetrl" / "assets" / "tiny"
PARTS = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
         "tokenizer_config.json", "chat_template.jinja")  # fmt: skip

OPEN_RS_CARD = """---
language: en
dataset_info:
  features:
  - name: problem
    dtype: string
  - name: solution
    dtype: string
  - name: answer
    dtype: string
  - name: level
    dtype: string
  splits:
  - name: train
    num_bytes: 1
    num_examples: {rows}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---
# Open-RS
"""


def model_files(name: str = "quickstart") -> dict[str, bytes | str]:
    """The files of a shipped tiny model."""
    return {part: (ASSETS / name / part).read_bytes() for part in PARTS}


def sums(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Problems that the tiny models know, each another one."""
    found = []
    for number in range(start, start + count):
        a, b, c, d = (1 + number // 9**place % 9 for place in range(4))
        text, answer = f"Compute {a}+{b}+{c}+{d}.", str(a + b + c + d)
        found.append({"problem": text, "answer": answer, "solution": answer})
    return found


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), out)
    return out.getvalue()


def put_open_rs(hub: Hub, rows: int = 40) -> str:
    """knoveleng/open-rs; returns the commit."""
    levels = ("Easy", "Hard")
    made = [row | {"level": levels[i % 2]} for i, row in enumerate(sums(rows, 3000))]
    files = {"data/train-00000-of-00001.parquet": parquet(made)}
    return hub.put(
        "dataset", "knoveleng/open-rs", {"README.md": OPEN_RS_CARD.format(rows=rows), **files}
    )


def put_sets(hub: Hub) -> None:
    """Every data set that a bundled recipe or a known suite names."""
    put_open_rs(hub)
    deepscaler = json.dumps(sums(40, 3100))
    hub.put(
        "dataset",
        "agentica-org/DeepScaleR-Preview-Dataset",
        {"README.md": "# Set\n", "deepscaler.json": deepscaler},
    )
    traces = [
        {"question": row["problem"], "solution": row["answer"], "cot_type": "math"}
        | {"thinking_trajectories": ["so"], "attempt": f"\\boxed{{{row['answer']}}}"}
        for row in sums(40, 3200)
    ]
    hub.put("dataset", "simplescaling/s1K", {"data/train-00000-of-00001.parquet": parquet(traces)})
    math = [
        row | {"subject": "Algebra", "level": 1 + i % 5, "unique_id": f"test/algebra/{i}.json"}
        for i, row in enumerate(sums(500))
    ]
    lines = "\n".join(json.dumps(row) for row in math)
    hub.put(
        "dataset",
        "HuggingFaceH4/MATH-500",
        {"README.md": "# MATH-500\n", "eval.yaml": "name: x\n", "test.jsonl": lines},
    )
    aime = [row | {"id": 60 + i, "url": "u", "year": "2024"} for i, row in enumerate(sums(30, 600))]
    hub.put(
        "dataset", "HuggingFaceH4/aime_2024", {"data/train-00000-of-00001.parquet": parquet(aime)}
    )
    later = [
        row | {"id": str(i), "url": "u", "year": "2025"} for i, row in enumerate(sums(30, 700))
    ]
    hub.put(
        "dataset", "yentinglin/aime_2025", {"data/train-00000-of-00001.parquet": parquet(later)}
    )
    amc = [
        {"id": i, "question": row["problem"], "answer": row["answer"], "url": "u"}
        for i, row in enumerate(sums(40, 800))
    ]
    hub.put("dataset", "math-ai/amc23", {"test-00000-of-00001.parquet": parquet(amc)})
