"""Continue a run that was interrupted, crashed, or gets more budget."""

import math
from contextlib import suppress
from dataclasses import replace

from budgetrl.budget import Budget, reserve_s
from budgetrl.display.base import Display
from budgetrl.errors import BudgetError, RunDirError, UsageError
from budgetrl.evaluation.target import EXPORTED
from budgetrl.history import History, read_history
from budgetrl.plan import Limits
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import PLAN, RESOLVED, RESULT, RunDir
from budgetrl.supervise.attempt import Attempt, paid_seconds, resumed_micro_batch
from budgetrl.supervise.ending import report_file, result_of, write_report
from budgetrl.supervise.export import CARD, export_adapter
from budgetrl.supervise.run import Ended, call_at_end, supervise
from budgetrl.supervise.worker import Signals
from budgetrl.training.mirror import mirror_of, restore_from_mirror
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
) -> Ended:
    """Resume a run, or complete the report of one that has ended.

    Args:
        run: an existing run directory.
        limits: a new allowance from now on; none: what is left of the old budget.
        display: shows the run.
        started: monotonic seconds at which this process began to cost.
        on_finish: shell command that is run at the end.
        allow_code: whether rewards of the user may be imported.

    Raises:
        RunDirError: another process runs it.
        BudgetError: too little is left for one more update; nothing is changed.
        UsageError: dollars without a price.
    """
    with run.supervised():
        history = read_history(run)
        status = run.status(history.finished)
        if status is RunStatus.RUNNING:
            raise RunDirError(
                f"{run.path} is running.", hint=f"Look at it with `budgetrl watch {run.path}`."
            )
        new_allowance = limits.hours is not None or limits.usd is not None
        if status is RunStatus.FINISHED and not new_allowance:
            call_at_end(on_finish, run)
            return _complete(run, history, display)
        attempt = replace(
            Attempt.first(run, started, allow_code=allow_code),
            paid_s=paid_seconds(run, history),
            number=history.attempt + 1 if history.started is not None else 1,
            micro_batch=resumed_micro_batch(run, history),
        )
        attempt = replace(attempt, budget=_budget(attempt, limits, history))
        _refuse_too_little(run, attempt)
        _bring_back_checkpoints(run, display)
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
    return Ended(result, history.finished.exit_code)


def _bring_back_checkpoints(run: RunDir, display: Display) -> None:
    recipe = Recipe.model_validate(run.read_json(RESOLVED)["recipe"], strict=False)
    mirror = mirror_of(run, recipe)
    steps = [] if mirror is None else restore_from_mirror(run, mirror)
    if steps and mirror is not None:
        names = ", ".join(map(str, steps))
        display.message(f"checkpoints of steps {names} are back from {mirror.path}")


def _budget(attempt: Attempt, limits: Limits, history: History) -> Budget:
    """The whole budget of the run: what was paid and the new allowance, or the old one."""
    old = attempt.budget
    try:
        allowance = Budget.of(hours=limits.hours, usd=limits.usd, usd_per_hour=old.usd_per_hour)
    except ValueError:
        raise UsageError(
            "this run has no price, so --usd says nothing.", hint="Use --hours."
        ) from None
    if allowance is None:
        return old if history.budget_s is None else replace(old, wall_s=history.budget_s)
    return replace(old, wall_s=attempt.paid_s + allowance.wall_s)


def _refuse_too_little(run: RunDir, attempt: Attempt) -> None:
    times = run.read_json(PLAN)["times"]
    step_s = sum(times[f"{name}_s"] for name in ("rollout", "reward", "logprob", "update", "other"))
    setup_s = times["imports_s"] + times["model_s"] + times["data_s"]
    end_s = reserve_s(times["final_s"], times["save_s"]) + attempt.reserved_s
    left_s = attempt.budget.wall_s - attempt.paid_s
    if left_s < setup_s + step_s + end_s:
        raise BudgetError(
            f"{duration(left_s)} of the budget are left, but setup, one update and the final "
            f"evaluation need {duration(setup_s + step_s + end_s)}.",
            hint=f"Give more with --hours: budgetrl resume {run.path} --hours 10m",
        )
