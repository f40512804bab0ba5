"""Down-sampling of rollouts: train on the M completions of a group whose rewards differ most.

    kept, advantages = down_sample(rewards, count=M, scale="group")

PODS (arXiv 2504.13818): completions are cheap to draw and dear to train on. It changes the
algorithm: advantages are those of a group of the M rows that are kept. The others have none, and
count in every divisor of the loss like the rows of a group that is skipped.

The subset of largest variance is the k highest and the M - k lowest for some k. Proof: with the
other rows fixed, the variance is a convex function of any one reward; so exchanging a row for one
outside that is further from the mean of the rest never lowers it, until nothing outside is higher
than a kept row above that mean, nor lower than one below it.
"""

from collections.abc import Sequence
from statistics import fmean, pvariance, stdev

_EPSILON = 1e-4
"""What TRL adds to a standard deviation."""


def down_sample(
    groups: Sequence[Sequence[float | None]], count: int, scale: str
) -> tuple[list[bool], list[float]]:
    """Which rows are kept, and the advantage of each row; row by row over all groups.

    Args:
        groups: rewards; None for a row that has none, which is never kept.
        count: rows to keep of a group, at the most.
        scale: by which standard deviation advantages are divided: group, batch or none.
    """
    kept = [widest(group, count) for group in groups]
    pools = [
        [reward for row, reward in enumerate(group) if row in rows and reward is not None]
        for group, rows in zip(groups, kept, strict=True)
    ]
    everything = [reward for pool in pools for reward in pool]
    flags: list[bool] = []
    advantages: list[float] = []
    for group, rows, pool in zip(groups, kept, pools, strict=True):
        deviation = _deviation(everything if scale == "batch" else pool)
        divisor = 1.0 if scale == "none" else deviation + _EPSILON
        mean = fmean(pool) if pool else 0.0
        for row, reward in enumerate(group):
            trained = row in rows and len(set(pool)) > 1
            flags.append(row in rows)
            advantages.append((reward - mean) / divisor if trained and reward is not None else 0.0)
    return flags, advantages


def widest(rewards: Sequence[float | None], count: int) -> frozenset[int]:
    """The rows whose rewards have the largest variance; of equal ones the first and the higher."""
    known = [(reward, row) for row, reward in enumerate(rewards) if reward is not None]
    if len(known) <= count:
        return frozenset(row for _, row in known)
    lowest = sorted(known)
    highest = sorted(known, key=lambda one: (-one[0], one[1]))
    best, largest = highest[:count], -1.0
    for high in range(count, -1, -1):
        chosen = highest[:high] + lowest[: count - high]
        variance = pvariance([reward for reward, _ in chosen])
        if variance > largest + 1e-12 * max(1.0, abs(largest)):
            best, largest = chosen, variance
    return frozenset(row for _, row in best)


def _deviation(pool: Sequence[float]) -> float:
    return stdev(pool) if len(pool) > 1 else 0.0
