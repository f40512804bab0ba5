"""The end of a run: what a dead worker could not write, the report, and the result."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from budgetrl.account.ending import last_event, shortfall
from budgetrl.account.result import result_of
from budgetrl.account.run import Account
from budgetrl.display.base import Display
from budgetrl.errors import OUT_OF_MEMORY_EXIT, BudgetRLError, ExitCode
from budgetrl.estimation.cpu_learnt import learn
from budgetrl.estimation.machine import user_cache_dir
from budgetrl.events import Error
from budgetrl.history import History, measured_times
from budgetrl.plan import BUSY
from budgetrl.run_files import read_plan, read_recipe
from budgetrl.rundir import RESULT, RunDir
from budgetrl.supervise.attempt import (
    heartbeat,
)
from budgetrl.supervise.closing import Closing
from budgetrl.supervise.export import export_adapter
from budgetrl.supervise.worker import TICK_S, Signals, worker_environment
from budgetrl.training.attempt import Attempt
from budgetrl.training.log import stamp_of
from budgetrl.training.mirror import copy_files, mirror_of
from budgetrl.types import Spend

ESTIMATES = "estimates.jsonl"
"""In the user's cache: a row of plan against bill for every finished run."""
LEARNING_S = 0.7
"""What writing down the measured profile may take; a run that is later than that skips it."""
ADAPTER_WRITES, LAST_WRITES = 2, 2
"""Files in `adapter/` beside the weights; heartbeat and result, which are written in any case."""
HARD_MARGIN_S = 0.9
"""The report of a study is ended this long before its budget is."""


def record_death(
    run: RunDir,
    attempt: Attempt,
    exit_code: int,
    history: History,
    signals: Signals,
    *,
    again: bool,
    at_deadline: bool,
) -> None:
    """Write down that the worker died, and the end of the run unless it goes on.

    Raises:
        OSError: the run directory cannot be written.
    """
    at_deadline = at_deadline or time.monotonic() >= attempt.deadline - 0.05
    with run.writer(stamp_of(attempt.ledger(), attempt.number)) as events:
        said_why = exit_code == OUT_OF_MEMORY_EXIT
        if not at_deadline and not signals.received and not said_why:
            how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
            events.write(
                Error(
                    type="WorkerDied",
                    message=f"the worker process ended by {how}",
                    hint=f"See {run.worker_log}.",
                    exit_code=exit_code,
                )
            )
        run.clear_temporary()
        if not again:
            account, received = Account(run, history), signals.received
            last = last_event(account, read_recipe(run), received, at_deadline=at_deadline)
            if last.exit_code == ExitCode.REFUSED:
                paid_s = attempt.paid_s + time.monotonic() - attempt.started
                spend = Spend(paid_s, last.train_s, attempt.budget.usd_of(paid_s))
                events.write(shortfall(last.steps, spend))
            events.write(last)


def write_report(run: RunDir, end: float, display: Display) -> None:
    """Make the report in a child process, which is over by `end`, monotonic seconds."""
    command = [sys.executable, "-m", "budgetrl", "report", str(run.path), "--json"]
    run_reporter(command, run.scratch("report.log"), end, display)


def run_reporter(command: Sequence[str], file: Path, end: float, display: Display) -> None:
    """Run a command that writes a report; its words go to a file, and it is over by `end`."""
    left = end - time.monotonic()
    if left > 0:
        display.message("writing the report")
        deadline = time.monotonic() + left
        with suppress(OSError), file.open("wb") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, env=worker_environment())
            while child.poll() is None and time.monotonic() < deadline:
                display.tick()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(TICK_S)
            child.kill()
            child.wait()


def _learn_from(run: RunDir, attempt: Attempt, history: History, slow: float) -> None:
    """What the run measured, for the next plan; and a row of plan against bill."""
    recipe, planned = read_recipe(run), read_plan(run)
    paid_s = attempt.paid_s + time.monotonic() - attempt.started
    report_s = max(0.0, paid_s - history.elapsed_s)
    times = measured_times(history, report_s, f"run {run.name}")
    # An arm of a study that took over its baseline did not measure a whole run.
    if times is None or history.attempt > 1 or not planned.times.baseline_s:
        return
    row = {
        "run": run.name,
        "recipe": recipe.name,
        "steps": history.steps[-1].step if history.steps else 0,
        "source": planned.times.source,
        "planned_step_s": planned.plan.step_s,
        "measured_step_s": times.step_s,
        "planned_total_s": planned.plan.total_s,
        "paid_s": paid_s,
    }
    cache = user_cache_dir()
    with suppress(OSError, BudgetRLError):  # a file of the recipe may be gone by now
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ESTIMATES).open("a", encoding="utf-8") as table:
            table.write(json.dumps(row) + "\n")
        if recipe.engine.device == "cpu":
            # A plan knows how busy the machine is: what is kept is what phases take alone.
            learn(recipe, history, report_s, slow if slow > BUSY else 1.0, cache)


def finish(
    run: RunDir, attempt: Attempt, history: History, closing: Closing, write_s: float
) -> dict[str, Any]:
    """Write adapter folder, profile for the next plan, last heartbeat and `result.json`.

    What the budget has no more time for is left out; a resumption makes it good.

    Args:
        run: whose worker is gone.
        attempt: the last one.
        history: with the end of the run.
        closing: what is still to come after this.
        write_s: what a file takes on this disk.
    """

    def left_s() -> float:
        return attempt.end - time.monotonic() - closing.last_s - LAST_WRITES * write_s

    if left_s() > ADAPTER_WRITES * write_s:
        with suppress(OSError):
            export_adapter(run)
    if left_s() > LEARNING_S * closing.pace.slow:
        _learn_from(run, attempt, history, closing.pace.overall)
    mirror = mirror_of(run, read_recipe(run))
    if mirror is not None:
        with suppress(OSError):
            copy_files(run, mirror, lambda: left_s() < LEARNING_S)
    now = time.monotonic() + closing.last_s
    account = Account(run, history)
    heartbeat(run, attempt, now, account.trained_s)
    result = result_of(account)
    with suppress(OSError):
        run.write_json(RESULT, result)
        if mirror is not None and left_s() > 0:
            copy_files(run, mirror, lambda: left_s() < 0)
    return result
