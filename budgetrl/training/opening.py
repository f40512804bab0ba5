"""The evaluation before the first update, and how many rounds of it the budget has room for.

With room to spare it is made whole, within its share of what is left. Where time is short - a small
budget, a machine that is busy - one round is made first: its pace tells how many rounds before and
after leave an update. A shorter evaluation is better than no update, and where no update fits the
baseline is the final evaluation too, and has all that is left.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from budgetrl.budget import BASELINE_SHARE, affordable_rounds
from budgetrl.files import slowest_write_s
from budgetrl.forecast import Forecaster
from budgetrl.history import History
from budgetrl.pace import slowness
from budgetrl.run_files import read_plan
from budgetrl.training.attempt import WRITES_AT_END
from budgetrl.types import EvalResult

if TYPE_CHECKING:
    from budgetrl.training.callbacks import StepCallback

END_MARGIN_S = 0.5
"""Of work, between the end of the final evaluation and the worker's deadline."""


def end_margin_s() -> float:
    """The same in wall seconds, on a machine as busy and a disk as slow as they are now."""
    return END_MARGIN_S * slowness() + WRITES_AT_END * slowest_write_s()


def until_end(follower: "StepCallback", keep_s: float = 0.0) -> Callable[[], bool]:
    """A check for evaluations that the last seconds are meant for: only they, or a user, end it.

    The supervisor's word that the budget ends is no reason yet.

    Args:
        follower: of the training.
        keep_s: seconds that are kept for what follows.
    """
    stopper, ledger = follower.stopper, follower.ledger

    def over() -> bool:
        interrupted = stopper.requested() and stopper.interrupted()
        return interrupted or ledger.remaining_s - end_margin_s() <= keep_s

    return over


def open_with_baseline(follower: "StepCallback", before: History) -> dict[str, EvalResult]:
    """The baseline evaluation, and the entropy of the start.

    Args:
        follower: of a training that has not begun.
        before: of earlier attempts, whose evaluation is not made again.
    """
    announced = {e.suite: e for e in before.evaluations if e.when == "baseline"}
    if announced or _has_room(follower):
        remaining_s = follower.ledger.remaining_s
        over = follower.stopper.until(
            lambda: follower.ledger.remaining_s - (1.0 - BASELINE_SHARE) * remaining_s
        )
        results = follower.evaluator.evaluate("baseline", 0, over, announced=announced)
        if not before.entropies:
            follower.evaluator.entropy("baseline", 0, over)
    else:
        results = _in_a_hurry(follower)
    return {suite: _as_measured(result, before) for suite, result in results.items()}


def _has_room(follower: "StepCallback") -> bool:
    """Whether both evaluations, an update and a checkpoint fit as planned, on today's machine."""
    forecaster = follower.forecaster
    factor = max(1.0, slowness() / read_plan(follower.run).slow)
    left_s = follower.ledger.remaining_s - end_margin_s()
    rounds = affordable_rounds(
        left_s,
        factor * forecaster.baseline_eval_s / forecaster.rounds,
        factor * forecaster.first_step_s,
        factor * forecaster.save_s,
        forecaster.rounds,
    )
    return rounds == forecaster.rounds


def _in_a_hurry(follower: "StepCallback") -> dict[str, EvalResult]:
    """One round, then as many as leave an update."""
    forecaster, evaluator = follower.forecaster, follower.evaluator
    most = max((spec.rounds.max for spec in evaluator.specs("baseline")), default=1)
    start_s = follower.ledger.remaining_s - end_margin_s()
    first = evaluator.evaluate("baseline", 0, until_end(follower), rounds=1, quiet=True)
    round_s = start_s - (follower.ledger.remaining_s - end_margin_s())
    learn_from_baseline(forecaster, first)
    step_s, save_s = forecaster.first_step_s, forecaster.save_s
    rounds = affordable_rounds(start_s, round_s, step_s, save_s, most)
    evaluator.final_rounds = rounds or None
    end_s = step_s + forecaster.reserve_s if rounds else 0.0
    return evaluator.evaluate("baseline", 0, until_end(follower, end_s), rounds=rounds or most)


def learn_from_baseline(forecaster: Forecaster, baseline: Mapping[str, EvalResult]) -> None:
    """The baseline tells what the final evaluation will take."""
    if not baseline:
        return
    results = baseline.values()
    rows = [result.problems * result.samples for result in results]
    tokens = sum(r.completion_tokens_mean * n for r, n in zip(results, rows, strict=True))
    measured = all(result.seconds > 0 for result in results)  # else it was added up again
    forecaster.observe_baseline(
        sum(result.seconds for result in results) if measured else 0.0,
        max(result.samples for result in results),
        tokens / sum(rows),
    )


def _as_measured(result: EvalResult, before: History) -> EvalResult:
    """With the seconds of the attempt that generated it; adding it up again takes none."""
    told = before.evaluation("baseline", result.suite)
    return result if told is None else replace(result, seconds=max(result.seconds, told.seconds))
