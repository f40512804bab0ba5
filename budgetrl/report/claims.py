"""The paper's claims about one model, checked against the arms of a study.

    claims_of(arms, updates) -> [Claim(claim, verdict, effect, interval, n, seeds)]

What a claim says of a *rank* is judged only between arms of equal scale alpha/r: with one fixed
alpha the paper's arms differ 32-fold in scale, and either could be the cause.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import chain
from statistics import fmean
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.text import suite_name
from budgetrl.errors import DataError, ProtocolError
from budgetrl.evaluation.compare import difference
from budgetrl.evaluation.passk import mean_interval
from budgetrl.evaluation.rows import StoredEval
from budgetrl.recipe.base import rank_name, rank_order
from budgetrl.report.arms import Arm, Estimate, entropy_change
from budgetrl.types import Interval

PAPER_UPDATES = 300
"""Updates of the paper's runs (section 1)."""
LEAST_SHARE = 0.25
"""Of the paper's updates; below it nothing is said."""
SEED_NOISE = 0.05
"""Differences of one seed up to this are called noise, whatever the interval over problems says:
seeds alone move AIME24 by 5 to 15 points (arXiv 2504.07086)."""


class ClaimVerdict(StrEnum):
    """What a study says of a claim."""

    SUPPORTED = "supported"
    """The interval of the effect lies on the claim's side of zero."""
    CONTRADICTED = "contradicted"
    """It lies on the other side."""
    NOT_DISTINGUISHABLE = "not distinguishable"
    """It holds zero, or one seed's effect is as small as what seeds do."""
    TOO_SHORT = "too short to say"
    """The arms made too few updates, or the claim's arms were not run."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim and what was found."""

    claim: str
    verdict: ClaimVerdict
    effect: float | None
    """In the claim's direction; shares, not percent."""
    interval_95: Interval | None
    n: int
    """Problems behind the interval; 0: it is over seeds, or there is none."""
    seeds: int
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"verdict": self.verdict.value}


def claims_of(arms: Sequence[Arm], requested_steps: int | None = None) -> list[Claim]:
    """All claims about one model.

    Args:
        arms: of one model.
        requested_steps: updates that stand for a whole run; None: the paper's 300.
    """
    whole = requested_steps or PAPER_UPDATES
    suites = list(dict.fromkeys(s for arm in arms for run in arm.runs for s in run.suites))
    found = [
        _said(
            f"Training at {arm.label} raises pass@1 on {suite_name(suite)}",
            gain, arm.runs, whole, _problems(arm, suite), across=False,
        )
        for suite in suites
        for arm in arms
        if (gain := arm.gain(suite, 1)) is not None
    ]  # fmt: skip
    found += [c for suite in suites for c in _rank_claims(arms, suite, whole)]
    return [*found, *_entropy_claims(arms, whole)]


def judge(found: Estimate, share_of_run: float, *, across: bool) -> tuple[ClaimVerdict, str]:
    """A verdict and its reason.

    Args:
        found: an effect, positive in the claim's direction.
        share_of_run: updates made over those of a whole run.
        across: two trained arms are compared, so that the seeds' own spread matters.
    """
    if share_of_run < LEAST_SHARE:
        return ClaimVerdict.TOO_SHORT, f"{share_of_run:.0%} of a whole run's updates"
    if found.interval_95 is None:
        return ClaimVerdict.NOT_DISTINGUISHABLE, "one number has no interval; more seeds give one"
    if across and found.seeds == 1 and abs(found.value) <= SEED_NOISE:
        return ClaimVerdict.NOT_DISTINGUISHABLE, "one seed; seeds alone move results as much"
    low, high = found.interval_95
    if low > 0:
        return ClaimVerdict.SUPPORTED, ""
    if high < 0:
        return ClaimVerdict.CONTRADICTED, ""
    return ClaimVerdict.NOT_DISTINGUISHABLE, "the interval holds zero"


def _rank_claims(arms: Sequence[Arm], suite: str, whole: int) -> Iterator[Claim]:
    """The highest against the lowest rank, at equal scale and at the paper's fixed alpha.

    And all weights against the highest rank.
    """
    name = suite_name(suite)
    ranked = [arm for arm in arms if arm.rank != "full"]
    alike = _at_equal_scale(ranked)
    equal, fixed = _ends(alike), _ends([arm for arm in ranked if arm not in alike] or ranked)
    if equal is None:
        why = "no two arms differ in the rank alone; add --alpha fixed,equal_rank"
        yield _unsaid(f"A higher rank ends higher on {name}", why)
    else:
        claim = f"At equal scale, {_names(*equal)} on {name}"
        yield _compared(claim, *equal, suite, whole)
    if fixed is not None and fixed != equal:
        scales = " and ".join(f"{arm.scale:.3g}" for arm in fixed)
        claim = f"At fixed alpha, {_names(*fixed)} on {name} (scales {scales})"
        yield _compared(claim, *fixed, suite, whole)
    full = [arm for arm in arms if arm.rank == "full"]
    if ranked and full:
        high = max(ranked, key=lambda arm: rank_order(arm.rank))
        claim = f"{_names(high, full[0])} on {name}"
        yield _compared(claim[0].upper() + claim[1:], high, full[0], suite, whole)


def _compared(claim: str, low: Arm, high: Arm, suite: str, whole: int) -> Claim:
    """Final results of two arms, paired by problem for one seed and by seed for several."""
    pairs = _by_seed(low, high)
    finals = [(b.stored.get((suite, "final")), a.stored.get((suite, "final"))) for a, b in pairs]
    parts = [part for a, b in finals if a and b and (part := _difference(a, b)) is not None]
    if not parts:
        return _unsaid(claim, "an arm has no final evaluation under the same protocol")
    return _said(claim, _together(parts), chain(*pairs), whole, _problems(low, suite))


def _entropy_claims(arms: Sequence[Arm], whole: int) -> Iterator[Claim]:
    """Table 2: entropy falls, and it falls more at a higher rank."""
    ends = _ends([arm for arm in arms if arm.rank != "full"])
    if ends is None:
        return
    low, high = (rank_name(arm.rank) for arm in ends)
    pairs = [(entropy_change(a), entropy_change(b), (a, b)) for a, b in _by_seed(*ends)]
    known = [(x - y, pair) for x, y, pair in pairs if x is not None and y is not None]
    if known:
        effect = _together([(x, None) for x, _ in known])
        claim = f"Entropy falls more at {high} than at {low} (Table 2)"
        yield _said(claim, effect, chain(*(pair for _, pair in known)), whole)


def _together(parts: Sequence[tuple[float, Interval | None]]) -> Estimate:
    """Effects with intervals over problems: that of a single seed, or all of them over seeds."""
    effects = [effect for effect, _ in parts]
    interval = parts[0][1] if len(parts) == 1 else mean_interval(effects)
    return Estimate(fmean(effects), interval, len(parts))


def _said(
    claim: str,
    found: Estimate,
    runs: Iterable[EvaluatedRun],
    whole: int,
    problems: int = 0,
    *,
    across: bool = True,
) -> Claim:
    share = min(run.steps for run in runs) / whole
    verdict, why = judge(found, share, across=across)
    n = problems if found.seeds == 1 or not across else 0
    return Claim(claim, verdict, found.value, found.interval_95, n, found.seeds, why)


def _unsaid(claim: str, why: str) -> Claim:
    return Claim(claim, ClaimVerdict.TOO_SHORT, None, None, 0, 0, why)


def _at_equal_scale(arms: Sequence[Arm]) -> list[Arm]:
    """Arms of the commonest scale, if two or more ranks share it."""
    by_scale: dict[float, list[Arm]] = {}
    for arm in arms:
        if arm.scale is not None:
            by_scale.setdefault(arm.scale, []).append(arm)
    best = max(by_scale.values(), key=len, default=[])
    return best if len({arm.rank for arm in best}) > 1 else []


def _ends(arms: Sequence[Arm]) -> tuple[Arm, Arm] | None:
    """The lowest and the highest rank; None where there is one rank only."""
    ranked = sorted((arm for arm in arms if arm.rank is not None), key=lambda a: rank_order(a.rank))
    if len(ranked) < 2 or ranked[0].rank == ranked[-1].rank:
        return None
    return ranked[0], ranked[-1]


def _names(low: Arm, high: Arm) -> str:
    return f"{rank_name(high.rank)} ends above {rank_name(low.rank)}"


def _by_seed(low: Arm, high: Arm) -> list[tuple[EvaluatedRun, EvaluatedRun]]:
    seeds: Mapping[int | None, EvaluatedRun] = {run.seed: run for run in high.runs}
    return [(run, seeds[run.seed]) for run in low.runs if run.seed in seeds]


def _difference(a: StoredEval, b: StoredEval) -> tuple[float, Interval | None] | None:
    try:
        part = difference(a, b)[1]
    except (DataError, ProtocolError, KeyError):
        return None
    return part.difference, part.interval_95


def _problems(arm: Arm, suite: str) -> int:
    found = [e.problems for run in arm.runs if (e := run.evaluation("final", suite)) is not None]
    return found[0] if found else 0
