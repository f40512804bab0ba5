"""How many rounds an evaluation makes: until its interval is narrow, or cannot become narrow.

    progress = judge_rounds(rows, problem_ids, wanted)      of what is stored
    progress.target          rounds to complete next, or that counted
    progress.stopped_by      None: go on to the target

A pure function of the stored rows, whose answer for the first rounds does not change when later
ones come: a call that was cut goes on to the same number. It looks at widths alone; rounds that end
when a difference looks good would report differences that are not there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, Literal

from budgetrl.evaluation.passk import pass_interval
from budgetrl.evaluation.rows import EvalRow, complete_rounds
from budgetrl.evaluation.summary import by_problem
from budgetrl.recipe.eval_tables import Rounds
from budgetrl.student_t import t_quantile
from budgetrl.types import Verdict

StoppedBy = Literal["width", "max", "budget"]
AT_ONCE = 2.0
"""Rounds may at most double before the width is looked at again: a forecast is a forecast."""


@dataclass(frozen=True, slots=True)
class Width:
    """Of an evaluation's 95 % interval of pass@1, in points (full width)."""

    now: float
    floor: float
    """What any number of rounds would leave: problems differ, and there are only so many."""
    surely: float
    """The floor less two standard errors: a few rounds tell it roughly."""
    rounds_needed: float
    """For the width that is wanted; infinite below the floor."""


@dataclass(frozen=True, slots=True)
class RoundsMade:
    """Where an evaluation stands."""

    wanted: Rounds
    target: int
    """Rounds that are to be complete next, or that count."""
    first: int
    """Rounds that were complete when that was decided."""
    stopped_by: StoppedBy | None
    """None: the target is not reached, and time may cut it."""
    width: Width | None = None
    """None before `min` rounds, where the number of rounds is fixed, and for one problem."""

    def to_json(self) -> dict[str, Any]:
        """For files and `--json`; widths in points."""
        made: dict[str, Any] = {
            "min": self.wanted.min,
            "max": self.wanted.max,
            "stopped_by": self.stopped_by or "budget",
        }
        if self.wanted.until_width is not None:
            made["until_width"] = self.wanted.until_width
            made["width"] = None if self.width is None else self.width.now
            made["floor"] = None if self.width is None else self.width.floor
        return made


def judge_rounds(rows: Sequence[EvalRow], problem_ids: Sequence[str], wanted: Rounds) -> RoundsMade:
    """How far an evaluation has to go, by what is stored of it."""
    have, first, target = complete_rounds(rows, problem_ids), 0, wanted.min
    width = None
    while have >= target:
        if wanted.until_width is not None:
            width = width_of(_right(rows, problem_ids, target), target, wanted.until_width)
        following = next_target(target, wanted, width)
        if following is None:
            return RoundsMade(wanted, target, first, _why(wanted, width), width)
        first, target = target, following
    return RoundsMade(wanted, target, first, None, width)


def next_target(made: int, wanted: Rounds, width: Width | None) -> int | None:
    """The rounds to complete after so many; None: these are enough, or more would not help."""
    if made >= wanted.max or (width is not None and _is_decided(width, wanted)):
        return None
    if width is None:
        return wanted.max
    ahead = min(width.rounds_needed, AT_ONCE * made, wanted.max)
    return max(made + 1, math.ceil(ahead))


def width_of(right_P: Sequence[int], rounds: int, until: float) -> Width | None:
    """The width of an evaluation and what it can become; None for one problem.

    With p_i the solve rate of problem i, the variance of a problem's mean over n rounds is
    var(p_i) + E[p_i (1 - p_i)] / n: rounds shrink the second part only. Both are estimated from the
    same rounds without bias (one-way random effects, as in Miller 2024, arXiv 2411.00640, eq. 3).

    Args:
        right_P: right answers of each problem.
        rounds: n, two or more.
        until: points that are wanted.
    """
    interval = pass_interval(right_P, rounds, 1)
    if interval is None:
        return None
    count = len(right_P)
    shares = [right / rounds for right in right_P]
    within = fmean(share * (1 - share) for share in shares) * rounds / (rounds - 1)
    spread = variance(shares)
    between = max(0.0, spread - within / rounds)
    error = spread * math.sqrt(2 / (count - 1))  # of a variance, as of normal values
    points = 100 * 2 * t_quantile(count - 1) / math.sqrt(count)
    room = (until / points) ** 2 - between
    now, floor = 100 * (interval[1] - interval[0]), points * math.sqrt(between)
    if within == 0:  # answers that never vary stay as they are
        return Width(now, max(now, floor), now, math.inf)
    return Width(
        now=now,
        floor=floor,
        surely=points * math.sqrt(max(0.0, between - 2 * error)),
        rounds_needed=within / room if room > 0 else math.inf,
    )


def said_of(made: Mapping[str, Any] | None) -> str:
    """A sentence on why an evaluation has as many rounds as it has; empty where it is plain."""
    if not made or made.get("until_width") is None or made.get("width") is None:
        return ""
    until, width, floor = made["until_width"], made["width"], made["floor"]
    if made["stopped_by"] != "width":
        ended = "the budget" if made["stopped_by"] == "budget" else f"{made['max']} rounds"
        return f"stopped by {ended} at {width:.1f} points ({until:g} wanted)"
    if width <= until:
        return f"{width:.1f} points wide, {until:g} wanted: enough"
    return (
        f"{width:.1f} points wide: more rounds of these problems would not get below "
        f"{floor:.1f} ({until:g} wanted); more problems would"
    )


def _is_decided(width: Width, wanted: Rounds) -> bool:
    until = wanted.until_width or 0.0
    return width.now <= until or width.surely >= until


def _why(wanted: Rounds, width: Width | None) -> StoppedBy:
    return "width" if width is not None and _is_decided(width, wanted) else "max"


def _right(rows: Sequence[EvalRow], problem_ids: Sequence[str], rounds: int) -> list[int]:
    """Right answers of each problem; one that could not be graded is left out, as in results."""
    grouped = by_problem(rows, problem_ids, rounds).values()
    graded = [one for one in grouped if all(row.verdict is not Verdict.ERROR for row in one)]
    return [sum(row.correct for row in one) for one in graded]
