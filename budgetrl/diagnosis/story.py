"""What the rules look at: the numbers of a run so far, and windows over them.

story = tell(history, recipe)         the whole run
story.until(12)                       as it was known after update 12
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from budgetrl.events import Evaluation, Step
from budgetrl.history import History
from budgetrl.recipe.schema import Recipe

WINDOW = 5
"""Updates that are taken together."""
NEAR = 200
"""Updates at either end in which the first and the newest values are looked for: rules are asked
again and again, of runs of any length."""
WITHIN_GROUPS = 0.56
"""Variance of a mean over completions, as a share of what as many groups of one completion had:
(1 + (G - 1) r) / G with half of the variance between problems (r = 0.5) and G = 8."""


@dataclass(frozen=True, slots=True)
class Held:
    """Held-out accuracy at an update."""

    step: int
    accuracy: float
    error: float
    """Standard error."""


@dataclass(frozen=True, slots=True)
class Story:
    """A run so far."""

    steps: Sequence[Step]
    held: Sequence[Held]
    """Of the suite that was evaluated most often, in order; the baseline is update 0."""
    weights: Mapping[str, float]
    """Of the rewards."""
    max_tokens: int
    """Of a completion."""
    planned: int
    """Updates that the run expects to make."""
    learning_rate: float
    stationary: bool
    """Problems come as they are, not by difficulty: accuracies of updates can be compared."""
    graded: NDArray[np.float64] | None = None
    """`accuracies`, where they are known already."""
    numbered: NDArray[np.int64] | None = None
    """`updates`, where they are known already."""

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Shares of right completions, one for each update; nan where none was graded."""
        if self.graded is not None:
            return self.graded
        return np.array([accuracy(step) for step in self.steps], dtype=float)

    @property
    def updates(self) -> NDArray[np.int64]:
        """Their numbers."""
        if self.numbered is not None:
            return self.numbered
        return np.array([step.step for step in self.steps], dtype=int)

    def until(self, step: int, *, evaluated: bool = False) -> "Story":
        """As it was known right after an update, or after the evaluation that followed it."""
        count = bisect_right(self.steps, step, key=lambda one: one.step)
        held = [one for one in self.held if one.step < step + evaluated]
        graded, numbered = self.accuracies[:count], self.updates[:count]
        return replace(self, steps=self.steps[:count], held=held, graded=graded, numbered=numbered)

    def looks(self, numbers: Iterable[int]) -> Iterator["Story"]:
        """As it was known after each of these updates, and after evaluations that followed them."""
        judged = {one.step for one in self.held}
        for number in numbers:
            yield self.until(number)
            if number in judged:
                yield self.until(number, evaluated=True)

    @property
    def now(self) -> int:
        """The newest update."""
        return self.steps[-1].step if self.steps else 0

    @property
    def taught(self) -> bool:
        """A teacher decides what is learnt, and not the reward."""
        return bool(self.steps) and self.steps[-1].kl_teacher is not None

    @property
    def used(self) -> float:
        """Share of the planned updates that is made."""
        return self.now / max(1, self.planned, self.now)

    def firsts(self, of: Callable[[Step], float | None], count: int) -> list[float]:
        """The first values, of the updates near the start."""
        return _some(islice(self.steps, NEAR), of, count)

    def lasts(self, of: Callable[[Step], float | None], count: int) -> list[float]:
        """The newest values, of the updates near the end; backwards."""
        return _some(islice(reversed(self.steps), NEAR), of, count)

    def first(self, of: Callable[[Step], float | None], window: int = WINDOW) -> float | None:
        """Mean over the first updates; None where too few were made to compare two windows."""
        values = self.firsts(of, 2 * window)
        return fmean(values[:window]) if len(values) == 2 * window else None

    def last(self, of: Callable[[Step], float | None], window: int = WINDOW) -> float | None:
        """Mean over the newest updates."""
        values = self.lasts(of, window)
        return fmean(values) if len(values) == window else None


def _some(steps: Iterable[Step], of: Callable[[Step], float | None], count: int) -> list[float]:
    measured = (value for step in steps if (value := of(step)) is not None)
    return list(islice(measured, count))


def accuracy(step: Step) -> float | None:
    """Share of right completions."""
    return step.accuracy_mean


def accuracy_error(step: Step) -> float:
    """Standard error of an update's accuracy: groups, not completions, are independent."""
    share = min(0.95, max(0.05, step.accuracy_mean or 0.0))
    return math.sqrt(WITHIN_GROUPS * share * (1 - share) / max(1, step.groups or 0))


def tell(history: History, recipe: Recipe) -> Story:
    """The story of a run's events."""
    # Of stages with demonstrations nothing was drawn.
    steps = [step for step in history.steps if step.groups]
    planned = recipe.total_steps
    if steps:
        coming = 0 if history.finished is not None else steps[-1].forecast_steps
        expected = steps[-1].step + coming
        planned = expected if planned is None else min(planned, expected)
    story = Story(
        steps=steps,
        held=_held(history.evaluations),
        weights={spec.name: spec.weight for spec in recipe.rewards},
        max_tokens=recipe.sampling.max_tokens,
        planned=planned or 0,
        learning_rate=recipe.schedule.learning_rate,
        stationary=recipe.signal.order == "uniform",
    )
    return replace(story, graded=story.accuracies, numbered=story.updates)


def _held(evaluations: Sequence[Evaluation]) -> list[Held]:
    suites = [one.suite for one in evaluations if one.think is None]
    if not suites:
        return []
    suite = max(dict.fromkeys(suites), key=suites.count)
    found: dict[int, Held] = {}
    for one in evaluations:
        interval = one.interval_95.get(1)
        if one.suite == suite and one.think is None and interval is not None:
            error = (interval[1] - interval[0]) / (2 * 1.96)
            found.setdefault(one.step, Held(one.step, one.pass_at[1], error))
    return sorted(found.values(), key=lambda one: one.step)
