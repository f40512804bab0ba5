"""Estimators of an evaluation and how sure they are: pass@k, maj@k, intervals, paired differences.

    counts of correct samples per problem --pass_at_k--> one value per problem --mean--> pass@k
    values per problem --mean_interval (k = 1) | bootstrap_interval (k > 1)--> 95 % interval

Samples of one problem are correlated, so every interval is over problems, never over samples.
Pure arithmetic: no files, no models. Shape suffix _P: one entry per problem.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

from budgetrl.errors import UsageError
from budgetrl.student_t import CONFIDENCE, t_quantile
from budgetrl.types import Interval

RESAMPLES = 4000
BOOTSTRAP_SEED = 0
RARE = 3
"""Problems; with fewer on one side of a share the bootstrap is not used."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k samples is right, from c right ones among n.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, eq. 1),
    in whole numbers and rounded once.

    Raises:
        UsageError: k above n, or c outside 0..n.
    """
    if not 1 <= k <= n:
        raise UsageError(
            f"pass@{k} cannot be estimated from n = {n} samples: k must be between 1 and n."
        )
    if not 0 <= c <= n:
        raise UsageError(f"c = {c} right samples of n = {n} make no sense.")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def maj_at_k(answers: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """Chance that the most frequent answer among k samples of one problem is right.

    The mean over the disjoint blocks of k samples. Right samples vote together however they are
    written; samples without an answer have no vote; a tie counts as the share of right ones in it.

    Args:
        answers: what each sample answered, None if nothing.
        right: whether it is right.
        k: votes.

    Raises:
        UsageError: k above the number of samples.
    """
    if not 1 <= k <= len(answers):
        raise UsageError(f"maj@{k} cannot be estimated from {len(answers)} samples.")
    blocks = range(0, len(answers) - k + 1, k)
    return fmean(_vote(answers[i : i + k], right[i : i + k]) for i in blocks)


def _vote(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    votes: Counter[tuple[bool, str]] = Counter(
        (True, "") if good else (False, answer or "")
        for answer, good in zip(answers, right, strict=True)
        if good or answer is not None
    )
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [good for (good, _), count in votes.items() if count == most]
    return sum(winners) / len(winners)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share of independent trials (Wilson 1927).

    Raises:
        UsageError: no trials, or successes outside 0..trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise UsageError(f"{successes} successes of {trials} trials have no interval.")
    return _score_interval(successes / trials, trials)


def _score_interval(share: float, trials: int) -> Interval:
    """Wilson's interval; the share need not be a whole number of successes."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    root = math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    half = z / (1 + z * z / trials) * root
    low = 0.0 if share == 0 else max(0.0, middle - half)
    return low, 1.0 if share == 1 else min(1.0, middle + half)


def mean_interval(values_P: Sequence[float]) -> Interval | None:
    """The 95 % Student-t interval of a mean over problems; None below two problems."""
    if len(values_P) < 2:
        return None
    mean = fmean(values_P)
    half = t_quantile(len(values_P) - 1) * stdev(values_P) / math.sqrt(len(values_P))
    return mean - half, mean + half


def bootstrap_interval(values_P: Sequence[float]) -> Interval | None:
    """The 95 % bootstrap interval of a mean over problems; None below two problems.

    Seeded: the same values give the same interval. Percentiles are widened for few problems as
    Hesterberg (2015, arXiv 1411.5279, section 5.3) does: plain ones are too narrow by
    sqrt((P - 1) / P) and use the normal in place of the t quantile.
    """
    count = len(values_P)
    if count < 2:
        return None
    import numpy as np

    means = np.sort(_resampling_weights(count) @ np.asarray(values_P, dtype=np.float64))
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * t_quantile(count - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=4)
def _resampling_weights(count: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """One row per resample: how often each problem is drawn, over the number of problems."""
    import numpy as np

    generator = np.random.default_rng(BOOTSTRAP_SEED)
    draws = generator.integers(0, count, size=(RESAMPLES, count))
    cells = draws + count * np.arange(RESAMPLES)[:, None]
    times = np.bincount(cells.ravel(), minlength=RESAMPLES * count)
    return times.reshape(RESAMPLES, count) / count


def pass_interval(correct_P: Sequence[int], n: int, k: int) -> Interval | None:
    """The 95 % interval of pass@k, within 0..1; None for fewer than two problems.

    Wilson at n = 1, Student t for k = 1, bootstrap for k > 1. A resample cannot show what a
    sample has too little of: where fewer than `RARE` problems' worth lie away from one end, the
    bootstrap covers as little as half (scripts/check_intervals.py), and a suite without any
    spread would look certain. There, too, Wilson, with one trial per problem: as no values in
    0..1 spread more than zeros and ones of the same mean, it is rather wide.
    """
    values = [pass_at_k(n, c, k) for c in correct_P]
    if len(values) < 2:
        return None
    rare = min(sum(values), len(values) - sum(values))
    if n == 1 or rare == 0 or (k > 1 and rare < RARE):
        return _score_interval(fmean(values), len(values))
    interval = mean_interval(values) if k == 1 else bootstrap_interval(values)
    return None if interval is None else (max(0.0, interval[0]), min(1.0, interval[1]))


def paired_difference(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]
) -> tuple[float, float | None, float | None]:
    """Mean of a - b over the same problems, with its 95 % Student-t interval.

    Args:
        a: one list of 0/1 per problem.
        b: the same problems in the same order.

    Returns:
        (difference, low, high); low and high are None for one problem.

    Raises:
        UsageError: no problems, not the same number of them, or a problem without samples.
    """
    if not a or len(a) != len(b):
        raise UsageError(
            f"a paired difference needs the same problems on both sides, not {len(a)} and {len(b)}."
        )
    if not all(a) or not all(b):
        raise UsageError("a paired difference needs at least one sample of every problem.")
    differences = [fmean(x) - fmean(y) for x, y in zip(a, b, strict=True)]
    low, high = mean_interval(differences) or (None, None)
    return fmean(differences), low, high


def paired_pass_difference(
    a_P: Sequence[int], b_P: Sequence[int], n: int, k: int
) -> tuple[float, Interval | None]:
    """Difference in pass@k (a - b) of counts over the same problems and n, with its interval.

    Student t over problems for k = 1, bootstrap over problems for k > 1.
    """
    pairs = zip(a_P, b_P, strict=True)
    differences = [pass_at_k(n, a, k) - pass_at_k(n, b, k) for a, b in pairs]
    interval = mean_interval(differences) if k == 1 else bootstrap_interval(differences)
    return fmean(differences), interval


@lru_cache(maxsize=256)
def detectable_difference(problems: int, samples: int) -> float:
    """The smallest difference in pass@1 that stands out of sampling noise.

    Between two results on the same P problems with n samples each, where only sampling differs:
    t(P - 1) sqrt(2 p (1 - p) / (n P)) at p = 0.5, the worst case.
    """
    return t_quantile(problems - 1) * math.sqrt(2 * 0.25 / (samples * problems))


def detectable_over_seeds(seeds: int, spread: float) -> float | None:
    """The same of two means over s seeds that spread by sd: t(2 s - 2) sd sqrt(2 / s)."""
    return None if seeds < 2 else t_quantile(2 * seeds - 2) * spread * math.sqrt(2 / seeds)
