"""Continue a run that was interrupted, crashed, or gets more budget."""

import math
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, replace

from budgetrl.budget import Budget, reserve_s
from budgetrl.display.base import Display
from budgetrl.documents import read_pins, read_plan, read_recipe
from budgetrl.errors import BudgetError, RunDirError, UsageError
from budgetrl.evaluation.mending import refuse_newer
from budgetrl.evaluation.target import EXPORTED
from budgetrl.history import History, read_history
from budgetrl.hub.pins import still_there
from budgetrl.plan import Limits
from budgetrl.rundir import MANIFEST, PLAN, RESULT, RunDir
from budgetrl.supervise.attempt import (
    Attempt,
    current_budget,
    last_beat,
    paid_seconds,
    resumed_micro_batch,
    trained_seconds,
)
from budgetrl.supervise.ending import exit_code_of, report_file, result_of, write_report
from budgetrl.supervise.export import CARD, export_adapter
from budgetrl.supervise.run import Ended, call_at_end, supervise
from budgetrl.supervise.standing import next_standing, write_standing
from budgetrl.supervise.worker import Signals
from budgetrl.training.mirror import mirror_of, reason_of, restore_from_mirror
from budgetrl.types import RunStatus
from budgetrl.units import duration


def continue_run(
    run: RunDir,
    limits: Limits,
    display: Display,
    started: float,
    *,
    on_finish: str | None = None,
    allow_code: bool = False,
    accepted: Collection[str] = (),
) -> Ended:
    """Resume a run, or complete the report of one that has ended.

    Args:
        run: an existing run directory.
        limits: a new allowance from now on; none: what is left of the old budget.
        display: shows the run.
        started: monotonic seconds at which this process began to cost.
        on_finish: shell command that is run at the end.
        allow_code: whether rewards of the user may be imported.
        accepted: what may differ from the attempt before: data, reward, model, versions.

    Raises:
        ChangedError: data, rewards, base model or versions are other ones; nothing is changed.
        RunDirError: another process runs it, a file of it is damaged, or it cannot be written.
        BudgetError: too little is left for one more update; nothing is changed.
        UsageError: dollars without a price.
        ModelError, DataError, HubError: what it takes from the hub can no longer be had.
    """
    with run.supervised():
        recipe = read_recipe(run)  # a damaged file is found before anything is changed
        history = read_history(run)
        if run.is_locked():
            raise RunDirError(
                f"{run.path} is running.", hint=f"Look at it with `budgetrl watch {run.path}`."
            )
        new_allowance = limits.hours is not None or limits.usd is not None
        finished = history.finished
        ended = finished is not None and run.status_of(finished) is RunStatus.FINISHED
        if ended and not new_allowance:
            call_at_end(on_finish, run)
            return _complete(run, history, display)
        attempt = replace(
            Attempt.first(run, started, allow_code=allow_code),
            budget=current_budget(run, history),
            paid_s=paid_seconds(run, history),
            trained_s=trained_seconds(run, history),
            number=_next_attempt(run, history),
            micro_batch=resumed_micro_batch(run, history),
        )
        attempt = replace(attempt, budget=new_budget(attempt, limits))
        run.read_json(MANIFEST)  # the worker needs it whole
        refuse_newer(run.path / "evals")
        _refuse_too_little(run, attempt)
        standing = next_standing(run, recipe, attempt.number, accepted)
        moved = still_there(read_pins(run))
        for note in moved:
            display.message(note)
        try:
            _bring_back_checkpoints(run, display)
            write_standing(run, standing)
            run.write_json(MANIFEST, run.read_json(MANIFEST) | {"hub_moved": moved})
            planned = run.read_json(PLAN)
            run.write_json(PLAN, planned | {"budget": asdict(attempt.budget)})
        except OSError as error:
            raise RunDirError(f"{run.path} cannot be continued: {reason_of(error)}.") from None
        display.start(run)
        with Signals() as signals:
            return supervise(run, attempt, display, signals, on_finish)


def _complete(run: RunDir, history: History, display: Display) -> Ended:
    """A run that has ended: make what is missing, and say how it ended; nothing of it is paid."""
    if report_file(run) is None:
        write_report(run, math.inf, display)
    with suppress(OSError):
        if not (run.path / EXPORTED / CARD).exists():
            export_adapter(run)
    result = result_of(run, history)
    with suppress(OSError):
        run.write_json(RESULT, result)
    display.start(run)
    display.close(result)
    assert history.finished is not None
    return Ended(result, exit_code_of(history.finished))


def _next_attempt(run: RunDir, history: History) -> int:
    """One more than there were; the heartbeat knows it where the events are cut."""
    begun = history.started is not None or run.newest_checkpoint() is not None
    return max(history.attempt, int(last_beat(run, "attempt"))) + 1 if begun else 1


def _bring_back_checkpoints(run: RunDir, display: Display) -> None:
    mirror = mirror_of(run, read_recipe(run))
    steps = [] if mirror is None else restore_from_mirror(run, mirror)
    if steps and mirror is not None:
        names = ", ".join(map(str, steps))
        display.message(f"checkpoints of steps {names} are back from {mirror.path}")


def new_budget(attempt: Attempt, limits: Limits) -> Budget:
    """The whole budget of the run: what was paid and the new allowance, or the old one.

    As in a plan, any new limit replaces both old ones.

    Raises:
        UsageError: dollars without a price.
    """
    old = attempt.budget
    try:
        allowance = Budget.of(hours=limits.hours, usd=limits.usd, usd_per_hour=old.usd_per_hour)
    except ValueError:
        raise UsageError(
            "this run has no price, so --usd says nothing.", hint="Use --hours."
        ) from None
    if allowance is None:
        return old
    usd = None if limits.usd is None else (old.usd_of(attempt.paid_s) or 0.0) + limits.usd
    return replace(old, wall_s=attempt.paid_s + allowance.wall_s, usd=usd)


def _refuse_too_little(run: RunDir, attempt: Attempt) -> None:
    times = read_plan(run).times
    needed_s = times.setup_s + times.step_s + reserve_s(times.final_s, times.save_s)
    needed_s += attempt.reserved_s
    left_s = attempt.budget.wall_s - attempt.paid_s
    if left_s < needed_s:
        raise BudgetError(
            f"{duration(left_s)} of the budget are left, but setup, one update and the final "
            f"evaluation need {duration(needed_s)}.",
            hint=f"Give more with --hours: budgetrl resume {run.path} --hours 10m",
        )
