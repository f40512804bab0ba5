"""Why and when the worker stops early: signals, a lost supervisor, and the deadline.

SIGINT once: interrupted, save and leave; twice: leave at once      exit 130
SIGTERM: interrupted, save within the grace time                    exit 143
SIGUSR1: the supervisor says the budget is nearly used up           the run closes
SIGHUP: ignored, a closed terminal costs nothing
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from budgetrl.errors import ExitCode
from budgetrl.types import StopReason

CLOSE_SIGNAL = signal.SIGUSR1
"""Sent by the supervisor shortly before the deadline."""
_HELD = (signal.SIGINT, signal.SIGTERM, CLOSE_SIGNAL)


@contextmanager
def signals_held() -> Iterator[None]:
    """Processes that are started inside keep what they are sent until their `Stopper` is there.

    A signal in the middle of an import is lost in it, or ends the process as a fault.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StepAborted(Exception):
    """An update was given up before it changed anything; the last finished step stands."""


class Stopper:
    """Holds the first reason to stop. `install` connects it to the process's signals.

    Args:
        supervisor: its process id; None: the parent of this process. A worker is told, because a
            supervisor may be gone before its worker looks.
    """

    def __init__(self, supervisor: int | None = None) -> None:
        self.reason: StopReason | None = None
        self.exit_code = ExitCode.OK
        self.nothing_to_save = False
        """While it is true a signal ends the process at once; its supervisor writes the end."""
        self._parent = os.getppid() if supervisor is None else supervisor
        self._interrupts = 0

    def install(self) -> None:
        """Take over the signals of this process."""
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(CLOSE_SIGNAL, self._close)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)

    def requested(self) -> bool:
        """Whether somebody wants the run to end; also notices a lost supervisor."""
        if self.supervisor_is_gone():
            self._stop(StopReason.INTERRUPTED, ExitCode.TERMINATED)
        return self.reason is not None

    def supervisor_is_gone(self) -> bool:
        """Whether this process was orphaned."""
        return os.getppid() != self._parent

    def until(self, remaining_s: Callable[[], float]) -> Callable[[], bool]:
        """A check for generation loops: a stop was requested, or no time remains."""
        return lambda: self.requested() or remaining_s() <= 0

    def interrupted(self) -> bool:
        """Save and leave, without a final evaluation."""
        return self.reason is StopReason.INTERRUPTED

    def _stop(self, reason: StopReason, exit_code: ExitCode) -> None:
        if self.reason is None or self.reason is StopReason.BUDGET:
            self.reason, self.exit_code = reason, exit_code

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1
        if self._interrupts > 1 or self.nothing_to_save:
            os._exit(ExitCode.INTERRUPTED)
        self._stop(StopReason.INTERRUPTED, ExitCode.INTERRUPTED)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if self.nothing_to_save:
            os._exit(ExitCode.TERMINATED)
        self._stop(StopReason.INTERRUPTED, ExitCode.TERMINATED)

    def _close(self, number: int, frame: FrameType | None) -> None:
        self._stop(StopReason.BUDGET, ExitCode.OK)
