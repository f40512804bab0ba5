"""GRIM for pass@k: which numbers of samples can a published percentage come from?

With n samples of each of P problems, pass@1 is a multiple of 1/(P n) and pass@n one of 1/P; in
between, pass@k is a mean over P of the n + 1 values that the estimator can take. A figure that no
such mean rounds to was not made that way (Brown and Heathers 2017, the GRIM test).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from budgetrl.evaluation.passk import pass_at_k

GRID = 10_000
"""Steps of the sums of pass@k with 1 < k < n; the steps' error counts as possible."""


@dataclass(frozen=True, slots=True)
class Published:
    """A percentage as printed."""

    percent: float
    problems: int
    k: int
    decimals: int = 1

    @property
    def slack(self) -> float:
        """Half a unit of the last digit, as a share; both ways of rounding a half are allowed."""
        return 0.5 * 10.0 ** (-self.decimals) / 100 + 1e-9


def is_possible(figure: Published, samples: int) -> bool:
    """Whether n = samples can give the printed figure; False for k above n."""
    if figure.k > samples:
        return False
    share = figure.percent / 100
    if figure.k in (1, samples):
        parts = figure.problems * (samples if figure.k == 1 else 1)
        return abs(round(share * parts) / parts - share) <= figure.slack
    error = 0.5 * figure.problems / GRID
    low = (share - figure.slack) * figure.problems * GRID - error * GRID
    high = (share + figure.slack) * figure.problems * GRID + error * GRID
    sums = _reachable_sums(figure.problems, samples, figure.k)
    first = max(0, int(low))
    window = (sums >> first) & ((1 << (int(high) - first + 2)) - 1)
    return window != 0


def possible_samples(figures: Sequence[Published], candidates: Iterable[int]) -> list[int]:
    """The sample counts with which all of the figures are possible."""
    return [n for n in candidates if all(is_possible(figure, n) for figure in figures)]


@lru_cache(maxsize=512)
def _reachable_sums(problems: int, samples: int, k: int) -> int:
    """Bit i is set where the sum over the problems can be i / GRID."""
    values = {round(pass_at_k(samples, c, k) * GRID) for c in range(samples + 1)}
    sums = 1
    for _ in range(problems):
        reached = 0
        for value in values:
            reached |= sums << value
        sums = reached
    return sums
