"""The best checkpoint: what is named so is there, and its loss costs a warning, not the run."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_preflight import SMALL, workbench

from budgetrl.events import RunWarning
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import RunDir
from budgetrl.training import saving
from budgetrl.training.alarms import Alarm
from budgetrl.training.callbacks import StepCallback
from budgetrl.training.recorder import StepRecord

RECIPE = load_recipe(
    "quickstart", ["batch.micro_batch=16", *SMALL, "select.use=best", "select.suite=heldout"]
).recipe


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[StepCallback]:
    with workbench(tmp_path, RECIPE) as (_, _, _, build):
        made: StepCallback = build()
        made.saver.begin()
        yield made


def after_update(follower: StepCallback, step: int, accuracy: float) -> None:
    """As if an evaluation after this update had given this accuracy."""
    follower.trainer.create_optimizer_and_scheduler(num_training_steps=9)
    follower.trainer.state.global_step = step
    follower.saver.note_best(follower.trainer, accuracy)


def warnings(run: RunDir) -> list[str]:
    return [event.code for event in run.events() if isinstance(event, RunWarning)]


def test_the_best_one_is_judged(follower: StepCallback) -> None:
    after_update(follower, 1, 0.5)
    after_update(follower, 2, 0.4)
    assert follower.saver.best_step() == 1
    assert follower.saver.best_checkpoint() == "checkpoints/step_000001"


def test_no_update_waits_for_the_disk_and_a_checkpoint_has_the_completions_before_it_there(
    follower: StepCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    wait = os.fsync

    def fsync(handle: int) -> None:
        waited.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        wait(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert follower.saver.store(1, StepRecord(1, group_size=1))
    assert waited == []
    after_update(follower, 1, 0.5)
    assert waited[:2] == ["step_000001.jsonl", "completions"]
    assert len(waited) > 2, "then those of the checkpoint"


def test_the_run_is_looked_at_right_after_an_evaluation(
    follower: StepCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    def observe(step: int, *, evaluated: bool) -> list[Alarm]:
        assert evaluated
        return [Alarm("accuracy_fell", f"update {step}", False)]

    monkeypatch.setattr(type(follower), "_due_suites", lambda *_: ["heldout"])
    monkeypatch.setattr(type(follower), "_affords_evaluation", lambda *_: True)
    monkeypatch.setattr(type(follower.evaluator), "evaluate", lambda *_, **__: {})
    monkeypatch.setattr(follower, "watch", SimpleNamespace(observe=observe))
    follower._evaluate_if_due(16)
    assert warnings(follower.run) == ["accuracy_fell"]


def test_what_could_not_be_saved_is_not_the_best(
    follower: StepCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Path:
        raise OSError(28, "No space left on device")

    after_update(follower, 1, 0.5)
    monkeypatch.setattr(saving, "save_checkpoint", full)
    after_update(follower, 2, 0.6)
    assert follower.saver.best_step() == 1
    assert warnings(follower.run) == ["not_saved"]


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_where_it_is_lost_the_last_update_is_judged(follower: StepCallback, harm: str) -> None:
    after_update(follower, 1, 0.5)
    file = follower.run.checkpoint_path(1) / "adapter_model.safetensors"
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(bytes(file.stat().st_size))
    assert follower.saver.best_step() is None
    assert follower.saver.best_checkpoint() == "checkpoints/step_000001"
    assert warnings(follower.run) == ["best_lost"]


def test_a_run_that_stopped_without_signal_gets_another_chance(follower: StepCallback) -> None:
    state = follower.state()
    follower.restore(4, state | {"empty_updates": 3})
    for _ in range(3):
        follower._watch_signal({"groups_with_signal": 0, "accuracy_mean": 0.0})
    assert follower.stop_reason == "no_signal"
