"""How far something is, on standard error: one line that changes, or in a log now and then a line.

    with downloads() as follow:
        download(need, follow)

For commands that are no run: a run has events, and a view of them.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from budgetrl.display.base import can_be_live

if TYPE_CHECKING:
    from budgetrl.hub.fetch import Watch
    from budgetrl.hub.pins import OnDownload, Pin

DOWNLOAD_S = 0.5
"""Between two states of a download on a terminal."""
LOG_S = 10.0
"""Between two lines where standard error is no terminal."""


class ProgressLine:
    """A line that changes; what is written after it, such as an error, begins on a new one.

    Args:
        every_s: between two states on a terminal.
        since: when the last one was shown, of `time.monotonic`.
    """

    def __init__(self, every_s: float = 0.0, since: float = 0.0) -> None:
        self._live = can_be_live(sys.stderr)
        self._every_s = every_s if self._live else LOG_S
        self._last = since
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        if self._open:
            sys.stderr.write("\n")

    def show(self, whole: bool, text: Callable[[], str]) -> None:
        """Show a text, if it is the last or was not shown for a while."""
        if not whole and time.monotonic() - self._last < self._every_s:
            return
        self._last = time.monotonic()
        self._open = self._live and not whole
        start, end = ("\r\x1b[K" if self._live else ""), ("" if self._open else "\n")
        sys.stderr.write(f"{start}{text()}{end}")
        sys.stderr.flush()


@contextmanager
def downloads(check: Callable[[str], None] = lambda repo: None) -> "Iterator[OnDownload]":
    """What shows how far each download is.

    Args:
        check: given the repository while it is not whole; raises to end the download.
    """
    from budgetrl.account.text import downloading

    def show(pin: "Pin", now: "Watch") -> None:
        repo, whole = pin.need.repo.id, now.done >= now.total
        if not whole:
            check(repo)
        line.show(whole, lambda: downloading(repo, now.done, now.total, now.elapsed_s))

    with ProgressLine(DOWNLOAD_S, time.monotonic()) as line:
        yield show
