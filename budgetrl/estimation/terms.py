"""Times as sums of terms, each in proportion to named constants: what a band is sampled from.

    terms = [Term(24.0, {"decode_efficiency": -1}, "weights"), Term(3.0, {}, "fixed")]
    total(terms)                 27.0
    band(terms)                  Band(low, high) of the constants' ranges, 80 %

Constants and their ranges come from `assets/estimator.json`, which `scripts/fit_estimator.py`
rewrites. Draws are seeded: the same estimate twice is the same estimate.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import NormalDist
from typing import Any, NamedTuple

from budgetrl.files import read_asset

DRAWS = 64
SEED = 20_260
BAND = 0.8
"""Share of the draws between the low and the high end."""
_TAIL_SCORE = NormalDist().inv_cdf((1 + BAND) / 2)


@dataclass(frozen=True, slots=True)
class Constant:
    """A number that is not known exactly."""

    value: float
    low: float
    """80 % of what was seen lies between low and high; both above zero."""
    high: float
    source: str


class Band(NamedTuple):
    """The ends between which 80 % of the draws lie."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a total (seconds or bytes), at the constants' values."""

    amount: float
    powers: Mapping[str, int]
    """Constants it is proportional to, and the power: -1 for an efficiency."""
    name: str


@dataclass(frozen=True)
class Constants:
    """Named constants; a value may be replaced, which also replaces its range."""

    table: Mapping[str, Constant]
    _products: dict[tuple[tuple[str, int], ...], tuple[float, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Draws of products that were asked for before."""

    def __getitem__(self, name: str) -> float:
        return self.table[name].value

    def draw_product(self, powers: tuple[tuple[str, int], ...]) -> tuple[float, ...]:
        """Draws of the product of (constant / its value) ** power.

        A name gives the same draws always, so that what depends on one constant moves together.
        """
        if powers not in self._products:
            product = (1.0,) * DRAWS
            for name, power in powers:
                constant = self.table[name]
                ends = (constant.value, constant.low, constant.high)
                factors = _factors(name, *ends, power)
                product = tuple(a * b for a, b in zip(product, factors, strict=True))
            self._products[powers] = product
        return self._products[powers]


@cache
def load_constants() -> Constants:
    """The constants that ship with budgetrl."""
    return Constants(constants_in(read_constants()))


def constants_in(data: Mapping[str, Any]) -> dict[str, Constant]:
    """Those of such a file, without what it notes of their fit."""
    fields = ("value", "low", "high", "source")
    return {
        name: Constant(**{field: row[field] for field in fields})
        for name, row in data["constants"].items()
    }


class SuiteLengths(NamedTuple):
    """How long answers to evaluation suites are."""

    cv: float
    """Spread over a suite: its problems differ in difficulty."""
    over_training: Mapping[str, float]
    """Uncut mean length over that of training completions, by suite."""
    source: str


@cache
def suite_lengths() -> SuiteLengths:
    """As fitted to timed evaluations."""
    suites = read_constants()["suites"]
    return SuiteLengths(suites["cv"], suites["over_training"], suites["source"])


def read_constants() -> dict[str, Any]:
    """The file of constants as it is."""
    data: dict[str, Any] = read_asset("estimator.json")
    return data


def length_draws(low: float, high: float) -> tuple[float, ...]:
    """Draws of a phase's seconds over the expected ones as completions get shorter or longer.

    Args:
        low, high: the ratio at the ends of the lengths' 80 % range; one draw of the length holds
            for all phases.
    """
    return _factors("completion_tokens", 1.0, max(low, 1e-3), high, 1)


def total(terms: Iterable[Term]) -> float:
    """The sum at the constants' values."""
    return sum(term.amount for term in terms)


def draws(terms: Iterable[Term], constants: Constants) -> list[float]:
    """The sum at every draw of the constants."""
    groups = _grouped(terms)
    fixed = groups.pop((), 0.0)
    weighted = [
        [amount * factor for factor in constants.draw_product(powers)]
        for powers, amount in groups.items()
    ]
    return [sum(column, fixed) for column in zip(*weighted, strict=True)] or [fixed] * DRAWS


def band(terms: Iterable[Term], constants: Constants) -> Band:
    """Low and high end of the sum."""
    return quantiles(draws(terms, constants))


def quantiles(values: Sequence[float]) -> Band:
    """The ends of the band of a list of draws."""
    ordered = sorted(values)
    tail = (1 - BAND) / 2
    last = len(ordered) - 1
    return Band(ordered[round(tail * last)], ordered[round((1 - tail) * last)])


def _grouped(terms: Iterable[Term]) -> dict[tuple[tuple[str, int], ...], float]:
    """Amounts of equal powers added up: fewer sums per draw."""
    groups: dict[tuple[tuple[str, int], ...], float] = {}
    for term in terms:
        key = tuple(sorted(term.powers.items()))
        groups[key] = groups.get(key, 0.0) + term.amount
    return groups


@cache
def _factors(name: str, value: float, low: float, high: float, power: int) -> tuple[float, ...]:
    """Two half normals in the logarithm: 10 % of the draws below `low`, 10 % above `high`."""
    if low == high == value:
        return (1.0,) * DRAWS
    rng = random.Random(f"{SEED} {name}")
    down, up = math.log(low / value) / -_TAIL_SCORE, math.log(high / value) / _TAIL_SCORE
    scores = (rng.gauss() for _ in range(DRAWS))
    return tuple(math.exp(power * score * (up if score > 0 else down)) for score in scores)
