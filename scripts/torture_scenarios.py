"""What is done to the runs of torture.py: one function per kind of harm, each giving an Outcome.

Every scenario starts a run of its own, harms it, brings it to its end and compares it with the
reference. Which scenarios, how many and when is decided in torture.py.
"""

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torture_lab import (
    SAVE_EVERY,
    Lab,
    Process,
    differences,
    lost_steps,
    processes_of,
    unreadable,
    wait_until_free,
)

from budgetrl.history import read_history
from budgetrl.rundir import RunDir

ORPHAN_S = 30.0
"""A worker without its supervisor is gone within this."""
GRACE_S = 20.0
INTERRUPT_S = 10.0
AT_ONCE_S = 3.0
MAX_RESUMES = 6
MAX_TRIES = 5
"""Runs that a harm is tried on, if it comes after their end."""


@dataclass(slots=True)
class Outcome:
    """What one scenario did and what was wrong."""

    kind: str
    name: str
    details: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    """Kills, budgets, signals or full disks that really happened."""
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill -9."""

    whom: str
    """worker, supervisor or both."""
    saving: bool
    """While the temporary folder of a checkpoint exists; else at any moment."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The uninterrupted run."""

    run: RunDir
    wall_s: float


def reference_run(lab: Lab) -> Reference:
    """Run once without harm.

    Raises:
        RuntimeError: even that fails.
    """
    process = lab.start_run("reference")
    code, wall_s = process.wait()
    run = lab.run_of("reference", process)
    faults = [] if run is None else unreadable(run, at_rest=True)
    if code != 0 or run is None or faults:
        raise RuntimeError(f"the reference run failed ({code}): {faults} {process.errors()}")
    return Reference(run, wall_s)


# --- kill -9


def kill_run(
    lab: Lab, reference: Reference, name: str, rng: random.Random, kills: Sequence[Kill]
) -> Outcome:
    """Some kills; those that would come after the end of a run meet another one."""
    outcome = Outcome("kill", name)
    for number in range(MAX_TRIES):
        left = kills[outcome.count :]
        if not left or outcome.faults:
            break
        _kill_one_run(lab, reference, f"{name}-{number}", rng, left, outcome)
    return outcome


def _kill_one_run(
    lab: Lab,
    reference: Reference,
    name: str,
    rng: random.Random,
    kills: Sequence[Kill],
    outcome: Outcome,
) -> None:
    """One run through kills until it ends; `count` grows by those that met a living process."""
    process = lab.start_run(name)
    run = lab.run_of(name, process)
    if run is None:
        _never_started(outcome, process)
        return
    for kill in kills:
        if not _moment(run, process, kill, rng, reference.wall_s) or not process.kill(kill.whom):
            break
        outcome.count += 1
        outcome.details.setdefault("kills", []).append(asdict(kill))
        outcome.faults += unreadable(run, at_rest=False)
        if kill.whom == "worker":
            _await_next_worker(process)
            continue
        _leave(run, outcome)
        process = lab.resume(run, name)
    _to_the_end(lab, run, process, outcome, reference)


def _moment(run: RunDir, process: Process, kill: Kill, rng: random.Random, wall_s: float) -> bool:
    """Wait for the time to kill; False if the run ends before."""
    until = time.monotonic() + rng.uniform(0.0, wall_s)
    folder = run.path / "checkpoints"
    while not process.ended():
        if kill.saving:
            if any(name.startswith(".tmp-step_") for name in os.listdir(folder)):
                return True
            time.sleep(0.0005)
        elif time.monotonic() >= until:
            return True
        else:
            time.sleep(0.005)
    return False


def _await_next_worker(process: Process) -> None:
    """Until the supervisor has started another worker, or gives up."""
    before = process.worker()
    while not process.ended() and process.worker() in (None, before):
        time.sleep(0.02)


def _leave(run: RunDir, outcome: Outcome) -> None:
    """After its supervisor's death a worker saves and goes."""
    seconds = wait_until_free(run, _mark(run), ORPHAN_S)
    orphans = outcome.details.setdefault("orphan_s", [])
    orphans.append(round(seconds, 2))
    if seconds > ORPHAN_S:
        outcome.faults.append(f"the worker outlived its supervisor by {ORPHAN_S} s")
        for pid in processes_of(_mark(run)):
            os.kill(pid, signal.SIGKILL)


def _to_the_end(
    lab: Lab,
    run: RunDir,
    process: Process,
    outcome: Outcome,
    reference: Reference,
    most_lost: float = SAVE_EVERY,
) -> None:
    """Resume as often as it takes, then compare with the reference."""
    name = run.path.parent.name
    code, _ = process.wait()
    for _ in range(MAX_RESUMES):
        if code == 0:
            break
        process = lab.resume(run, name)
        code, _ = process.wait()
    if code != 0:
        outcome.faults.append(f"could not be resumed: exit {code}: {process.errors()[-400:]}")
        return
    result = process.result()
    outcome.details["attempts"] = result["attempts"]
    if result["stop_reason"] != "completed":
        outcome.faults.append(f"stop reason {result['stop_reason']}")
    if "Traceback" in process.errors():
        outcome.faults.append(f"a traceback: {process.errors()[-400:]}")
    outcome.faults += lost_steps(run, most_lost)
    outcome.faults += differences(run, reference.run)
    outcome.faults += unreadable(run, at_rest=True)
    outcome.faults += _left_behind(lab, name)


def _left_behind(lab: Lab, name: str, patience_s: float = 3.0) -> list[str]:
    """Processes that still live a moment after everything is over."""
    until = time.monotonic() + patience_s
    while pids := processes_of(str(lab.root / name)):
        if time.monotonic() > until:
            return [f"{len(pids)} processes live on"]
        time.sleep(0.1)
    return []


def _errors_of(run: RunDir) -> list[str]:
    """The kinds of errors that a run tells of."""
    return [error.type for error in read_history(run).errors]


def _mark(run: RunDir) -> str:
    """By which the processes of a run's scenario are known."""
    return str(run.path.parent.parent.parent / run.path.parent.name)


def _never_started(outcome: Outcome, process: Process) -> Outcome:
    outcome.faults.append(f"no run directory: {process.errors()[-400:]}")
    return outcome


# --- budgets

NORMAL_ENDS = ("budget", "no_signal")
SLOW_DOWNS: dict[str, Callable[[random.Random], dict[str, str]]] = {
    "nothing": lambda rng: {},
    "slow reward": lambda rng: {"TORTURE_REWARD_S": f"{rng.uniform(0.01, 0.5):.3f}"},
    "stuck reward": lambda rng: {"TORTURE_STUCK": "1"},
    "slow disk": lambda rng: {"TORTURE_FSYNC_S": f"{rng.uniform(0.02, 0.6):.3f}"},
    "long completions": lambda rng: {},
}


def budget_run(lab: Lab, name: str, rng: random.Random, slow: str, budget_s: float) -> Outcome:
    """One run on a budget: from outside it takes no longer, whatever slows it down."""
    sets: dict[str, object] = {"schedule.stop_after_steps": 100_000}
    if slow == "long completions":
        sets |= {"sampling.max_tokens": 190, "sampling.temperature": 3.0}
    environment = SLOW_DOWNS[slow](rng)
    process = lab.start_run(name, sets=sets, budget_s=budget_s, slow=environment)
    outcome = Outcome("budget", name, {"slow": slow, "budget_s": round(budget_s, 2)}, 1)
    try:
        code, wall_s = process.wait(budget_s + 60)
    except subprocess.TimeoutExpired:
        process.kill("both")
        outcome.faults.append("did not end within a minute after its budget")
        return outcome
    outcome.details |= {"exit_code": code, "wall_s": round(wall_s, 2)}
    run = lab.run_of(name, process)
    outcome.details["begun"] = run is not None
    if wall_s > budget_s and run is not None:  # a refusal takes as long as Python takes to start
        outcome.faults.append(f"took {wall_s:.2f} s of {budget_s:.2f} s")
    # Two stuck rows of an update's 32 are more than the 5 % with which a run goes on.
    if code == 1 and slow == "stuck reward" and run and _errors_of(run) == ["RewardError"]:
        outcome.details["stop_reason"] = "RewardError"
        outcome.faults += unreadable(run, at_rest=True)
    elif code not in (0, 3) or "Traceback" in process.errors():
        outcome.faults.append(f"exit {code}: {process.errors()[-400:]}")
    if code == 0:
        result = process.result()
        outcome.details |= {"steps": result["steps"], "stop_reason": result["stop_reason"]}
        # Long completions of a hot policy may have no signal: that is a normal end, too.
        if result["spent"]["wall_s"] > budget_s or result["stop_reason"] not in NORMAL_ENDS:
            outcome.faults.append(f"{result['stop_reason']}, spent {result['spent']}")
        outcome.faults += unreadable(RunDir(Path(result["run_dir"])), at_rest=True)
    outcome.faults += _left_behind(lab, name)
    return outcome


LATE_S = 0.2
"""What the outside clock, which also sees processes begin and end, may tell more."""


@contextmanager
def burning(count: int) -> Iterator[None]:
    """So many processes that use a core each, as far as there are cores."""
    burner = [sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(burner) for _ in range(count)]
    try:
        yield
    finally:
        for process in burners:
            process.kill()
        for process in burners:
            process.wait()


def loaded_run(lab: Lab, name: str, budget_s: float) -> Outcome:
    """The quickstart on a budget, on a machine that is busy with others."""
    sets = {"schedule.stop_after_steps": 100_000}
    process = lab.start_run(name, sets=sets, budget_s=budget_s, recipe="quickstart")
    outcome = Outcome("loaded", name, {"budget_s": round(budget_s, 2)}, 1)
    try:
        code, wall_s = process.wait(budget_s + 60)
    except subprocess.TimeoutExpired:
        process.kill("both")
        outcome.faults.append("did not end within a minute after its budget")
        return outcome
    outcome.details |= {"exit_code": code, "late_s": round(wall_s - budget_s, 2)}
    document = process.result()
    spent_s = document.get("spent", {}).get("wall_s")
    if spent_s is not None:
        outcome.details |= {"steps": document["steps"], "unbilled_s": round(wall_s - spent_s, 2)}
    if wall_s > budget_s + LATE_S:
        outcome.faults.append(f"took {wall_s:.2f} s of {budget_s:.2f} s")
    if code not in (0, 3) or "Traceback" in process.errors():
        outcome.faults.append(f"exit {code}: {process.errors()[-400:]}")
    if code == 0:
        rounds = [suite["samples"] for suite in (document["final"] or {}).values()]
        outcome.details["rounds"] = min(rounds, default=0)
        if not outcome.details["rounds"]:
            outcome.faults.append("exit 0 without a final evaluation")
        outcome.faults += unreadable(RunDir(Path(document["run_dir"])), at_rest=True)
    if code == 3 and budget_s >= 90.0:
        outcome.faults.append(f"{budget_s:.0f} s bought nothing: {process.errors()[-400:]}")
    outcome.faults += _left_behind(lab, name, 15.0)
    return outcome


# --- signals


def signal_run(
    lab: Lab, reference: Reference, name: str, rng: random.Random, numbers: Sequence[signal.Signals]
) -> Outcome:
    """SIGTERM, or SIGINT once or twice, at any moment; then on to the end."""
    for number in range(MAX_TRIES):
        outcome = _signal_one_run(lab, reference, f"{name}-{number}", rng, numbers)
        if outcome.count or outcome.faults:
            break
    return outcome


def _signal_one_run(
    lab: Lab, reference: Reference, name: str, rng: random.Random, numbers: Sequence[signal.Signals]
) -> Outcome:
    process = lab.start_run(name)
    run = lab.run_of(name, process)
    kind = "sigterm" if numbers[0] is signal.SIGTERM else "sigint"
    outcome = Outcome(kind, name, {"signals": len(numbers)})
    if run is None:
        return _never_started(outcome, process)
    if not _moment(run, process, Kill("", saving=False), rng, reference.wall_s):
        return outcome
    sent = time.monotonic()
    for number in numbers:
        process.send(number)
        time.sleep(0.3 if len(numbers) > 1 else 0.0)
    code, _ = process.wait()
    took_s = time.monotonic() - sent
    limit = {signal.SIGTERM: GRACE_S, signal.SIGINT: INTERRUPT_S}[numbers[0]]
    limit = AT_ONCE_S if len(numbers) > 1 else limit
    expected = 143 if numbers[0] is signal.SIGTERM else 130
    outcome.details |= {"exit_code": code, "took_s": round(took_s, 2)}
    if code == 0:  # the run was over, only its report was being made
        return outcome
    outcome.count = 1
    if code != expected:
        outcome.faults.append(f"exit {code} instead of {expected}: {process.errors()[-400:]}")
    if took_s > limit:
        outcome.faults.append(f"took {took_s:.1f} s, allowed are {limit} s")
    outcome.faults += unreadable(run, at_rest=False)
    outcome.faults += [] if len(numbers) > 1 else _unsaved(run)
    outcome.faults += _left_behind(lab, name)
    _to_the_end(lab, run, lab.resume(run, name), outcome, reference)
    return outcome


def _unsaved(run: RunDir) -> list[str]:
    """After an orderly end the last step is saved, or the last save is younger than a minute."""
    steps = read_history(run).steps
    newest = run.newest_checkpoint()
    if not steps or (newest is not None and newest.step == steps[-1].step):
        return []
    age = float("inf") if newest is None else time.time() - newest.path.stat().st_mtime
    return [] if age < 60 else [f"step {steps[-1].step} was not saved"]


# --- full disks


def disk_run(lab: Lab, reference: Reference, name: str, rng: random.Random, what: str) -> Outcome:
    """No file may grow beyond a limit within the events, or within a checkpoint; then it may."""
    files = {"events": reference.run.path / "events.jsonl"}
    newest = reference.run.newest_checkpoint()
    assert newest is not None
    files["checkpoint"] = max(newest.path.iterdir(), key=lambda file: file.stat().st_size)
    full = files[what].stat().st_size
    low = files["events"].stat().st_size / full * 2 if what == "checkpoint" else 0.05
    limit = max(1, int(full * rng.uniform(low, 0.95) / 1024))
    process = lab.start_run(name, file_limit_kib=limit)
    run = lab.run_of(name, process)
    code, _ = process.wait()
    outcome = Outcome("disk_full", name, {"full": what, "kib": limit, "exit_code": code}, 1)
    if code not in (0, 1, 2, 3) or "Traceback" in process.errors():
        outcome.faults.append(f"exit {code}: {process.errors()[-400:]}")
    if run is None or not run.path.exists():
        outcome.details["started"] = False
        process = lab.start_run(name)
        run = lab.run_of(name, process)
        assert run is not None
    else:
        outcome.faults += unreadable(run, at_rest=False)
        process = lab.resume(run, name)
    # Where no file may grow no checkpoint can be written, so any number of updates may be lost.
    _to_the_end(lab, run, process, outcome, reference, most_lost=math.inf)
    return outcome
