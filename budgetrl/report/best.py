"""The best point of a sweep by the rule that was fixed before it, and what that is worth.

    best_of(points_of(rows, "heldout"))      -> Best(point, shrunken, by_chance, ...) or None
    pareto(rows, "heldout")                  -> indices of trials that nothing cheaper beats

The rule: the highest final pass@1 on the metric's suite, mean over seeds. The maximum of n noisy
numbers is too high, so an estimate that is shrunk towards all points stands beside it (empirical
Bayes, Efron and Morris 1975). Pure arithmetic.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance
from typing import Any

from budgetrl.evaluation.passk import mean_interval
from budgetrl.student_t import CONFIDENCE
from budgetrl.types import Interval

FEW_SEEDS = 3
"""Fewer say little: Student's t over two seeds is 12.7 standard errors wide."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the grid, with all its seeds."""

    values: Mapping[str, Any]
    trials: tuple[int, ...]
    """Indices of those that were judged."""
    scores: tuple[float, ...]
    """Final pass@1 of each."""
    over_problems: Interval | None
    """95 % interval of the first, over problems."""

    @property
    def score(self) -> float:
        """Mean over seeds."""
        return fmean(self.scores)

    @property
    def interval_95(self) -> Interval | None:
        """Over seeds (Student's t), within 0..1; over problems where there is one seed."""
        found = mean_interval(self.scores)
        if found is None:
            return self.over_problems
        return max(0.0, found[0]), min(1.0, found[1])

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "index": self.trials[0],
            "values": dict(self.values),
            "metric": self.score,
            "interval_95": self.interval_95,
            "seeds": len(self.scores),
        }


@dataclass(frozen=True, slots=True)
class Best:
    """The best point."""

    point: Point
    shrunken: float
    """What to expect of it, in place of the maximum."""
    by_chance: float
    """How far the best of as many equal points would stand above their mean."""
    points: int

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return self.point.to_json() | {
            "shrunken": self.shrunken,
            "by_chance": self.by_chance,
            "points": self.points,
        }


def point_words(values: Mapping[str, Any]) -> list[str]:
    """Values of a point for people."""
    return [
        f"{k} {value_word(v)}" for k, v in zip(short_keys(values), values.values(), strict=True)
    ]


def short_keys(keys: Iterable[str]) -> list[str]:
    """Flat keys by their last parts, where those differ."""
    whole = list(keys)
    short = [key.split(".")[-1] for key in whole]
    return short if len(set(short)) == len(short) else whole


def value_word(value: Any) -> str:
    """A value for people."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def points_of(rows: Sequence[Mapping[str, Any]], suite: str) -> list[Point]:
    """Trials that were run to their end, by point, in the order of the grid.

    Args:
        rows: as `trial_row` makes them.
        suite: whose final pass@1 is the metric.
    """
    by_values: dict[str, list[tuple[int, Mapping[str, Any], Mapping[str, Any]]]] = {}
    for row in rows:
        result = (row["final"] or {}).get(suite)
        if result is not None and not row["stopped_early"]:
            key = json.dumps(row["values"], sort_keys=True)
            by_values.setdefault(key, []).append((row["index"], row["values"], result))
    return [
        Point(
            values=members[0][1],
            trials=tuple(index for index, _, _ in members),
            scores=tuple(result["pass_at"]["1"] for _, _, result in members),
            over_problems=_interval(members[0][2]),
        )
        for members in by_values.values()
    ]


def best_of(points: Sequence[Point]) -> Best | None:
    """The best by the rule; None where nothing was judged. Ties go to the earlier point."""
    if not points:
        return None
    best = max(points, key=lambda point: point.score)
    noise = _noise(points)
    if len(points) < 2 or noise is None:
        return Best(best, best.score, 0.0, len(points))
    mean = fmean(point.score for point in points)
    real = max(0.0, variance([point.score for point in points]) - fmean(noise))
    own = noise[points.index(best)]
    kept = real / (real + own) if real + own > 0 else 1.0
    n = len(points)
    highest = NormalDist().inv_cdf((n - 0.375) / (n + 0.25))  # of n normal numbers (Blom 1958)
    return Best(best, mean + kept * (best.score - mean), highest * fmean(noise) ** 0.5, n)


def _noise(points: Sequence[Point]) -> list[float] | None:
    """Variance of each point's score: between seeds, pooled over points, else over problems."""
    spreads = [variance(point.scores) for point in points if len(point.scores) > 1]
    if spreads:
        return [fmean(spreads) / len(point.scores) for point in points]
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    ends = [point.over_problems for point in points]
    known = [((high - low) / (2 * z)) ** 2 for low, high in filter(None, ends)]
    return known if len(known) == len(points) else None


def pareto(rows: Sequence[Mapping[str, Any]], suite: str) -> list[int]:
    """Trials than which no cheaper one is as good, the cheapest first."""
    judged = [
        (row["spent"]["wall_s"], -row["final"][suite]["pass_at"]["1"], row["index"])
        for row in rows
        if suite in (row["final"] or {})
    ]
    front: list[int] = []
    best = 1.0
    for _, negative, index in sorted(judged):
        if negative < best:
            best = negative
            front.append(index)
    return front


def _interval(result: Mapping[str, Any]) -> Interval | None:
    found = (result.get("interval_95") or {}).get("1")
    return None if found is None else (found[0], found[1])
