"""One thing that doctor looked at, and what it is needed for."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["quickstart", "gpu", "note"]
"""What a check is needed for."""


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
