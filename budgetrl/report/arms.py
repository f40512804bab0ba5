"""Several runs as arms of one experiment: same model, rank and scale; seeds are repetitions."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from budgetrl.evaluation.passk import mean_interval
from budgetrl.report.facts import Facts
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
    rank: int | None
    scale: float | None
    """alpha / r, which differs between ranks when alpha is fixed."""
    runs: Sequence[Facts]
    by_scale: bool = False
    """Whether another arm has the same model and rank, at another scale."""

    @property
    def label(self) -> str:
        """For legends."""
        rank = f"rank {self.rank}" if self.rank is not None else "rank ?"
        return f"{rank}, scale {self.scale:.3g}" if self.by_scale else rank

    def passes(self, suite: str, when: str, k: int) -> Estimate | None:
        """pass@k of a moment."""
        found = [e for run in self.runs if (e := run.evaluation(when, suite)) is not None]
        found = [e for e in found if str(k) in e.pass_at]
        values = [e.pass_at[str(k)] for e in found]
        if len(set(values)) == 1:  # one run, or one base model evaluated again under one protocol
            return Estimate(values[0], found[0].interval_95.get(str(k)), len(values))
        mean = _over_seeds(values)
        if mean is None or mean.interval_95 is None:
            return mean
        low, high = mean.interval_95
        return mean._replace(interval_95=(max(0.0, low), min(1.0, high)))

    def gain(self, suite: str, k: int) -> Estimate | None:
        """Final minus baseline."""
        found = [
            run.differences[suite][k] for run in self.runs if k in run.differences.get(suite, ())
        ]
        if len(found) == 1:
            return Estimate(found[0].difference, found[0].interval_95, 1)
        return _over_seeds(part.difference for part in found)

    def entropy_change(self) -> Estimate | None:
        """Relative change of the exact entropy from the start to the end (paper, Table 2)."""
        return _over_seeds(c for run in self.runs if (c := entropy_change(run)) is not None)

    def validation(self) -> float | None:
        """Best pass@1 on the selection's suite: what chooses a rank (paper 2.2)."""
        return _mean(best for run in self.runs if (best := _best_validation(run)) is not None)

    def bill(self) -> tuple[float, float | None]:
        """Seconds and dollars of all runs."""
        usd = [run.paid_usd for run in self.runs]
        known = [amount for amount in usd if amount is not None]
        return sum(run.paid_s for run in self.runs), sum(known) if len(known) == len(usd) else None


def arms_of(runs: Iterable[Facts]) -> list[Arm]:
    """Group runs by model, rank and scale, in order of appearance and rank."""
    grouped: dict[tuple[str, int | None, float | None], list[Facts]] = {}
    for run in runs:
        lora = run.recipe.lora if run.recipe else None
        key = (model_name(run), lora.rank if lora else None, lora.scale if lora else None)
        grouped.setdefault(key, []).append(run)
    models = list(dict.fromkeys(key[0] for key in grouped))
    ordered = sorted(grouped, key=lambda k: (models.index(k[0]), k[1] or 0, k[2] or 0.0))
    ranks = Counter(key[:2] for key in grouped)
    return [Arm(*key, grouped[key], by_scale=ranks[key[:2]] > 1) for key in ordered]


def model_name(run: Facts) -> str:
    """The paper's name of the model, else the last part of its id."""
    if run.recipe is not None and run.recipe.paper is not None and run.recipe.paper.row:
        return run.recipe.paper.row
    return run.model.rstrip("/").split("/")[-1]


def entropy_change(run: Facts) -> float | None:
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
    runs: Sequence[Facts], points: Callable[[Facts], Sequence[tuple[float, float]]]
) -> list[tuple[float, float]]:
    """A curve averaged over seeds, at every x that all of them have."""
    curves = [dict(points(run)) for run in runs]
    curves = [curve for curve in curves if curve]
    if not curves:
        return []
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    return [(x, fmean(curve[x] for curve in curves)) for x in shared]


def _best_validation(run: Facts) -> float | None:
    suite = run.recipe.select.suite if run.recipe else None
    scores = [
        e.pass_at["1"]
        for e in run.history.evaluations
        if e.suite == (suite or "math500") and e.step > 0 and "1" in e.pass_at
    ]
    return max(scores) if scores else None


def _over_seeds(values: Iterable[float]) -> Estimate | None:
    """Seeds that agree exactly show no spread, which is not the same as none: no interval."""
    known = list(values)
    if not known:
        return None
    interval = mean_interval(known) if len(set(known)) > 1 else None
    return Estimate(fmean(known), interval, len(known))


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None
