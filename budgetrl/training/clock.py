"""Where the seconds of an update go: nested clocks whose phases add up to the wall."""

from collections.abc import Iterator
from contextlib import contextmanager

from budgetrl.ledger import Clock
from budgetrl.phases import UPDATE_PHASES

PHASES = tuple(name for name in UPDATE_PHASES if name != "other")
"""Those that are timed."""


class PhaseClock:
    """Times phases; a phase inside another is not counted twice.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._totals: dict[str, float] = {}
        self._inner_s: list[float] = []
        self._mark = clock()

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Count the time inside as `name`; time of contexts within it goes to their own names."""
        start = self._clock()
        self._inner_s.append(0.0)
        try:
            yield
        finally:
            seconds = self._clock() - start
            inner = self._inner_s.pop()
            self._totals[name] = self._totals.get(name, 0.0) + seconds - inner
            if self._inner_s:
                self._inner_s[-1] += seconds

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Time inside belongs to no update (evaluation, entropy, checkpoint)."""
        with self.time("elsewhere"):
            yield

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last call, with what is left of the wall as "other"."""
        now = self._clock()
        wall = now - self._mark - self._totals.get("elsewhere", 0.0)
        phases = {name: self._totals.get(name, 0.0) for name in PHASES}
        phases["other"] = max(0.0, wall - sum(phases.values()))
        self._mark, self._totals = now, {}
        return phases
