"""What shows a run while it lasts: one protocol, five kinds, and how to get one.

    with open_display("auto", sys.stdout) as display:     the terminal is put right at the end
        display.message("planning quickstart")            allowed before there is a run directory
        display.start(run)
        while ...: display.tick()                         about four times a second
        display.close(end)                             the end screen

A display reads events, plan and heartbeat from the run directory by itself, so it shows the same
in `run`, `resume` and `watch`. It never waits for its reader, and no error in it ends a run.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Protocol, Self, TextIO

from budgetrl.account.live import LiveRun
from budgetrl.display.output import silence
from budgetrl.events import RunFinished
from budgetrl.rundir import RunDir

DisplayKind = Literal["auto", "live", "plain", "json", "none"]


class Display(Protocol):
    """Shows one run. All methods return at once."""

    @property
    def view(self) -> LiveRun | None:
        """What it knows of the run; None where it keeps no account."""

    def start(self, run: RunDir) -> None:
        """The run directory is there, with recipe and plan; called before the worker starts.

        Events that are there already (a resumed run) are past, and not shown as news.
        """

    def tick(self) -> None:
        """Show what is new in the files."""

    def message(self, text: str) -> None:
        """Show one sentence from the program itself, such as "saving before leaving"."""

    def close(self, end: RunFinished | None = None) -> None:
        """Show the rest, then the end screen, and leave the terminal as it was.

        Args:
            end: how the run ended; None: leave without an end screen.
        """


class NoDisplay:
    """Shows nothing."""

    view: LiveRun | None = None

    def start(self, run: RunDir) -> None:
        """Nothing."""

    def tick(self) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def close(self, end: RunFinished | None = None) -> None:
        """Nothing."""


class GuardedDisplay:
    """A display that may fail without harm: live becomes plain, and a closed stream becomes none.

    Also a context manager; leaving it closes the display if nobody did.
    """

    def __init__(self, display: Display, stream: TextIO, errors: TextIO) -> None:
        self._display = display
        self._stream = stream
        self._errors = errors
        self._run: RunDir | None = None
        self._closed = False

    @property
    def view(self) -> LiveRun | None:
        """What the display knows of the run; None before `start`, or where nothing is shown."""
        return self._display.view

    def start(self, run: RunDir) -> None:
        """See `Display`."""
        self._try(lambda: self._display.start(run))
        self._run = run

    def tick(self) -> None:
        """See `Display`."""
        self._try(lambda: self._display.tick())

    def message(self, text: str) -> None:
        """See `Display`."""
        self._try(lambda: self._display.message(text))

    def close(self, end: RunFinished | None = None) -> None:
        """See `Display`; the second time nothing happens."""
        if not self._closed:
            self._closed = True
            self._try(lambda: self._display.close(end))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _try(self, call: Callable[[], None]) -> None:
        """Run a call; if it fails, go on with a simpler display and run it there."""
        while True:
            try:
                return call()
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO):
                    self._degrade(error)
                else:
                    # The reader is gone (`| head`, a closed terminal): nobody to tell.
                    self._leave()
                    self._display = NoDisplay()
                    silence(self._stream)
            except Exception as error:
                # A view shows; whatever is wrong with it must not end a run that costs money.
                self._degrade(error)

    def _degrade(self, error: Exception) -> None:
        from budgetrl.display.plain import PlainDisplay

        failed = self._display
        self._leave()
        simpler = NoDisplay() if isinstance(failed, PlainDisplay) else PlainDisplay(self._stream)
        self._display = simpler
        name = "plain lines" if isinstance(simpler, PlainDisplay) else "no display"
        with suppress(OSError, ValueError):
            self._errors.write(
                f"The view failed ({type(error).__name__}: {error}); the run goes on with {name}.\n"
            )
            self._errors.flush()
        run = self._run
        if run is not None:
            self._try(lambda: self._display.start(run))

    def _leave(self) -> None:
        """Give the terminal back, if the failed display still can."""
        with suppress(Exception):
            self._display.close(None)


def open_display(kind: DisplayKind, stream: TextIO, errors: TextIO) -> GuardedDisplay:
    """A display on a stream.

    Args:
        kind: auto is live on a terminal that can move the cursor, else plain; live needs such a
            terminal too and is plain elsewhere.
        stream: where the run is shown; standard error where standard output carries JSON.
        errors: where a display that fails says so, once.
    """
    return GuardedDisplay(_make(kind, stream), stream, errors)


def can_be_live(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can move the cursor."""
    try:
        terminal = stream.isatty()
    except ValueError:
        return False
    return terminal and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def _make(kind: DisplayKind, stream: TextIO) -> Display:
    # Each kind is imported when it is wanted: rich costs a tenth of a second.
    if kind == "none":
        return NoDisplay()
    if kind == "json":
        from budgetrl.display.jsonl import JsonDisplay

        return JsonDisplay(stream)
    if kind != "plain" and can_be_live(stream):
        from budgetrl.display.live import LiveDisplay

        return LiveDisplay(stream)
    from budgetrl.display.plain import PlainDisplay

    return PlainDisplay(stream)
