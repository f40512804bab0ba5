"""One thing that doctor looked at, and what it is needed for."""

from dataclasses import dataclass
from typing import Literal

from budgetrl.recipe.schema import Recipe

Level = Literal["quickstart", "gpu", "recipe", "note"]
"""What a check is needed for; "recipe" is one that runs on a CPU."""


def level_of(recipe: Recipe) -> Level:
    """What a recipe's own checks are needed for."""
    return "gpu" if recipe.engine.device == "cuda" else "recipe"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    level: Level
    found: str
    wanted: str
    fix: str
    """What to do; empty when all is well."""

    @classmethod
    def of(cls, name: str, ok: bool, level: Level, found: str, wanted: str, fix: str) -> "Check":
        """A check whose `fix` is left out when all is well."""
        return cls(name, ok, level, found, wanted, "" if ok else fix)
