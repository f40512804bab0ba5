"""Files as people have them: CSV, Parquet, gzip, folders; known data sets; one source; pipes."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import load_problems, load_suite
from budgetrl.data.usable import load_usable
from budgetrl.errors import DataError, RecipeError, UsageError
from budgetrl.grading.rules import form_problem
from budgetrl.recipe.known_data import KNOWN_DATA
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Columns, Data, Eval

ANSWERS = ["007", "1e3", "None", "NA", "1/2", "2024-05-01", "True", "0.50"]
ROWS = [{"problem": f"What is {i}, or 1,000?\nSay it.", "answer": a} for i, a in enumerate(ANSWERS)]


def fine(answers: Sequence[str]) -> list[str | None]:
    return [None] * len(answers)


def as_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def as_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


def as_json(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text(json.dumps(list(rows)), encoding="utf-8")


def as_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


WRITERS = {".csv": as_csv, ".parquet": as_parquet, ".json": as_json, ".jsonl": as_jsonl}


def answers_of(path: Path, **data: Any) -> list[str]:
    return [p.answer for p in load_problems(Data(path=str(path), **data), fine).problems]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("packed", [False, True])
def test_answers_keep_their_text_in_every_kind_of_file(
    tmp_path: Path, kind: str, packed: bool
) -> None:
    path = tmp_path / f"rows{kind}"
    WRITERS[kind](path, ROWS)
    if packed:
        path = path.rename(f"{path}.gz")
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert answers_of(path) == ANSWERS
    suite = load_suite(Eval(suite="own", path=str(path)), fine)
    assert [p.text for p in suite.problems] == [row["problem"] for row in ROWS]


def test_numbers_of_json_keep_the_digits_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    numbers = ["0.50", "1e3", "12345678901234567890", "-7"]
    lines = [f'{{"problem": "p{i}", "answer": {n}}}' for i, n in enumerate(numbers)]
    path.write_text("\n".join(lines))
    assert answers_of(path) == numbers


def test_a_folder_is_all_its_files_or_those_of_the_split(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    as_csv(tmp_path / "plain" / "b.csv", ROWS[4:])
    as_jsonl(tmp_path / "plain" / "a.jsonl", ROWS[:4])
    assert answers_of(tmp_path / "plain") == ANSWERS
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    as_parquet(data / "train-00000-of-00001.parquet", ROWS[:5])
    as_parquet(data / "test-00000-of-00001.parquet", ROWS[5:])
    assert answers_of(tmp_path / "set") == ANSWERS[:5]
    assert answers_of(tmp_path / "set", split="test") == ANSWERS[5:]
    with pytest.raises(DataError, match=r"no file of split 'dev'.*It has: test, train"):
        answers_of(tmp_path / "set", split="dev")


def test_no_thread_of_arrow_reads_from_an_object_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does while Python ends ends the process with SIGABRT."""
    readers: set[int] = set()

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            readers.add(threading.get_ident())
            return super().read(size)

    as_parquet(tmp_path / "rows.parquet", ROWS)
    monkeypatch.setattr(io, "BytesIO", Watched)
    assert answers_of(tmp_path / "rows.parquet") == ANSWERS
    assert readers <= {threading.get_ident()}


def test_nested_columns_messages_and_lists_of_answers(tmp_path: Path) -> None:
    path = tmp_path / "verl.parquet"
    rows = [
        {
            "prompt": [{"role": "user", "content": f"p{i}"}],
            "reward_model": {"ground_truth": ["4", "4.0"] if i else ["3"], "style": "rule"},
        }
        for i in range(2)
    ]
    as_parquet(path, rows * 50)
    columns = Columns(problem="prompt", answer="reward_model.ground_truth")
    loaded = load_problems(Data(path=str(path), columns=columns), fine)
    assert [(p.text, p.answer) for p in loaded.problems] == [
        ("p0", '["3"]'),
        ("p1", '["4", "4.0"]'),
    ]
    assert (loaded.repeats, loaded.dropped) == (98, ())


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_turns_of_others_are_refused_with_the_rule(tmp_path: Path, role: str) -> None:
    path = tmp_path / "rows.jsonl"
    turns = [{"role": role, "content": "x"}, {"role": "user", "content": "p"}]
    as_jsonl(path, [{"problem": turns, "answer": "1"}])
    with pytest.raises(DataError, match=rf"messages are of {role}, user: only user turns"):
        answers_of(path)


@pytest.mark.parametrize(
    ("row", "meant"),
    [
        ({"question": "p", "answer": "1"}, "Did you mean question"),
        ({"problem": "p", "reward_model": {"ground_truth": "1"}}, "reward_model.ground_truth"),
        ({"Problem": "p", "answer": "1"}, "Did you mean Problem"),
    ],
)
def test_a_missing_column_is_answered_with_what_may_be_meant(
    tmp_path: Path, row: dict[str, Any], meant: str
) -> None:
    as_jsonl(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError, match=meant):
        answers_of(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", b"problem,answer\np,1,2\n", r"a\.csv:2: 3 cells.*2 columns"),
        ("a.csv", b"problem,problem\np,1\n", "two columns of the same name"),
        ("a.csv", b'problem,answer\n"p,1\n', "not CSV"),
        ("a.csv", b"problem,answer\n\xff,1\n", "not UTF-8"),
        ("a.csv.gz", b"problem", "not a whole gzip file"),
        ("a.parquet", b"PAR1 no more", "not a whole Parquet file"),
        ("a.json", b"[1]", "not a JSON object"),
        ("a.json", b"[{", "not JSON"),
        ("a.xlsx", b"x", r"not a kind of file.*\.jsonl, \.json, \.csv, \.parquet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=why):
        answers_of(tmp_path / name)


ROWS_OF: dict[str, dict[str, Any]] = {
    "knoveleng/open-rs": {"problem": "p", "solution": "s", "answer": "4", "level": "Hard"},
    "agentica-org/DeepScaleR-Preview-Dataset": {"problem": "p", "answer": "4", "solution": "s"},
    "openai/gsm8k": {"question": "p", "answer": "He has <<2+2=4>>4.\n#### 4"},
    "DigitalLearningGmbH/MATH-lighteval": {
        "problem": "p", "level": "Level 5", "type": "Algebra", "solution": r"So $\boxed{4}$.",
    },
    "simplescaling/s1K": {"question": "p", "solution": "4", "cot_type": "math", "attempt": "x"},
    "simplescaling/s1K-1.1": {
        "question": "p", "solution": "4", "deepseek_attempt": "x",
        "deepseek_thinking_trajectory": "t",
    },
    "GAIR/LIMO": {"question": "p", "solution": "s", "answer": "4"},
    "BytedTsinghua-SIA/DAPO-Math-17k": {
        "data_source": "math_dapo", "prompt": [{"role": "user", "content": "p"}],
        "reward_model": {"ground_truth": "4", "style": "rule"}, "extra_info": {"index": "0"},
    },
}  # fmt: skip
"""A row in the shape of each known data set."""


@pytest.mark.parametrize("name", KNOWN_DATA)
def test_a_known_data_set_needs_no_columns(tmp_path: Path, name: str) -> None:
    loaded = load_recipe("quickstart", [f"data.id={name}"])
    as_parquet(tmp_path / "rows.parquet", [ROWS_OF[name]])
    local = loaded.recipe.data.model_copy(
        update={"id": None, "path": str(tmp_path / "rows.parquet")}
    )
    (problem,) = load_problems(local, lambda golds: [form_problem(gold) for gold in golds]).problems
    assert problem.text == "p"
    assert set(KNOWN_DATA) == set(ROWS_OF)


def test_a_recipe_may_say_other_columns_of_a_known_set() -> None:
    sets = ["data.id=openai/gsm8k", "data.columns.problem=q"]
    data = load_recipe("quickstart", sets).recipe.data
    assert (data.columns.problem, data.columns.answer) == ("q", "answer")


def test_one_source_of_data_wins_and_says_so() -> None:
    loaded = load_recipe("deepscaler_r256", ["data.path=/x.csv"])
    assert (loaded.recipe.data.id, loaded.recipe.data.path) == (None, "/x.csv")
    assert any("takes the place of data.id = knoveleng/open-rs" in note for note in loaded.notes)
    back = load_recipe("quickstart", ["data.id=openai/gsm8k"])
    assert (back.recipe.data.path, back.recipe.data.config) == (None, "main")
    assert back.recipe.data.columns.problem == "question"
    own = load_recipe("quickstart", ["eval.heldout.id=owner/name"]).recipe
    assert next(spec for spec in own.eval if spec.suite == "heldout").path is None
    with pytest.raises(RecipeError, match="exactly one of"):
        load_recipe("quickstart", ["data.id=unset", "data.path=unset"])


def test_unset_removes_an_inherited_value_and_what_was_said_of_it() -> None:
    recipe = "deepscaler_r256"
    assert load_recipe(recipe).recipe.prompt.system
    loaded = load_recipe(recipe, ["prompt.system=unset"])
    assert loaded.recipe.prompt.system is None
    assert loaded.sources["prompt.system"] == "default"
    assert load_recipe(recipe, ['prompt.system=""']).recipe.prompt.system == ""


@pytest.mark.parametrize("key", ["prompt.sistem", "lora", "eval.aime24.foo", "no.such"])
def test_unset_of_no_key_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="is no value of a recipe"):
        load_recipe("deepscaler_r256", [f"{key}=unset"])


@pytest.mark.parametrize(
    "changed",
    [
        *("data.path={pipe}", "eval.heldout.path={pipe}", "data.path=/dev/zero"),
        "signal.solve_rates={pipe}",
    ],
)
def test_pipes_and_devices_are_refused_before_anything_is_planned(
    tmp_path: Path, changed: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    sets = ["--set", "signal.order=difficulty", "--set", changed.format(pipe=tmp_path / "pipe")]
    done = budgetrl("run", "quickstart", "--dry-run", *sets)
    assert done.returncode == 2
    assert "a pipe or a device, not a file" in done.stderr


def test_grade_reads_a_pipe_that_is_written_to_and_no_other(tmp_path: Path) -> None:
    as_jsonl(tmp_path / "rows.jsonl", [{"completion": r"\boxed{5}", "gold": "5"}])
    command = (
        f"'{sys.executable}' -m budgetrl grade --json <(sleep 0.3; cat '{tmp_path}/rows.jsonl')"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["summary"]["correct"] == 1
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/zero"):
        refused = budgetrl("grade", path)
        assert refused.returncode == 2 and "cannot be read: it is a pipe" in refused.stderr


@pytest.mark.parametrize(
    ("training", "suite"), [(".csv", ".parquet"), (".json", ".csv.gz"), ("", ".jsonl")]
)
def test_every_kind_of_file_is_taken_by_the_command_line(
    tmp_path: Path, training: str, suite: str
) -> None:
    rows = [{"problem": f"What is {i} + {i}?", "answer": f"{2 * i}"} for i in range(40)]
    paths = []
    for name, kind, part in (("train", training, rows[:30]), ("judge", suite, rows[30:])):
        folder = tmp_path / name
        folder.mkdir()
        path = folder / f"rows{kind.removesuffix('.gz') or '.parquet'}"
        WRITERS[path.suffix](path, part)
        if kind.endswith(".gz"):
            packed = path.with_name(f"{path.name}.gz")
            packed.write_bytes(gzip.compress(path.read_bytes()))
            path = packed
        paths.append(path if kind else folder)
    sets = ["--set", f"data.path={paths[0]}", "--set", f"eval.heldout.path={paths[1]}"]
    done = budgetrl("run", "quickstart", "--dry-run", *sets)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("takes the place of") == 2


def test_a_dry_run_reads_the_golds_as_the_run_does(tmp_path: Path) -> None:
    as_csv(tmp_path / "rows.csv", [{"problem": f"p{i}", "answer": "1+"} for i in range(3)])
    path = str(tmp_path / "rows.csv")
    done = budgetrl("run", "quickstart", "--dry-run", "--set", f"data.path={path}")
    assert done.returncode == 2
    assert "'1+' cannot be used" in done.stderr


def budgetrl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "budgetrl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_format_reward_against_a_closed_think_block_is_refused() -> None:
    from transformers import AutoTokenizer

    from budgetrl.recipe.assets import asset_root

    template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<think>\n\n</think>\n\n{% endif %}"
    )
    recipe = load_recipe("quickstart").recipe
    prompt = recipe.prompt.model_copy(update={"chat_template": template})
    folder = asset_root() / recipe.model.id.removeprefix("asset:")
    renderer = PromptRenderer(AutoTokenizer.from_pretrained(folder), prompt)
    with pytest.raises(RecipeError, match=r"rewards\.format\.weight.*closed already"):
        load_usable(recipe, renderer, fine, lambda tokens: None)
