"""`budgetrl watch`: a view of any run from its files: running, finished, interrupted or crashed.

It only reads, so any number of watchers may look at one run, and ending one changes nothing.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from budgetrl.account.live import LiveRun
from budgetrl.display.base import GuardedDisplay, can_be_live
from budgetrl.display.plain import PlainDisplay
from budgetrl.errors import RunDirError
from budgetrl.rundir import SUPERVISOR_LOCK, RunDir, list_runs
from budgetrl.types import RunStatus

TICK_S = 0.5
ONCE_SIZE = (100, 60)
"""Columns and lines of a frame that is printed where there is no terminal."""
HINT = "Ctrl-C leaves this view; the run goes on"


def newest_run(out: Path = Path("runs")) -> RunDir:
    """The newest run directory under a folder.

    Raises:
        RunDirError: there is none.
    """
    runs = list_runs(out)
    if not runs:
        raise RunDirError(
            f"there is no run under {out}.",
            hint="Name a run directory, or start a run with `budgetrl run quickstart`.",
        )
    return runs[-1]


def print_frame(run: RunDir, stream: TextIO, now: float | None = None) -> None:
    """Print one frame of a run as it is."""
    view = LiveRun(run)
    view.catch_up()
    _print(view, stream, time.time() if now is None else now)


def _print(view: LiveRun, stream: TextIO, now: float) -> None:
    from rich.text import Text

    from budgetrl.display.frame import frame
    from budgetrl.display.glyphs import glyphs_for
    from budgetrl.display.moment import Moment
    from budgetrl.display.screen import Screen

    columns, lines = shutil.get_terminal_size(ONCE_SIZE)
    screen = Screen(stream)
    plain = not can_be_live(stream)
    glyphs = glyphs_for(screen.encoding, screen.colour and not plain)
    moment = Moment(view, now, view.status_at(now), glyphs)
    drawn = frame(moment, columns, max(lines - 1, 1))
    screen.leave([Text(line.plain) if plain else line for line in drawn])


def watch(
    run: RunDir, stream: TextIO, errors: TextIO, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Show a run until it is over.

    Raises:
        RunDirError: the run directory is gone.
    """
    view = LiveRun(run)
    view.catch_up()
    if not _goes_on(view):
        _print(view, stream, time.time())
        return
    with _open(view, stream, errors) as display:
        display.start(run)
        # Without a view nobody reads the stream any more.
        while display.view is not None:
            if not run.path.is_dir():
                raise RunDirError(f"the run directory {run.path} is gone.")
            if not _goes_on(display.view):
                break
            sleep(TICK_S)
            display.tick()
        display.close(display.view.history.finished if display.view is not None else None)


def _goes_on(view: LiveRun) -> bool:
    """Whether more may come: after the run's end its supervisor still writes report and bill."""
    return view.status_at() is RunStatus.RUNNING or view.run.is_locked(SUPERVISOR_LOCK)


def _open(view: LiveRun, stream: TextIO, errors: TextIO) -> GuardedDisplay:
    if not can_be_live(stream):
        return GuardedDisplay(PlainDisplay(stream), stream, errors)
    from budgetrl.display.live import LiveDisplay

    live = LiveDisplay(stream, own=False, hint=HINT, view=view)
    return GuardedDisplay(live, stream, errors)
