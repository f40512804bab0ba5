"""The time that a supervisor keeps for its own end, and the measurement for the next one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from budgetrl.estimation.closing import closing_s, known_closing_work_s, store_closing_work_s
from budgetrl.estimation.machine import user_cache_dir
from budgetrl.pace import Pace

LAST_WORK_S = 0.15
"""Of work, from the last billed second on: result, end screen, Python's own exit."""


@dataclass(slots=True)
class Closing:
    """What the end of this process will take, at today's pace."""

    pace: Pace = field(default_factory=Pace)
    _known_s: float = field(default_factory=lambda: known_closing_work_s(user_cache_dir()))
    _work_s: float = 0.0

    @property
    def reserve_s(self) -> float:
        """Wall seconds from the worker's end to that of this process, besides the report."""
        return closing_s(self._known_s, self.pace.slow)

    @property
    def last_s(self) -> float:
        """Wall seconds that are still to come when the bill is made; it includes them."""
        return LAST_WORK_S * self.pace.slow

    @contextmanager
    def measured(self) -> Iterator[None]:
        """The work inside belongs to the end."""
        start = time.process_time()
        yield
        self._work_s += time.process_time() - start

    def store(self) -> None:
        """Keep the measurement for the next run."""
        store_closing_work_s(user_cache_dir(), self._work_s + LAST_WORK_S)
