"""Whether a model has something that a reward can strengthen: what was seen, and the verdict.

A reward can only strengthen what a model already does now and then *for a reason*. Two things are
measured on groups of training problems: how many have right and wrong completions, and whether
right answers agree with each other. Where a majority vote among G samples is no better than one
sample, right answers are luck, however wide the gap from pass@1 to pass@G. How sure both are, their
95 % intervals say; the number of groups decides nothing beside them. Pure arithmetic.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Any

from budgetrl.budget import MIN_UPDATES
from budgetrl.evaluation.passk import mean_interval, pass_at_k, wilson_interval
from budgetrl.types import Interval
from budgetrl.units import percent

MIN_SIGNAL = 0.10
"""Share of groups with signal below which most of the money is wasted."""
MIN_AGREEMENT = 0.10
"""By how much a vote must beat one sample, in groups with signal. A model that only guesses
reaches 0.09, one that errs in half of its workings 0.21 (recipes/LOG.md, the embedded starts)."""
MOST_LUCK = 0.20
"""What luck alone does not reach."""
SOLVED = 0.95
"""Accuracy that leaves nothing to learn."""
MOST = 0.5
"""Of the groups: what may have signal, by its interval, where nearly all answers were right."""
MAX_TRUNCATED = 0.5
"""Share of completions at the token limit that makes every other number doubtful."""


class ProbeVerdict(StrEnum):
    """Whether to spend the money."""

    GO = "go"
    """There is something to strengthen, and the budget pays for it."""
    DOUBTFUL = "doubtful"
    """Too little was seen, or the signs are mixed."""
    NO_GO = "no_go"
    """Nothing to strengthen, nothing left to learn, or no budget for it."""


@dataclass(slots=True)
class Seen:
    """What the groups of training problems showed."""

    group_size: int
    correct: list[int] = field(default_factory=list)
    """Right completions, by group."""
    agreement: list[float] = field(default_factory=list)
    """Vote minus one sample, by group with signal."""
    formatted: list[float] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)

    @property
    def signal(self) -> int:
        """Groups with right and wrong completions."""
        return sum(0 < right < self.group_size for right in self.correct)

    @property
    def signal_share(self) -> float | None:
        """Of all groups."""
        return self.signal / len(self.correct) if self.correct else None

    @property
    def signal_interval(self) -> Interval | None:
        """95 % interval of that share."""
        return wilson_interval(self.signal, len(self.correct)) if self.correct else None

    @property
    def accuracy(self) -> float | None:
        """pass@1 on the training problems."""
        return fmean(self.correct) / self.group_size if self.correct else None

    def to_json(self) -> dict[str, Any]:
        """For the probe's document."""
        g = self.group_size
        return {
            "groups": len(self.correct),
            "group_size": g,
            "pass_at_1": self.accuracy,
            f"pass_at_{g}": fmean(pass_at_k(g, c, g) for c in self.correct)
            if self.correct
            else None,
            "groups_with_signal_interval_95": self.signal_interval,
            "vote_minus_sample": fmean(self.agreement) if self.agreement else None,
            "vote_minus_sample_interval_95": mean_interval(self.agreement),
            "format_rate": fmean(self.formatted) if self.formatted else None,
            "truncated_share": fmean(self.truncated) if self.truncated else None,
        }


def judge(seen: Seen, planned_steps: int) -> tuple[ProbeVerdict, list[str]]:
    """The verdict and its reasons, the decisive ones first."""
    against: list[str] = []
    doubts: list[str] = []
    reasons: list[str] = []
    if planned_steps < MIN_UPDATES:
        against.append(f"the budget buys {planned_steps} updates, and {MIN_UPDATES} show nothing")
    groups = len(seen.correct)
    if groups < 2:
        return ProbeVerdict.DOUBTFUL, [*against, "no groups were seen: give more --hours"]
    accuracy, share, interval = seen.accuracy or 0.0, seen.signal_share, seen.signal_interval
    assert interval is not None
    signal = (
        f"{percent(share)} of {groups} groups have right and wrong completions "
        f"({percent(interval[0])} to {percent(interval[1])})"
    )
    if accuracy > SOLVED:
        solved = f"{percent(accuracy)} of the training problems are solved already"
        certain = interval[1] < MOST
        (against if certain else doubts).append(solved if certain else f"{solved}; {signal}")
    elif interval[1] < MIN_SIGNAL:
        against.append(f"{signal}: hardly any update would teach")
    elif interval[0] < MIN_SIGNAL:
        doubts.append(f"{signal}: perhaps too few, give more --hours to see more of them")
    else:
        reasons.append(signal)
    _judge_agreement(seen, against, doubts, reasons)
    if fmean(seen.truncated) > MAX_TRUNCATED:
        doubts.append(f"{percent(fmean(seen.truncated))} of the completions hit the token limit")
    if against:
        return ProbeVerdict.NO_GO, [*against, *doubts, *reasons]
    verdict = ProbeVerdict.DOUBTFUL if doubts else ProbeVerdict.GO
    return verdict, [*doubts, *reasons]


def _judge_agreement(seen: Seen, against: list[str], doubts: list[str], reasons: list[str]) -> None:
    interval = mean_interval(seen.agreement)
    if interval is None:
        return
    (low, high), mean = interval, fmean(seen.agreement)
    text = (
        f"where answers differ, a vote of {seen.group_size} beats one sample by "
        f"{100 * mean:.0f} points ({100 * low:.0f} to {100 * high:.0f})"
    )
    if mean < MIN_AGREEMENT and high < MOST_LUCK:
        against.append(f"{text}: right answers are luck, and there is nothing to strengthen")
    elif low < MIN_AGREEMENT:
        doubts.append(f"{text}: right answers may be luck, give more --hours to see more groups")
    else:
        reasons.append(f"{text}: right answers have a reason")
