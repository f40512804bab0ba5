"""How often each problem is solved, as the run sees it, and which problems are worth asking.

A problem's solve rate has a Beta posterior whose older observations decay, because the policy
changes. A problem that was never asked borrows the rate of its level. A group of G completions
teaches only if it is mixed; under Beta(a, b) the chance of that is

    1 - E[p^G] - E[(1-p)^G],   E[p^G] = prod_{i<G} (a + i) / (a + b + i)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgetrl.errors import DataError
from budgetrl.files import read_regular
from budgetrl.recipe.schema import Signal
from budgetrl.types import Problem

MAX_TABLE_BYTES = 1 << 28
PRIOR_WEIGHT = 2.0
"""Pseudo-observations of a problem that was never asked."""


@dataclass(slots=True)
class SolveRates:
    """Decayed counts of solved and unsolved completions, by problem and by level.

    Args:
        decay: weight of what was known before, at each new observation of the same problem.
    """

    decay: float
    _problems: dict[str, tuple[float, float]] = field(default_factory=dict)
    _levels: dict[str, tuple[float, float]] = field(default_factory=dict)

    def observe(self, problem: Problem, solved: int, total: int) -> None:
        """Note the completions of one group."""
        self._problems[problem.id] = self._decayed(self._problems, problem.id, solved, total)
        level = _level(problem)
        self._levels[level] = self._decayed(self._levels, level, solved, total)

    def problems(self) -> list[str]:
        """Ids of those that were asked."""
        return list(self._problems)

    def chance_of_signal(self, problem: Problem, group_size: int) -> float:
        """Probability that a group of this problem has right and wrong completions."""
        alpha, beta = self._posterior(problem)
        return 1.0 - _power_mean(alpha, beta, group_size) - _power_mean(beta, alpha, group_size)

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "problems": {key: list(counts) for key, counts in self._problems.items()},
            "levels": {key: list(counts) for key, counts in self._levels.items()},
        }

    def restore(self, state: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        """Take over what a checkpoint holds."""
        self._problems = {key: (a, b) for key, (a, b) in state["problems"].items()}
        self._levels = {key: (a, b) for key, (a, b) in state["levels"].items()}

    def _posterior(self, problem: Problem) -> tuple[float, float]:
        solved, unsolved = self._levels.get(_level(problem), (0.0, 0.0))
        mean = (solved + 0.5) / (solved + unsolved + 1.0)
        right, wrong = self._problems.get(problem.id, (0.0, 0.0))
        return right + PRIOR_WEIGHT * mean, wrong + PRIOR_WEIGHT * (1.0 - mean)

    def _decayed(
        self, table: Mapping[str, tuple[float, float]], key: str, solved: int, total: int
    ) -> tuple[float, float]:
        right, wrong = table.get(key, (0.0, 0.0))
        return self.decay * right + solved, self.decay * wrong + total - solved


def solve_rates(signal: Signal) -> SolveRates | None:
    """The table that a recipe orders its problems by; None under the uniform order.

    Raises:
        DataError: `signal.solve_rates` is no such table.
    """
    if signal.order != "difficulty":
        return None
    if signal.solve_rates is None:
        return SolveRates(signal.decay)
    return read_rates(Path(signal.solve_rates), signal.decay, "signal.solve_rates")


def read_rates(file: Path, decay: float, named_by: str) -> SolveRates:
    """A table of `budgetrl probe`.

    Args:
        file: of the table.
        decay: as of `SolveRates`.
        named_by: the key or flag that names the file.

    Raises:
        DataError: it is no such table.
    """
    rates = SolveRates(decay)
    try:
        rates.restore(json.loads(read_regular(file, MAX_TABLE_BYTES)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{named_by} {file}: no table of solve rates ({error!r}).",
            hint="`budgetrl probe` writes solve_rates.json and says where.",
        ) from None
    return rates


def _level(problem: Problem) -> str:
    return problem.level or ""


def _power_mean(alpha: float, beta: float, power: int) -> float:
    """E[p^power] for p ~ Beta(alpha, beta)."""
    product = 1.0
    for i in range(power):
        product *= (alpha + i) / (alpha + beta + i)
    return product
