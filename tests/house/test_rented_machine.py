"""A run on a rented machine: memory runs out, the disk is lost, and it has to be stopped."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

from budgetrl.events import Error, Event, RunFinished, RunResumed, RunWarning, Step
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import RunDir, list_runs, open_run
from budgetrl.supervise.attempt import smaller_micro_batch

REWARD = '''"""Asks for more memory than there is, the 20th and the 24th time."""

from pathlib import Path

import torch

COUNT = Path("calls")


def model(completion, **_):
    calls = int(COUNT.read_text()) + 1 if COUNT.exists() else 1
    COUNT.write_text(str(calls))
    if calls in (20, 24):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return float(len(completion) % 3)
'''
RECIPE = """
[recipe]
name = "own"
extends = ["quickstart"]

[[rewards]]
name = "own_model:model"
"""
SETTINGS = {  # 16 completions an update: the 20th is in the second one
    "batch.prompts_per_step": 2,
    "batch.micro_batch": 8,
    "schedule.stop_after_steps": 3,
    "checkpoint.every_steps": 1,
    "eval.heldout.samples": 1,
    "eval.heldout.k": "[1]",
    "eval.heldout.when": "['baseline']",
    "entropy.prompts": 1,
    "sampling.max_tokens": 16,
    "signal.on_empty": "continue",
}
ON_FINISH = "pwd >> ../../ended"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the recipe, its reward and the run are."""
    made = tmp_path_factory.mktemp("memory")
    (made / "own_model.py").write_text(REWARD)
    (made / "own.toml").write_text(RECIPE)
    return made


def call(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    options = ("--allow-code", "--display", "none", "--json")
    return subprocess.run(
        [sys.executable, "-m", "budgetrl", *command, *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def failed(folder: Path) -> RunDir:
    """Two updates: the second one ran out of memory, and once more with half the micro-batch."""
    settings = SETTINGS | {"checkpoint.mirror": str(folder / "elsewhere")}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    done = call(folder, "run", "own.toml", "--hours", "20m", "--on-finish", ON_FINISH, *sets)
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert (result["stop_reason"], result["steps"], result["attempts"]) == ("failed", 1, 2)
    return list_runs(folder / "runs")[0]


def of(kind: type[Event], run: RunDir) -> list[Any]:
    return [event for event in run.events() if isinstance(event, kind)]


def test_it_restarts_once_from_a_step_with_half_the_micro_batch(failed: RunDir) -> None:
    (resumed,) = of(RunResumed, failed)
    assert (resumed.from_step, resumed.micro_batch) == (1, 4)
    assert [(step.step, step.attempt) for step in of(Step, failed)] == [(1, 1)]
    assert of(RunFinished, failed)[-1].exit_code == 1


def test_events_tell_what_happened_and_what_changed(failed: RunDir) -> None:
    told = [(e.type, e.exit_code, e.attempt) for e in of(Error, failed)]
    assert told == [("OutOfMemoryError", 76, 1), ("OutOfMemoryError", 76, 2)]
    assert "at batch.micro_batch = 4" in of(Error, failed)[-1].message
    (warning,) = [w for w in of(RunWarning, failed) if w.code == "micro_batch"]
    assert "micro-batches of 4 completions instead of 8 from update 2 on" in warning.message


def test_less_is_tried_than_a_rehearsal_has_left(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "rehearsed")
    sets = ["batch.prompts_per_step=3", "batch.micro_batch=24"]
    recipe = load_recipe("quickstart", sets).recipe
    run.write_json("recipe.resolved.json", {"recipe": recipe.model_dump(mode="json")})
    assert smaller_micro_batch(run, None) == 12
    assert smaller_micro_batch(run, 6) == 3
    run.write_json("manifest.json", {"micro_batch": 2})
    assert smaller_micro_batch(run, 6) == 1
    assert smaller_micro_batch(run, 1) is None


def test_the_mirror_holds_the_run(folder: Path, failed: RunDir) -> None:
    copy = open_run(folder / "elsewhere" / failed.name)
    (ours,), (theirs,) = failed.checkpoints(), copy.checkpoints()
    assert ours.step == theirs.step == 1
    manifest = "checkpoint.json"
    assert (ours.path / manifest).read_bytes() == (theirs.path / manifest).read_bytes()
    assert copy.read_json("recipe.resolved.json") == failed.read_json("recipe.resolved.json")
    assert [step.step for step in of(Step, copy)] == [1]
    assert (copy.path / "evals" / "heldout" / "baseline.json").is_file()


def test_resuming_finds_lost_checkpoints_in_the_mirror_and_takes_half_of_that_again(
    folder: Path, failed: RunDir
) -> None:
    shutil.rmtree(failed.path / "checkpoints")
    done = call(folder, "resume", str(failed.path), "--on-finish", ON_FINISH)
    assert done.returncode == 0, done.stderr
    again = of(RunResumed, failed)[-1]
    assert (again.from_step, again.micro_batch) == (1, 2)
    assert [(step.step, step.attempt) for step in of(Step, failed)] == [(1, 1), (2, 3), (3, 3)]


def test_the_mirror_knows_how_the_run_ended(folder: Path, failed: RunDir) -> None:
    copy = open_run(folder / "elsewhere" / failed.name)
    assert copy.read_json("result.json") == failed.read_json("result.json")
    assert of(RunFinished, copy)[-1].stop_reason == "completed"
    assert (copy.path / "report" / "report.html").is_file()


def test_the_adapter_folder_is_the_last_checkpoint_for_peft_alone(failed: RunDir) -> None:
    folder, checkpoint = failed.path / "adapter", failed.checkpoints()[-1]
    assert failed.read_json("result.json")["adapter"] == str(folder)
    model = peft.AutoPeftModelForCausalLM.from_pretrained(str(folder))
    saved = load_file(str(checkpoint.path / "adapter_model.safetensors"))
    loaded = peft.get_peft_model_state_dict(model)
    assert checkpoint.step == 3
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


def test_the_command_for_the_end_was_run_at_every_end(folder: Path, failed: RunDir) -> None:
    """After the failure and after the resumption; in the run directory."""
    assert (folder / "ended").read_text().split() == 2 * [str(failed.path)]
