"""Killed and resumed, a run makes the same updates, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from budgetrl.events import Step
from budgetrl.history import read_history
from budgetrl.rundir import RunDir, list_runs

STEPS = 8
SETTINGS = {
    "schedule.stop_after_steps": STEPS,
    "batch.prompts_per_step": 4,
    "batch.micro_batch": 8,
    "batch.updates_per_rollout": 2,
    "data.limit": 12,  # three updates an epoch: the kill falls into the second one
    "checkpoint.every_steps": 2,
    "eval.heldout.samples": 1,
    "eval.heldout.k": "[1]",
    "signal.order": "difficulty",
    "signal.skip": "exact",
    "entropy.prompts": 4,
}
SAME = ("reward_mean", "accuracy_mean", "loss", "grad_norm", "entropy", "tokens", "learning_rate")


def start(out: Path) -> "subprocess.Popen[str]":
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "budgetrl", "run", "quickstart", "--hours", "20m", *sets]
    command += ["--out", str(out), "--display", "none", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(out: Path, step: int) -> RunDir:
    """The run, once its files have the completions of a step."""
    for _ in range(3000):
        runs = list_runs(out)
        if runs and runs[0].completions_file(step).exists():
            return runs[0]
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunDir]:
    """An uninterrupted run, and one whose processes were all killed in the fifth update."""
    straight, broken = tmp_path_factory.mktemp("straight"), tmp_path_factory.mktemp("broken")
    whole = start(straight)
    _, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    killed = start(broken)
    run = wait_for(broken, 5)
    beat = json.loads((run.path / "heartbeat.json").read_text())
    assert beat["pid"] == killed.pid
    worker = worker_of(killed.pid)
    os.kill(killed.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    killed.wait()
    resume = [sys.executable, "-m", "budgetrl", "resume", str(run.path), "--display", "none"]
    done = subprocess.run([*resume, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["attempts"] == 2
    assert result["stop_reason"] == "completed"
    return list_runs(straight)[0], run


def worker_of(supervisor: int) -> int:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def test_step_series_is_bit_equal(runs: tuple[RunDir, RunDir]) -> None:
    straight, resumed = (read_history(run).steps for run in runs)
    assert [step.step for step in resumed] == list(range(1, STEPS + 1))
    for a, b in zip(straight, resumed, strict=True):
        assert [getattr(a, name) for name in SAME] == [getattr(b, name) for name in SAME]


def test_completions_are_equal(runs: tuple[RunDir, RunDir]) -> None:
    for step in range(1, STEPS + 1):
        straight, resumed = (run.completions_file(step).read_text() for run in runs)
        assert straight == resumed


def test_final_evaluation_is_equal(runs: tuple[RunDir, RunDir]) -> None:
    straight, resumed = (read_history(run).evaluation("final", "heldout") for run in runs)
    assert straight is not None and resumed is not None
    assert straight.pass_at == resumed.pass_at


def test_the_ledger_counts_both_attempts(runs: tuple[RunDir, RunDir]) -> None:
    _, resumed = runs
    events = list(resumed.events())
    elapsed = [event.elapsed_s for event in events]
    assert elapsed == sorted(elapsed)
    assert {event.attempt for event in events if isinstance(event, Step)} == {1, 2}


def test_a_resumed_run_is_planned_by_its_own_updates(runs: tuple[RunDir, RunDir]) -> None:
    straight, resumed = (run.read_json("plan.json")["times"] for run in runs)
    assert not straight["source"].startswith("this run")
    assert resumed["source"].startswith("this run")
    assert resumed["update_s"] != straight["update_s"]
