"""Experiment trackers get the numbers of each update; one that fails costs one warning."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sample_events import step_event

from budgetrl.events import RunResumed, RunWarning
from budgetrl.history import History
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import RunDir, list_runs
from budgetrl.training.trackers import BACKLOG, TrackerThread, open_tracker
from budgetrl.types import Spend

SPEND = Spend(wall_s=12.5, train_s=8.0, usd=0.25)


class Recording:
    """Keeps what it gets; waits for `gate` before each step."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.gate.wait()
        self.rows.append((step, numbers))

    def close(self) -> None:
        self.closed = True


class Broken(Recording):
    def log(self, numbers: dict[str, float], step: int) -> None:
        raise ConnectionError("the server is gone")


@pytest.fixture
def tracker() -> Iterator[Recording]:
    made = Recording()
    yield made
    made.gate.set()


@pytest.fixture
def warnings() -> list[str]:
    return []


def following(tracker: Recording, warnings: list[str]) -> TrackerThread:
    return TrackerThread(lambda: tracker, "wandb", lambda code, text: warnings.append(text))


def test_every_update_arrives_with_what_was_paid(tracker: Recording, warnings: list[str]) -> None:
    thread = following(tracker, warnings)
    for step in (1, 2, 3):
        thread.log(step_event(step), SPEND)
    thread.finish()
    thread.wait(60.0, hurried=False)
    assert [step for step, _ in tracker.rows] == [1, 2, 3] and tracker.closed
    numbers = tracker.rows[0][1]
    assert (numbers["elapsed_s"], numbers["spent_usd"]) == (12.5, 0.25)
    assert (numbers["phase_s/rollout"], numbers["grader/correct"]) == (1.0, 8.0)
    assert not {"kl", "sample", "t", "schema_version", "step"} & set(numbers)
    assert not warnings


def test_a_fault_costs_one_warning_and_nothing_else(warnings: list[str]) -> None:
    thread = following(Broken(), warnings)
    for step in (1, 2, 3):
        thread.log(step_event(step), SPEND)
    thread.finish()
    thread.wait(60.0, hurried=False)
    thread.log(step_event(4), SPEND)
    assert warnings == ["wandb failed and is left out: ConnectionError: the server is gone"]


def test_one_that_is_not_installed_costs_one_warning(warnings: list[str]) -> None:
    def missing() -> Recording:
        raise ModuleNotFoundError("No module named 'wandb'")

    thread = TrackerThread(missing, "wandb", lambda code, text: warnings.append(text))
    thread.finish()
    thread.wait(60.0, hurried=False)
    assert len(warnings) == 1 and "No module named 'wandb'" in warnings[0]


def test_one_that_falls_behind_is_given_up(tracker: Recording, warnings: list[str]) -> None:
    tracker.gate.clear()
    thread = following(tracker, warnings)
    for step in range(BACKLOG + 3):
        thread.log(step_event(step), SPEND)
    assert warnings == [f"wandb failed and is left out: {BACKLOG} updates wait for it"]


def test_one_that_never_ends_gets_half_of_the_remaining_time(
    tracker: Recording, warnings: list[str]
) -> None:
    tracker.gate.clear()
    thread = following(tracker, warnings)
    thread.log(step_event(1), SPEND)
    thread.finish()
    thread.wait(0.1, hurried=False)
    assert len(warnings) == 1 and "did not finish in time" in warnings[0]


class Asked(ModuleType):
    """A tracker package that notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__("asked")
        self.calls: list[tuple[Any, ...]] = []

    def init(self, **arguments: Any) -> None:
        self.calls.append((arguments["name"], arguments["group"], arguments.get("id")))

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.calls.append((step, numbers["elapsed_s"]))

    def finish(self) -> None: ...

    def SummaryWriter(self, **arguments: Any) -> "Asked":
        self.calls.append((arguments["purge_step"],))
        return self

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if name == "elapsed_s":
            self.calls.append((step, value))

    def close(self) -> None: ...


def resumed_history() -> History:
    """Three updates, then a kill; the next attempt goes on after the second."""
    history = History()
    for step in (1, 2, 3):
        history.add(step_event(step, elapsed_s=10.0 * step))
    history.add(RunResumed(from_step=2, budget_s=99.0, attempt=2))
    return history


@pytest.mark.parametrize("kind", ["wandb", "trackio", "tensorboard"])
def test_each_update_is_shown_once_after_a_kill(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    asked = Asked()
    monkeypatch.setitem(sys.modules, kind, asked)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", asked)
    run = RunDir(tmp_path / "a_run")
    recipe = load_recipe("quickstart", [f"tracker.kind={kind}"]).recipe
    for history in (History(), resumed_history()):
        thread = open_tracker(run, recipe, history, lambda code, text: warnings.append(text))
        made = len(history.steps)
        thread.log(step_event(made + 1), SPEND)
        thread.finish()
        thread.wait(60.0, hurried=False)
    assert not warnings
    ids = ("a_run", "a_run-2") if kind == "wandb" else (None, None)
    if kind == "tensorboard":
        assert asked.calls == [(None,), (1, 12.5), (3,), (3, 12.5)]
    else:
        assert asked.calls == [
            *[("a_run", "a_run", ids[0]), (1, 12.5)],
            *[("a_run-2", "a_run", ids[1]), (1, 10.0), (2, 20.0), (3, 12.5)],
        ]


WANDB = '''"""As wandb behaves without a network: `init` waits for its server."""

import json, threading


def init(**arguments):
    print("asked for", json.dumps(sorted(arguments)))
    threading.Event().wait()
'''
SETTINGS = {
    "tracker.kind": "wandb",
    "batch.prompts_per_step": 2,
    "batch.micro_batch": 8,
    "schedule.stop_after_steps": 2,
    "eval.heldout.samples": 1,
    "eval.heldout.k": "[1]",
    "eval.heldout.when": "['baseline']",
    "entropy.prompts": 1,
    "sampling.max_tokens": 16,
}


def test_a_run_does_not_wait_for_a_tracker_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text(WANDB)
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "budgetrl", "run", "quickstart", "--hours", "20m", "--json", *sets],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2
    (run,) = list_runs(tmp_path / "runs")
    told = [e.message for e in run.events() if isinstance(e, RunWarning) and e.code == "tracker"]
    assert len(told) == 1 and "wandb" in told[0] and "did not finish in time" in told[0]
    log = (run.path / "worker.log").read_text()
    assert 'asked for ["config", "dir", "group", "id", "name", "project", "resume"]' in log
