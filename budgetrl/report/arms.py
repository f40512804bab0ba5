"""Several runs as arms of one experiment: an arm is one recipe, its seeds are repetitions."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import NamedTuple

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.evaluation.passk import mean_interval
from budgetrl.events import Evaluation
from budgetrl.recipe.base import Rank, rank_name, rank_order
from budgetrl.report.grouping import apart, groups_of
from budgetrl.types import Interval


class Estimate(NamedTuple):
    """A mean over seeds, or one run's own number."""

    value: float
    interval_95: Interval | None
    """Over seeds (Student t) where there are two or more; else over the problems of the run."""
    seeds: int


@dataclass(frozen=True, slots=True)
class Arm:
    """Runs that differ in the seed only."""

    model: str
    rank: Rank | None
    scale: float | None
    """alpha / r, which differs between ranks when alpha is fixed."""
    runs: Sequence[EvaluatedRun]
    by_scale: bool = False
    """Whether another arm has the same model and rank, at another scale."""
    apart: str = ""
    """What tells it from arms of the same model, rank and scale."""

    @property
    def label(self) -> str:
        """For legends."""
        scale = f", scale {self.scale:.3g}" if self.by_scale and self.scale is not None else ""
        return f"{rank_name(self.rank)}{scale}{f', {self.apart}' if self.apart else ''}"

    def evaluations(self, suite: str, when: str, k: int) -> list[Evaluation]:
        """Of all runs that have pass@k of a moment."""
        found = [e for run in self.runs if (e := run.evaluation(when, suite)) is not None]
        return [e for e in found if k in e.pass_at]

    def passes(self, suite: str, when: str, k: int) -> Estimate | None:
        """pass@k of a moment."""
        found = self.evaluations(suite, when, k)
        values = [e.pass_at[k] for e in found]
        if len(set(values)) == 1:  # one run, or one base model evaluated again under one protocol
            return Estimate(values[0], found[0].interval_95.get(k), len(values))
        return _over_seeds(values, 0.0, 1.0)

    def gain(self, suite: str, k: int) -> Estimate | None:
        """Final minus baseline."""
        found = [
            run.differences[suite][k] for run in self.runs if k in run.differences.get(suite, ())
        ]
        if len(found) == 1:
            return Estimate(found[0].difference, _clipped(found[0].interval_95, -1.0, 1.0), 1)
        return _over_seeds((part.difference for part in found), -1.0, 1.0)

    def entropy_change(self) -> Estimate | None:
        """Relative change of the exact entropy from the start to the end (paper, Table 2)."""
        found = (c for run in self.runs if (c := entropy_change(run)) is not None)
        return _over_seeds(found, -1.0, math.inf)

    def validation(self) -> float | None:
        """Best pass@1 on the selection's suite: what chooses a rank (paper 2.2)."""
        return _mean(best for run in self.runs if (best := _best_validation(run)) is not None)

    def bill(self) -> tuple[float, float | None]:
        """Seconds and dollars of all runs."""
        usd = [run.paid_usd for run in self.runs]
        known = [amount for amount in usd if amount is not None]
        return sum(run.paid_s for run in self.runs), sum(known) if len(known) == len(usd) else None


def arms_of(runs: Iterable[EvaluatedRun]) -> list[Arm]:
    """Group runs into seeds of one recipe, in order of appearance and rank."""
    groups = groups_of(runs)
    models = list(dict.fromkeys(group.name for group in groups))
    groups.sort(key=lambda g: (models.index(g.name), rank_order(g.rank), g.scale or 0.0))
    arms = []
    for (name, rank), of_rank in groupby(groups, key=lambda g: (g.name, g.rank)):
        scales = [list(alike) for _, alike in groupby(of_rank, key=lambda g: g.scale)]
        for alike in scales:
            for group, difference in zip(alike, apart(alike), strict=True):
                arms.append(Arm(name, rank, group.scale, group.runs, len(scales) > 1, difference))
    return arms


def entropy_change(run: EvaluatedRun) -> float | None:
    """Relative change of the exact entropy from its first to its last measurement."""
    measured = run.history.entropies
    if len(measured) < 2 or measured[0].mean_nats <= 0:
        return None
    return measured[-1].mean_nats / measured[0].mean_nats - 1


def best_arm(arms: Sequence[Arm]) -> Arm | None:
    """The arm with the best validation; None where no arm has one."""
    judged = [(arm, score) for arm in arms if (score := arm.validation()) is not None]
    return max(judged, key=lambda pair: pair[1])[0] if judged else None


def mean_curve(
    runs: Sequence[EvaluatedRun], points: Callable[[EvaluatedRun], Sequence[tuple[float, float]]]
) -> list[tuple[float, float]]:
    """A curve averaged over seeds, at every x that all of them have."""
    curves = [dict(points(run)) for run in runs]
    curves = [curve for curve in curves if curve]
    if not curves:
        return []
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    return [(x, fmean(curve[x] for curve in curves)) for x in shared]


def _best_validation(run: EvaluatedRun) -> float | None:
    suite = run.recipe.select.suite if run.recipe else None
    scores = [e.pass_at[1] for e in run.scored(suite or "math500") if e.step > 0]
    return max(scores) if scores else None


def _over_seeds(values: Iterable[float], lowest: float, highest: float) -> Estimate | None:
    """Seeds that agree exactly show no spread, which is not the same as none: no interval.

    Student's t knows no bounds, and with two seeds it is wide: cut to what is possible.
    """
    known = list(values)
    if not known:
        return None
    interval = mean_interval(known) if len(set(known)) > 1 else None
    return Estimate(fmean(known), _clipped(interval, lowest, highest), len(known))


def _clipped(interval: Interval | None, lowest: float, highest: float) -> Interval | None:
    return interval and (max(lowest, interval[0]), min(highest, interval[1]))


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None
