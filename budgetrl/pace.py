"""How much slower than alone a process gets on today, by the kernel's own account of its waiting.

    slowness()             of this process since it began: 1.0 alone, 3.0 with a third of a core
    free_cores()           that it may use at all
    pace = Pace(); pace.watch(pid); ...; pace.slow      the slowest of late, for who waits

Waiting for a core counts, waiting for a disk or a GPU does not. Where the kernel keeps no account
(not Linux, or without schedstat) everything is as if alone.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, field

LEAST_RUN_S = 0.05
"""A shorter stretch tells nothing: the scheduler favours those who have slept."""
FORGET = 0.8
"""What is left of an older, slower stretch with each new one."""
MOST = 50.0


def free_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def slowness(pid: int | None = None) -> float:
    """Wall seconds that a second of work takes, since a process began; at least 1.

    Args:
        pid: whose main thread; None: this process.
    """
    account = _account(pid)
    return 1.0 if account is None else _ratio(*account)


@dataclass(slots=True)
class Pace:
    """The slowness of this process and of one that it watches, stretch by stretch."""

    slow: float = field(default_factory=slowness)
    """Begins with this process's own start-up, which is work of the kind that ends it."""
    _pid: int | None = None
    _before: tuple[float, float] = (0.0, 0.0)

    @property
    def overall(self) -> float:
        """The slowness of the watched process since it began."""
        return _ratio(*self._before)

    def watch(self, pid: int) -> None:
        """Follow another process from now on."""
        self._pid, self._before = pid, (0.0, 0.0)

    def observe(self) -> None:
        """Take in what the watched process did since the last call."""
        account = _account(self._pid)
        if account is None:
            return
        ran_s, waited_s = account[0] - self._before[0], account[1] - self._before[1]
        if ran_s >= LEAST_RUN_S:
            self._before = account
            self.slow = max(_ratio(ran_s, waited_s), FORGET * self.slow, 1.0)


def _account(pid: int | None) -> tuple[float, float] | None:
    """Seconds that a process's main thread has run, and has waited for a core."""
    with suppress(OSError, ValueError):
        with open(f"/proc/{pid or 'self'}/schedstat", encoding="ascii") as file:
            ran, waited, _ = file.read().split()
        return int(ran) / 1e9, int(waited) / 1e9
    return None


def _ratio(ran_s: float, waited_s: float) -> float:
    return min(MOST, (ran_s + waited_s) / ran_s) if ran_s >= LEAST_RUN_S else 1.0
