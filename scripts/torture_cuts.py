"""One file of an interrupted run is cut at a random byte: what is lost must be said, and no more.

    victim = interrupted_run(lab)
    cut_run(lab, victim, reference, name, rng) -> Outcome

Truth is counted before the cut, from the files, without budgetrl's readers.
"""

import json
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from torture_lab import STEPS, Lab, differences, unreadable
from torture_scenarios import Outcome, Reference

from budgetrl.account.evaluated import EvaluatedRun, read_run
from budgetrl.display.runs_table import run_json, runs as list_of_runs
from budgetrl.errors import BudgetRLError
from budgetrl.events import Error, RunResumed
from budgetrl.report.sections import run_document
from budgetrl.rundir import RunDir

KILL_AFTER = 5
"""Completions of this update are on the disk when the victim is killed."""
UNCUT = {"events.lock", "supervisor.lock"}
LEFT_AS_THEY_ARE = ("completions", "checkpoints")
"""A cut completions file is named in the report; a cut checkpoint is not used."""


class Count(NamedTuple):
    """Updates, and their completions in events and in files."""

    updates: int
    told: int
    stored: int


def interrupted_run(lab: Lab) -> RunDir:
    """A run whose processes were killed in the midst of its training."""
    process = lab.start_run("victim")
    run = lab.run_of("victim", process)
    assert run is not None, process.errors()
    while not run.completions_file(KILL_AFTER).exists():
        assert not process.ended(), process.errors()
        time.sleep(0.02)
    process.kill("both")
    return run


def count(run: RunDir) -> Count:
    """What the files hold, line by line."""
    told: dict[int, int] = {}
    for line in (run.path / "events.jsonl").read_bytes().splitlines():
        with suppress(ValueError):
            event = json.loads(line)
            if event["kind"] == "run_resumed":
                told = {step: n for step, n in told.items() if step <= event["from_step"]}
            elif event["kind"] == "step":
                told[event["step"]] = event["completions"]
    stored = 0
    for file in (run.path / "completions").glob("step_*.jsonl"):
        if int(file.stem.removeprefix("step_")) in told:
            stored += sum(_is_whole(line) for line in file.read_bytes().splitlines())
    return Count(max(told, default=0), sum(told.values()), stored)


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def cut_run(
    lab: Lab, victim: RunDir, reference: Reference, name: str, rng: random.Random
) -> Outcome:
    """Cut one file of a copy; look at it, continue it, look again."""
    run = RunDir(Path(shutil.copytree(victim.path, lab.out(name) / victim.name)))
    truth = count(run)
    files = [f for f in sorted(run.path.rglob("*")) if f.is_file() and f.name not in UNCUT]
    file = rng.choice([f for f in files if f.stat().st_size > 0])
    size = rng.randrange(file.stat().st_size)
    with file.open("r+b") as opened:
        opened.truncate(size)
    outcome = Outcome("cut", name, {"file": str(file.relative_to(run.path)), "bytes": size}, 1)
    _look(run, truth, outcome, "after the cut")
    _go_on(lab, run, reference, name, outcome)
    left = file.exists() and file.stat().st_size == size
    if left and file.relative_to(run.path).parts[0] in LEFT_AS_THEY_ARE:
        outcome.faults = [fault for fault in outcome.faults if file.name not in fault]
    if not outcome.faults:
        shutil.rmtree(run.path)
    return outcome


def _look(run: RunDir, truth: Count, outcome: Outcome, when: str) -> list[str]:
    """What the report says is missing; silence about a loss, or an exception, is a fault."""
    try:
        evaluated = read_run(run)
        document = run_document(evaluated)
        listed = [run_json(view) for view in list_of_runs(run.path.parent)]
    except BudgetRLError as error:
        outcome.faults.append(f"{when}: not to be shown: {error.name}: {error.message}")
        return []
    except Exception as error:  # a traceback for the user
        outcome.faults.append(f"{when}: {type(error).__name__}: {error}")
        return []
    said = [*document.notices, *(w.message for w in evaluated.history.warnings.values())]
    said = [sentence for sentence in said if "crashed" not in sentence]
    found = Count(
        evaluated.steps, sum(s.completions for s in evaluated.history.steps), _stored(evaluated)
    )
    if found != truth and not said:
        outcome.faults.append(f"{when}: {found} instead of {truth}, and nothing is said")
    if found.updates != truth.updates and not listed[0]["missing"]:
        outcome.faults.append(
            f"{when}: `runs` shows {listed[0]['steps']} updates, and says nothing"
        )
    return said


def _stored(evaluated: EvaluatedRun) -> int:
    return sum(len(evaluated.completions(step.step)) for step in evaluated.history.steps)


def _go_on(lab: Lab, run: RunDir, reference: Reference, name: str, outcome: Outcome) -> None:
    attempts = _resumptions(run)
    paid: Any = (run.path / "heartbeat.json").read_bytes()
    process = lab.resume(run, name)
    code, _ = process.wait()
    outcome.details["exit_code"] = code
    if "Traceback" in process.errors():
        outcome.faults.append(f"a traceback: {process.errors()[-400:]}")
    if code == 2:  # refused: with a way on, and nothing paid
        if (run.path / "heartbeat.json").read_bytes() != paid:
            outcome.faults.append(f"refused after it was paid: {process.errors()[-300:]}")
        if "budgetrl" not in process.errors():
            outcome.faults.append(f"refused without a way on: {process.errors()[-300:]}")
        return
    if code != 0:
        outcome.faults.append(f"exit {code}: {process.errors()[-400:]}")
        return
    if _resumptions(run) - attempts > 1:
        errors = [e.message for e in run.events() if isinstance(e, Error)]
        outcome.faults.append(f"restarted: {errors}")
    whole = count(reference.run)
    said = _look(run, whole, outcome, "in the end")
    if not said:
        outcome.faults += differences(run, reference.run)
    outcome.faults += unreadable(run, at_rest=True)
    assert whole.updates == STEPS


def _resumptions(run: RunDir) -> int:
    return sum(isinstance(event, RunResumed) for event in run.events())
