"""Continue a run that was interrupted, crashed, or gets more budget."""

import math
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, replace

from budgetrl.account.result import exit_code_of, report_file, result_of
from budgetrl.account.run import Account, mapping, number
from budgetrl.budget import Budget, Limits, PhaseTimes, Plan, plan, reserve_s
from budgetrl.checkpoint_files import STATE
from budgetrl.display.base import Display
from budgetrl.errors import BudgetError, RunDirError, UsageError
from budgetrl.estimation.scenario import expected_samples
from budgetrl.evaluation.mending import refuse_newer
from budgetrl.files import parse_json
from budgetrl.history import Followed, History, replanned_times
from budgetrl.hub.pins import still_there, to_download
from budgetrl.masking import keep_secret
from budgetrl.plan import DOWNLOAD_RATE
from budgetrl.recipe.flat import flat_values
from budgetrl.recipe.schema import Recipe
from budgetrl.run_files import Standing, pinned_recipe, read_pins, read_plan, written_recipe
from budgetrl.rundir import PLAN, RESOLVED, RESULT, RunDir
from budgetrl.supervise.attempt import resumed_micro_batch
from budgetrl.supervise.changes import changed_recipe, with_base
from budgetrl.supervise.ending import write_report
from budgetrl.supervise.export import CARD, export_adapter
from budgetrl.supervise.run import Ended, call_at_end, supervise
from budgetrl.supervise.standing import next_standing, write_standing
from budgetrl.supervise.worker import Signals
from budgetrl.training.attempt import Attempt
from budgetrl.training.mirror import mirror_of, reason_of, restore_from_mirror
from budgetrl.types import RunStatus, StopReason
from budgetrl.units import duration, hours_option
from budgetrl.usable_recipe import check_local_files

_LIMITS = ("budget.hours", "budget.usd")


def continue_run(
    run: RunDir,
    limits: Limits,
    display: Display,
    started: float,
    *,
    on_finish: str | None = None,
    allow_code: bool = False,
    sets: Sequence[str] = (),
    accepted: Collection[str] = (),
    model: str | None = None,
    stop: threading.Event | None = None,
    report: bool = True,
) -> Ended:
    """Resume a run, or complete the report of one that has ended.

    Args:
        run: an existing run directory.
        limits: a new allowance from now on; none: what is left of the old budget.
        display: shows the run.
        started: monotonic seconds at which this process began to cost.
        on_finish: shell command that is run at the end.
        allow_code: whether rewards of the user may be imported.
        sets: other values of the recipe, "a.b=c", for keys that may change.
        model: where the run's local base model lies now; None: where it did.
        stop: once it is set the run is interrupted.
        report: as in `supervise`.
        accepted: what may differ from the attempt before: data, reward, model, versions.

    Raises:
        ChangedError: data, rewards, base model or versions are other ones; nothing is changed.
        RunDirError: another process runs it, a file of it is damaged, or it cannot be written.
        BudgetError: too little is left for one more update; nothing is changed.
        UsageError: dollars without a price, a key that may not change, or no update to be made.
        ModelError, DataError, RecipeError: a file of the recipe is gone, or a value is wrong.
        HubError: what it takes from the hub can no longer be had.
    """
    with run.supervised():
        # A damaged file is found before anything is changed.
        written, changes = changed_recipe(written_recipe(run), sets)
        written, moved = with_base(written, model)
        recipe = pinned_recipe(run, written)
        keep_secret(recipe.model_dump(mode="json"))
        changes += moved
        followed = Followed(run)
        followed.read()
        history = followed.history
        if run.is_locked():
            raise RunDirError(
                f"{run.path} is running.", hint=f"Look at it with `budgetrl watch {run.path}`."
            )
        new_allowance = not limits.is_open
        finished = history.finished
        ended = finished is not None and run.status_of(finished) is RunStatus.FINISHED
        if ended and not (new_allowance or changes):
            display.message(
                f"{run.name} has ended: nothing is trained. {_way_to_more(run, history)}"
            )
            call_at_end(on_finish, run)
            return _complete(run, history, display)
        _refuse_done(run, recipe, history)
        account = Account(run, history)
        first = Attempt.first(run, started, allow_code=allow_code, on_finish=on_finish)
        attempt = replace(
            first,
            budget=account.budget or first.budget,
            paid_s=account.paid_s or _paid_at_checkpoint(run),
            trained_s=account.trained_s,
            grace_s=recipe.budget.grace_s,
            number=_next_attempt(account),
            micro_batch=resumed_micro_batch(run, history),
        )
        attempt = replace(attempt, budget=new_budget(attempt, limits))
        if not new_allowance and any(c["key"] in _LIMITS for c in changes):
            whole = Limits.of(recipe).budget(attempt.budget.usd_per_hour)
            attempt = replace(attempt, budget=whole or attempt.budget)
        refuse_newer(run.evals)
        times = replanned_times(history, read_plan(run).times, f"this run, {run.name}, so far")
        _refuse_too_little(run, attempt, times)
        standing = next_standing(run, recipe, attempt.number, accepted, changes)
        check_local_files(recipe, standing.reward_files)
        renamed = still_there(read_pins(run))
        for note in renamed:
            display.message(note)
        try:
            _bring_back_checkpoints(run, recipe, display)
            _write_down(run, written, attempt, standing, history, times)
            run.note(hub_moved=renamed)
        except OSError as error:
            raise RunDirError(f"{run.path} cannot be continued: {reason_of(error)}.") from None
        display.start(run)
        with Signals(stop) as signals:
            return supervise(run, attempt, display, signals, report=report, followed=followed)


def _write_down(
    run: RunDir,
    recipe: Recipe,
    attempt: Attempt,
    standing: Standing,
    history: History,
    times: PhaseTimes,
) -> None:
    """What the next attempt is; what was changed stands in the manifest before it holds."""
    write_standing(run, standing)
    document = run.read_json(RESOLVED)
    keys = [change["key"] for change in standing.changes if change["key"] in flat_values(recipe)]
    if keys:
        said = dict.fromkeys(keys, f"changed for attempt {attempt.number}")
        sources = document.get("sources", {}) | said
        resolved = {"recipe": recipe.model_dump(mode="json"), "sources": sources}
        run.write_json(RESOLVED, document | resolved)
    planned = run.read_json(PLAN)
    planned["plan"] |= {"requested_steps": recipe.total_steps}
    if not history.steps:
        planned["plan"] |= _plan_again(recipe, attempt, history, times).to_json()
    budget = {"budget": asdict(attempt.budget), "grace_s": attempt.grace_s}
    run.write_json(PLAN, planned | budget | {"times": asdict(times)})


def _refuse_done(run: RunDir, recipe: Recipe, history: History) -> None:
    """More budget buys nothing where all updates are made.

    Raises:
        UsageError: there is none to be made.
    """
    stop, finished = recipe.total_steps, history.finished
    made = history.steps[-1].step if history.steps else 0
    complete = finished is not None and finished.stop_reason is StopReason.COMPLETED
    if stop is None or made < stop or (made == stop and not complete):
        return
    raise UsageError(
        f"{run.path} has made {made} updates, and schedule.stop_after_steps is {stop}: there is "
        "none left to be paid for.",
        hint=f"Ask for more: --set schedule.stop_after_steps={2 * made}.",
    )


def _way_to_more(run: RunDir, history: History) -> str:
    """What a run that has ended takes to go on: time, and updates where all are made."""
    assert history.finished is not None
    more = f"budgetrl resume {run.path} --hours 1h"
    if history.finished.stop_reason is StopReason.COMPLETED and history.steps:
        more += f" --set schedule.stop_after_steps={2 * history.steps[-1].step}"
    return f"For more: {more}"


def _complete(run: RunDir, history: History, display: Display) -> Ended:
    """A run that has ended: make what is missing, and say how it ended; nothing of it is paid."""
    if report_file(run) is None:
        write_report(run, math.inf, display)
    with suppress(OSError):
        if not (run.adapter / CARD).exists():
            export_adapter(run)
    result = result_of(Account(run, history))
    with suppress(OSError):
        run.write_json(RESULT, result)
    display.start(run)
    assert history.finished is not None
    display.close(history.finished)
    return Ended(result, exit_code_of(history.finished), history.finished)


def _next_attempt(account: Account) -> int:
    """One more than there were; the heartbeat knows it where the events are cut."""
    history = account.history
    begun = history.started is not None or account.run.newest_checkpoint() is not None
    return max(history.attempt, int(account.beat("attempt"))) + 1 if begun else 1


def _paid_at_checkpoint(run: RunDir) -> float:
    """Where events and heartbeat are both gone; what was paid since, nobody knows."""
    newest = run.newest_checkpoint()
    state = {} if newest is None else parse_json((newest.path / STATE).read_bytes())
    return number(mapping(state).get("paid_s")) or 0.0


def _bring_back_checkpoints(run: RunDir, recipe: Recipe, display: Display) -> None:
    mirror = mirror_of(run, recipe)
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
    allowance, whole = limits.budget(old.usd_per_hour), old
    if allowance is not None:
        usd = None if limits.usd is None else (old.usd_of(attempt.paid_s) or 0.0) + limits.usd
        wall_s = attempt.paid_s + allowance.wall_s
        whole = replace(old, wall_s=wall_s, usd=usd, source="command line")
    capped = limits.capped(whole, old.usd_per_hour, attempt.grace_s, attempt.paid_s)
    return capped or whole


def _plan_again(recipe: Recipe, attempt: Attempt, history: History, times: PhaseTimes) -> Plan:
    """What the rest of the budget buys a run that has made no update yet."""
    left = replace(attempt.budget, wall_s=attempt.budget.wall_s - attempt.paid_s)
    if any(evaluation.when == "baseline" for evaluation in history.evaluations):
        times = replace(times, baseline_s=0.0)
    rounds = max(map(expected_samples, recipe.eval), default=1)
    made = plan(times, left, recipe.total_steps, rounds=rounds)
    return replace(made, budget_s=attempt.budget.wall_s)


def _refuse_too_little(run: RunDir, attempt: Attempt, times: PhaseTimes) -> None:
    # What the plan had to download is here by now, or has to be downloaded again.
    times = replace(times, download_s=to_download(read_pins(run)) / DOWNLOAD_RATE)
    needed_s = times.setup_s + times.step_s + reserve_s(times.final_s, times.save_s)
    needed_s += attempt.reserved_s
    left_s = attempt.budget.wall_s - attempt.paid_s
    if left_s < needed_s:
        raise BudgetError(
            f"{duration(left_s)} of the budget are left, but setup, one update and the final "
            f"evaluation need {duration(needed_s)}.",
            hint=f"Give more: budgetrl resume {run.path} --hours {hours_option(1.1 * needed_s)}",
        )
