"""The Python interface does what the commands do, and its page's example runs as it stands."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import budgetrl
from budgetrl.errors import BudgetError, RecipeError, UsageError
from budgetrl.rundir import list_runs

ROOT = Path(__file__).resolve().parents[2]
IN_A_THREAD_OF_A_LOOP = """
import asyncio, sys
code = compile(open(sys.argv[1]).read(), sys.argv[1], "exec")
asyncio.run(asyncio.to_thread(exec, code, {"__name__": "__main__"}))
"""


def test_the_example_of_the_page_runs_in_a_thread_of_a_loop(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    (example,) = re.findall(
        r"<!-- begin:example -->\n```python\n(.*?)```\n<!-- end:example -->", page, re.DOTALL
    )
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-c", IN_A_THREAD_OF_A_LOOP, "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = done.stdout.splitlines()
    assert re.fullmatch(r"\d+ updates of \d+ s", told[0])
    assert told[1].startswith("completed 2 ")
    assert told[-1] == "correct"
    assert "update 2 of 2" in done.stderr
    (run,) = list_runs(tmp_path / "runs")
    assert (run.path / "report" / "report.html").is_file()


def test_a_result_has_the_fields_of_the_final_json() -> None:
    document = {
        "schema_version": 1, "run_dir": "runs/x", "recipe": "x", "stop_reason": "budget",
        "steps": 3, "spent": {"wall_s": 9.0, "train_s": 5.0, "usd": None},
        "budget": {"wall_s": 10.0, "usd": None},
        "baseline": {"s": {"pass_at": {"1": 0.5}, "interval_95": {"1": [0.4, 0.6]}, "samples": 4}},
        "final": None, "difference": None, "best_checkpoint": None, "attempts": 1,
        "report": None, "adapter": None, "stages": [{"name": "later"}],
    }  # fmt: skip
    result = budgetrl.RunResult.model_validate(document)
    assert result.model_dump(mode="json") == document
    assert result.baseline["s"].pass_at[1] == 0.5 and result.stop_reason == "budget"
    assert Path(result) == Path("runs/x")


@pytest.mark.parametrize(
    ("call", "error", "problem"),
    [
        (lambda out: budgetrl.train("quickstrat", out=out), RecipeError, "quickstart"),
        (lambda out: budgetrl.train("quickstart", budget="soon", out=out), UsageError, "90m"),
        (lambda out: budgetrl.train("quickstart", budget="$-1", out=out), UsageError, "above zero"),
        (lambda out: budgetrl.train("quickstart", budget="1s", out=out), BudgetError, "--hours"),
        (
            lambda out: budgetrl.train("quickstart", overrides={"lora.rnk": 1}, out=out),
            RecipeError,
            "did you mean rank",
        ),
        (
            lambda out: budgetrl.train("quickstart", overrides={"lora.rank": {1}}, out=out),
            UsageError,
            "texts, numbers or lists",
        ),
        (lambda out: budgetrl.resume(out / "none"), budgetrl.RunDirError, "no run directory"),
        (lambda out: budgetrl.evaluate(out / "none"), UsageError, "no such target"),
        (lambda out: budgetrl.estimate("quickstart", gpu="A4O"), UsageError, "A40"),
    ],
)
def test_what_the_commands_refuse_is_an_error(
    call: Callable[[Path], Any], error: type[Exception], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        call(tmp_path)
    assert problem in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_overrides_and_a_loaded_recipe_are_as_on_the_command_line() -> None:
    loaded = budgetrl.load_recipe("deepscaler_r256")
    by_name = budgetrl.estimate("deepscaler_r256", gpu="A40", budget="24h")
    assert budgetrl.estimate(loaded, gpu="A40", budget="24h") == by_name
    other = budgetrl.estimate(loaded, gpu="A40", budget="24h", overrides={"lora.rank": 8})
    assert other.scenario.recipe.lora.rank == 8


def test_a_run_in_a_thread_is_ended_by_its_event(tmp_path: Path) -> None:
    """The event is set already, so that the worker is told to leave as soon as it is there."""
    stop, ended = threading.Event(), []
    stop.set()
    thread = threading.Thread(
        target=lambda: ended.append(
            budgetrl.train("quickstart", out=tmp_path, stop=stop, display="none")
        )
    )
    thread.start()
    thread.join()
    (result,) = ended
    assert (result.stop_reason, result.steps, result.final) == ("interrupted", 0, None)
