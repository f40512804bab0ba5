"""What a user can get wrong, through the real command line: exit code, message, nothing left.

Every case is one process of `budgetrl run`. They all start two at a time when the first is looked
at, because most of a second goes into imports.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from budgetrl.events import RunWarning
from budgetrl.hardware import detect_gpu
from budgetrl.recipe.assets import local_path
from budgetrl.rundir import MANIFEST, open_run

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.toml"


@dataclass(frozen=True)
class Case:
    """A command that must fail, and how."""

    recipe: str
    """A file of `write_files`, or a bundled name."""
    args: Sequence[str]
    exit_code: int
    kind: str
    says: Sequence[str]
    """Regular expressions: what, where, and how to fix it."""


def case(recipe: str, *args: str, code: int = 2, kind: str, says: Sequence[str]) -> Case:
    return Case(recipe, args, code, kind, says)


RECIPES = {
    "missing recipe": case(
        "absent.toml", kind="RecipeError", says=["'absent.toml'", "budgetrl recipes list"]
    ),
    "misspelt name": case("quickstrat", kind="RecipeError", says=["Did you mean quickstart"]),
    "a folder": case("model", kind="RecipeError", says=["is a folder"]),
    "empty": case("empty.toml", kind="RecipeError", says=["empty.toml", "recipes copy quickstart"]),
    "binary": case("binary.toml", kind="RecipeError", says=["binary.toml: not UTF-8"]),
    "not UTF-8": case(
        "latin1.toml", kind="RecipeError", says=[r"latin1.toml: not UTF-8 text \(byte 20\)"]
    ),
    "broken TOML": case(
        "broken.toml", kind="RecipeError", says=["broken.toml: not valid TOML", "line 2"]
    ),
    "unknown key": case(
        "unknown.toml",
        kind="RecipeError",
        says=[r"unknown.toml: \[schedule\] lerning_rate: unknown key; did you mean learning_rate"],
    ),
    "every bad value at once": case(
        "values.toml",
        kind="RecipeError",
        says=[
            "8 problems",
            r"\[lora\] rank = 0",
            r"\[sampling\] temperature = -1",
            r"\[schedule\] learning_rate = nan",
            r"\[grpo\] num_generations = 1:",
            r"\[budget\] hours = 0",
            r"\[budget\] usd_per_hour = -1",
            r"\[batch\] prompts_per_step = 'sixteen'",
            r"\[\[eval\]\] heldout samples = 1.5",
        ],
    ),
    "bad value in a flag": case(
        "quickstart",
        "--set",
        "lora.rank=many",
        kind="RecipeError",
        says=[r"command line: \[lora\] rank = 'many': a rank is a number"],
    ),
    "malformed --set": case(
        "quickstart", "--set", "rank", kind="UsageError", says=["table.key=value"]
    ),
    "no hours": case("quickstart", "--hours", "0", kind="UsageError", says=["--hours", "'0'"]),
    "hours that are none": case("quickstart", "--hours", "soon", kind="UsageError", says=["90m"]),
    "negative price": case(
        "quickstart", "--usd", "1", "--price", "-0.3", kind="UsageError", says=["--price", "-0.3"]
    ),
    "dollars without a price": case(
        "quickstart", "--usd", "1", kind="UsageError", says=["price", "--price 0.30"]
    ),
    "no budget": case("no_budget.toml", kind="UsageError", says=["has no budget", "--hours 24"]),
}

MODELS_AND_DATA = {
    "missing model": case(
        "quickstart", "--set", "model.id=./absent", kind="ModelError", says=["absent", "model.id"]
    ),
    "model without tokenizer": case(
        "quickstart", "--set", "model.id=./model", kind="ModelError", says=["has no tokenizer"]
    ),
    "completions beyond the window": case(
        "quickstart",
        "--set",
        "sampling.max_tokens=200",
        kind="RecipeError",
        says=["264 tokens", "is 256", "Set sampling.max_tokens <= 192"],
    ),
    "missing data": case(
        "quickstart",
        "--set",
        "data.path=absent.jsonl",
        kind="DataError",
        says=["absent.jsonl: cannot be read: No such file", "relative to the recipe"],
    ),
    "empty data": case(
        "quickstart", "--set", "data.path=empty.jsonl", kind="DataError", says=["holds no rows"]
    ),
    "data that is not JSON": case(
        "quickstart",
        "--set",
        "data.path=broken.jsonl",
        kind="DataError",
        says=["broken.jsonl:2: not JSON", "One object per line"],
    ),
    "binary data": case(
        "quickstart",
        "--set",
        "data.path=binary.toml",
        kind="DataError",
        says=["binary.toml: not a kind of file"],
    ),
    "missing column": case(
        "columns.toml",
        kind="DataError",
        says=[r"good.jsonl:1: no column 'question'; there are: answer, problem", "data.columns"],
    ),
    "many bad rows": case(
        "quickstart",
        "--set",
        "data.path=bad_rows.jsonl",
        kind="DataError",
        says=[
            "2 of 22 rows",
            "bad_rows.jsonl:22: the answer ' ' .*empty",
            ":23: the problem is empty",
        ],
    ),
    "missing suite": case(
        "quickstart",
        "--set",
        "eval.heldout.path=absent.jsonl",
        kind="DataError",
        says=["absent.jsonl: cannot be read"],
    ),
    "one bad row in a suite": case(
        "quickstart",
        "--set",
        "eval.heldout.path=one_bad_row.jsonl",
        kind="DataError",
        says=["suite heldout", "1 rows cannot be evaluated", "one_bad_row.jsonl:21: .*before"],
    ),
}

REFUSALS = {
    "out is a file": case(
        "quickstart", "--out", "good.jsonl", kind="RunDirError", says=["run directory", "--out"]
    ),
    "out cannot be written": case(
        "quickstart", "--out", "/proc/runs", kind="RunDirError", says=["/proc/runs", "--out"]
    ),
    "budget below setup and evaluation": case(
        "quickstart",
        "--hours",
        "4s",
        code=3,
        kind="BudgetError",
        says=["4.0 s pays for nothing useful", "smallest budget .*--hours [0-9]+s"],
    ),
    "json failure": case(
        "quickstart", "--hours", "4s", "--json", code=3, kind="BudgetError", says=["pays for"]
    ),
    "two documents on one output": case(
        "quickstart", "--json", "--display", "json", kind="UsageError", says=["standard output"]
    ),
}

GPU = {
    "no GPU for a GPU recipe": case(
        "quickstart",
        "--set",
        "engine.device=cuda",
        "--set",
        "engine.name=unsloth",
        "--set",
        "lora.rank=64",
        code=3,
        kind="HardwareError",
        says=["NVIDIA GPU", "budgetrl run quickstart"],
    ),
}

WORKER = {
    "no chat template": case(
        "quickstart",
        "--set",
        "model.id=./untemplated",
        kind="ModelError",
        says=["untemplated has no chat template", "prompt.chat_template"],
    ),
    "a gold answer that cannot be read": case(
        "quickstart",
        "--set",
        "eval.heldout.path=unreadable_gold.jsonl",
        kind="DataError",
        says=[
            "suite heldout",
            r"unreadable_gold.jsonl:21: the answer .*frac.* not closed",
            "gold answer that parses",
        ],
    ),
}
"""What only the worker can see, after its imports."""

if detect_gpu() is not None:
    GPU.clear()
CASES = {**WORKER, **RECIPES, **MODELS_AND_DATA, **REFUSALS, **GPU}


# --- files


def problem(number: int) -> dict[str, str]:
    return {"problem": f"Compute {number}+1.", "answer": str(number + 1)}


def write_files(folder: Path) -> None:
    def rows(name: str, *extra: Mapping[str, Any]) -> None:
        lines = [json.dumps(row) for row in [*map(problem, range(20)), *extra]]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    text = QUICKSTART.read_text(encoding="utf-8")

    def variant(name: str, *changes: tuple[str, str]) -> None:
        changed = text
        for old, new in changes:
            assert old in changed
            changed = changed.replace(old, new, 1)
        (folder / name).write_text(changed, encoding="utf-8")

    (folder / "empty.toml").touch()
    (folder / "empty.jsonl").touch()
    (folder / "binary.toml").write_bytes(bytes(range(128, 256)) * 8)
    (folder / "latin1.toml").write_bytes('[recipe]\nname = "caf\u00e9"\n'.encode("latin-1"))
    (folder / "broken.toml").write_text('[recipe]\nname = "a\n', encoding="utf-8")
    variant("unknown.toml", ("learning_rate = 1e-3", "lerning_rate = 1e-3\nlearning_rate = 1e-3"))
    variant(
        "values.toml",
        ("rank = 64", "rank = 0"),
        ("temperature = 1.0", "temperature = -1.0"),
        ("learning_rate = 1e-3", "learning_rate = nan"),
        ("num_generations = 8", "num_generations = 1"),
        ("hours = 0.06667", "hours = 0\nusd_per_hour = -1.0"),
        ("prompts_per_step = 16", 'prompts_per_step = "sixteen"'),
        ("samples = 4", "samples = 1.5"),
    )
    variant("no_budget.toml", ("[budget]\nhours = 0.06667", ""))
    variant(
        "columns.toml",
        (
            'path = "asset:tiny/data/train_easy.jsonl"',
            'path = "good.jsonl"\ncolumns = { problem = "question" }',
        ),
    )
    rows("good.jsonl")
    rows(
        "bad_rows.jsonl",
        problem(3),
        {"problem": "Compute 9.", "answer": " "},
        {"problem": "", "answer": "1"},
    )
    rows("one_bad_row.jsonl", problem(7))
    rows(
        "some_bad_rows.jsonl",
        *({"problem": f"Compute {n}-1.", "answer": str(n - 1)} for n in range(1, 61)),
        problem(3),
        {"problem": "Compute 70-1.", "answer": ""},
        {"problem": "Compute 80-1.", "answer": "\\frac{1"},
    )
    rows("suite.jsonl")
    rows("unreadable_gold.jsonl", {"problem": "Compute 5.", "answer": "\\frac{1"})
    (folder / "broken.jsonl").write_text(json.dumps(problem(1)) + "\n{oops\n", encoding="utf-8")
    shipped = Path(local_path("asset:tiny/quickstart"))
    for name, left_out in (("model", "tokenizer"), ("untemplated", "chat_template")):
        shutil.copytree(
            shipped,
            folder / name,
            ignore=lambda _, names, o=left_out: [n for n in names if n.startswith(o)],
        )


# --- processes


@dataclass(frozen=True)
class Ran:
    """One finished process."""

    exit_code: int
    stdout: str
    stderr: str
    out: Path


GOOD_ENOUGH = (
    *("quickstart", "--json", "--hours", "3m", "--set", "data.path=some_bad_rows.jsonl"),
    *("--set", "eval.heldout.path=suite.jsonl", "--set", "eval.heldout.samples=1"),
    *("--set", "eval.heldout.k=[1]", "--set", "entropy.prompts=0", "--set", "lora.rank=4"),
    *("--set", "batch.prompts_per_step=2", "--set", "grpo.num_generations=2"),
    *("--set", "batch.micro_batch=4", "--set", "schedule.stop_after_steps=1"),
    *("--set", "sampling.max_tokens=16"),
)
"""Few enough bad rows to go on."""


def budgetrl(folder: Path, out: str, arguments: Sequence[str]) -> Ran:
    environment = os.environ | {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
    }
    where = [] if "--out" in arguments else ["--out", out]
    done = subprocess.run(
        [sys.executable, "-m", "budgetrl", "run", *arguments, *where],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr, folder / out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bad input")
    write_files(made)
    return made


@pytest.fixture(scope="module")
def processes(folder: Path) -> Iterator[dict[str, Future[Ran]]]:
    with ThreadPoolExecutor(max_workers=2) as pool:
        commands = {name: [one.recipe, *one.args] for name, one in CASES.items()}
        yield {
            name: pool.submit(budgetrl, folder, f"runs {number}", command)
            for number, (name, command) in enumerate({"a run": GOOD_ENOUGH, **commands}.items())
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_ends_with_its_message_and_leaves_nothing(
    name: str, processes: dict[str, Future[Ran]]
) -> None:
    expected, ran = CASES[name], processes[name].result()
    message = ran.stderr
    assert ran.exit_code == expected.exit_code, message
    assert re.search(rf"^{expected.kind}: ", message, re.MULTILINE), message
    for pattern in expected.says:
        assert re.search(pattern, message), (pattern, message)
    assert "Traceback" not in message + ran.stdout
    assert not ran.out.exists() or list(ran.out.iterdir()) == []
    if "--json" in expected.args:
        error = json.loads(ran.stdout)["error"]
        assert (error["type"], error["exit_code"]) == (expected.kind, expected.exit_code)
        assert error["message"] and error["hint"]
        assert f"{expected.kind}: {error['message']} {error['hint']}" in message


def test_bad_training_rows_are_left_out_counted_and_listed(
    processes: dict[str, Future[Ran]],
) -> None:
    ran = processes["a run"].result()
    assert ran.exit_code == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert (result["stop_reason"], result["steps"]) == ("completed", 1)
    run = open_run(result["run_dir"])
    warnings = [e for e in run.events() if isinstance(e, RunWarning) and e.code == "dropped_rows"]
    assert len(warnings) == 1
    assert "2 training rows were left out" in warnings[0].message
    repeated = [e for e in run.events() if getattr(e, "code", "") == "repeated_rows"]
    assert "1 training rows say the same" in repeated[0].message
    assert "manifest" in warnings[0].message
    data = run.read_json(MANIFEST)["data"]
    assert data["problems"] == 80
    reasons = {Path(entry["where"]).name: entry["why"] for entry in data["dropped"]}
    assert list(reasons) == [f"some_bad_rows.jsonl:{line}" for line in (82, 83)]
    found = ", ".join(reasons.values())
    assert re.search("it is empty, .*frac.*not closed", found), found


FULL = "OutputError: no space left for the output. Free some space, or send the output elsewhere.\n"
GONE = "UsageError: the current folder is gone. cd to one that exists.\n"
PLAN = "run quickstart --dry-run"


@pytest.mark.parametrize(
    ("command", "exit_code", "says", "stderr"),
    [
        (f"{PLAN} >&-", 0, "", ""),
        (f"{PLAN} --json 2>&-", 0, '{"', ""),
        (f"{PLAN} <&- >&- 2>&-", 0, "", ""),
        ("recipes list >/dev/full", 1, "", FULL),
        (f"{PLAN} --json >/dev/full", 1, "", FULL),
        ("run absent 2>/dev/full", 1, "", ""),
        ("recipes list --json | true", 0, "", ""),
        (PLAN, 2, "", GONE),
    ],
)
def test_streams_and_folders_that_are_gone_need_no_traceback(
    command: str, exit_code: int, says: str, stderr: str, tmp_path: Path
) -> None:
    enter = 'mkdir gone; cd gone; rmdir "$PWD"; ' if stderr == GONE else ""
    # Buffered, as users have it: the failure comes when the buffer is written at the end.
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [
            "bash",
            "-c",
            f'{enter}"$0" -m budgetrl {command}; exit ${{PIPESTATUS[0]}}',
            sys.executable,
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (exit_code, stderr)
    assert done.stdout.startswith(says)
