"""How long sampled answers are: lognormal, cut off at the token limit.

    lengths = Lengths.with_mean(2000, limit=3584)
    lengths.mean, lengths.mean_square, lengths.longest_of(256), lengths.truncated_share

The mean is that of the answers as they are seen, cut ones included. Tokens throughout.
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import NormalDist

CV = 0.6
"""Spread of the uncut lengths, standard deviation over mean (GRPO logs of 1.5B models)."""

_NORMAL = NormalDist()
_ALL_CUT = 0.995
"""Above this share of the limit nearly every answer is cut; a distribution adds nothing."""


@dataclass(frozen=True)
class Lengths:
    """A lognormal exp(mu + sigma Z), cut at `limit`."""

    mu: float
    sigma: float
    limit: float

    @classmethod
    def with_mean(cls, mean: float, limit: float, cv: float = CV) -> "Lengths":
        """The distribution whose cut answers have this mean.

        Raises:
            ValueError: the mean is not between 0 and the limit.
        """
        if not 0 < mean <= limit:
            raise ValueError(f"a mean of {mean:g} tokens is not between 0 and the limit {limit:g}")
        return _with_mean(min(mean, _ALL_CUT * limit), limit, cv)

    @cached_property
    def mean(self) -> float:
        """Mean length of cut and uncut answers."""
        return self._moment(1)

    @cached_property
    def mean_square(self) -> float:
        """Mean of the squared length: what attention and KV reads grow with."""
        return self._moment(2)

    @cached_property
    def truncated_share(self) -> float:
        """Share of the answers that the limit ends."""
        return 1.0 - _NORMAL.cdf((math.log(self.limit) - self.mu) / self.sigma)

    def longest_of(self, count: int) -> float:
        """Expected length of the longest of several answers."""
        return self.mean if count <= 1 else self.of_rank(count, count)

    def of_rank(self, rank: float, count: float) -> float:
        """Expected length of the rank-th shortest of several answers (Blom's order statistic)."""
        return self.quantile((rank - 0.375) / (count + 0.25))

    def quantile(self, share: float) -> float:
        """The length that this share of the answers does not exceed."""
        return min(self.limit, math.exp(self.mu + self.sigma * _NORMAL.inv_cdf(share)))

    def stretched(self, factor: float, limit: float) -> "Lengths":
        """The same answers, longer by a factor, under another limit."""
        return Lengths(self.mu + math.log(factor), self.sigma, limit)

    def _moment(self, order: int) -> float:
        """E[min(X, limit)^order] of a lognormal, in closed form."""
        log_limit = math.log(self.limit)
        below = _NORMAL.cdf((log_limit - self.mu - order * self.sigma**2) / self.sigma)
        whole = math.exp(order * self.mu + (order * self.sigma) ** 2 / 2)
        return whole * below + self.limit**order * self.truncated_share


@cache
def _with_mean(mean: float, limit: float, cv: float) -> Lengths:
    sigma = math.sqrt(math.log1p(cv * cv))
    low, high = math.log(mean) - sigma**2, math.log(limit) + 8 * sigma
    for _ in range(60):
        middle = (low + high) / 2
        if Lengths(middle, sigma, limit).mean < mean:
            low = middle
        else:
            high = middle
    return Lengths((low + high) / 2, sigma, limit)
