"""The live view: the whole terminal, redrawn when something changed, at most four times a second.

It draws frames (`frame`) of a run (`view`) on a screen (`screen`). Nothing here waits, and nothing
here is needed for the run: `base.GuardedDisplay` replaces it by plain lines if it fails.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.text import Text

from budgetrl.account.live import LiveRun
from budgetrl.account.outcome import ending
from budgetrl.account.text import scrub
from budgetrl.display.frame import SMALL_HEIGHT, SMALL_WIDTH, frame
from budgetrl.display.glyphs import LABEL, STRONG, glyphs_for
from budgetrl.display.moment import Moment
from budgetrl.display.screen import Screen
from budgetrl.display.typeset import fit, row
from budgetrl.events import RunFinished
from budgetrl.rundir import RunDir
from budgetrl.types import RunStatus

NEWS_S = 0.25
"""Between two frames when there is news."""
CLOCK_S = 1.0
"""Between two frames when only the clock goes on."""
SLOWEST_S = 3.0
CPU_SHARE = 0.004
"""Of one core, for frames: where they are costly there are fewer of them."""
REPAIR_S = 15.0
"""Between two frames that are sent whole, in case something else wrote on the terminal."""
RUN_HINT = "Ctrl-C saves and stops"
KEPT_MESSAGES = 5


class LiveDisplay:
    """Shows a run on the whole terminal.

    Args:
        stream: a terminal.
        own: this process is the run's supervisor, so the run is alive until `close`.
        hint: what the keys do.
        view: of the run that will be started, if the caller has read it already.
        clock: Unix seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        own: bool = True,
        hint: str = RUN_HINT,
        view: LiveRun | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._screen = Screen(stream)
        self._glyphs = glyphs_for(self._screen.encoding, self._screen.colour)
        self._own, self._hint, self._clock = own, hint, clock
        self.view: LiveRun | None = None
        self._prepared = view
        self._messages: deque[str] = deque(maxlen=KEPT_MESSAGES)
        self._notice = ""
        self._news = True
        self._drawn_at = self._whole_at = clock()
        self._size = (0, 0)
        self._pause_s = NEWS_S

    def start(self, run: RunDir) -> None:
        """Show what is there; what was said of the planning gives way to the hint."""
        self._notice = ""
        self.view = self._prepared or LiveRun(run)
        self.view.catch_up()
        self.view.check()
        self._draw()

    def tick(self) -> None:
        """Show what is new, if it is time."""
        if self.view is not None and self.view.catch_up():
            self._news = True
        since = self._clock() - self._drawn_at
        resized = self._screen.size() != self._size
        pause = self._pause_s if self._news else max(CLOCK_S, self._pause_s)
        if since < 0 or since >= (NEWS_S if resized else pause):
            self._draw()

    def message(self, text: str) -> None:
        """Show it in the last line, and again above the end screen."""
        self._messages.append(text)
        self._notice = text
        # A message often answers a key, which the terminal has echoed somewhere on the screen.
        self._whole_at = float("-inf")
        self._draw()

    def close(self, end: RunFinished | None = None) -> None:
        """Leave the screen, with the end screen if it has one."""
        lines: Sequence[Text] = [row(scrub(text)) for text in self._messages]
        if end is not None and self.view is not None:
            self.view.catch_up()
            lines = [*lines, *self._end_screen(self.view, end)]
        self._screen.leave(lines)

    def _end_screen(self, view: LiveRun, end: RunFinished) -> Sequence[Text]:
        """What stays: it leaves a line for the prompt, so that its top stays in sight."""
        columns, lines = self._screen.size()
        if columns < SMALL_WIDTH or lines < SMALL_HEIGHT:
            return [row(f"{label}: {scrub(text)}") for label, text in ending(view, end)]
        view.history.finished = end  # also where the disk was too full to say so
        return frame(self._moment(view, end.stop_reason.status), columns, lines - 2)

    def _moment(self, view: LiveRun, ended: RunStatus | None = None) -> Moment:
        now = self._clock()
        status = ended or (RunStatus.RUNNING if self._own else view.status_at(now))
        return Moment(view, now, status, self._glyphs, "" if ended else self._notice)

    def _draw(self) -> None:
        if not self._screen.ready():
            return
        now, cost = self._clock(), time.thread_time()
        self._size = columns, lines = self._screen.size()
        whole = now - self._whole_at >= REPAIR_S or now - self._drawn_at > 2 * SLOWEST_S
        if self.view is None:
            drawn = self._opening(columns)
        else:
            drawn = frame(self._moment(self.view), columns, lines, self._hint)
        self._screen.draw(drawn, (columns, lines), whole)
        self._drawn_at, self._news = now, False
        if whole:
            self._whole_at = now
        cost = time.thread_time() - cost
        self._pause_s = min(max(NEWS_S, cost / CPU_SHARE), SLOWEST_S)

    def _opening(self, width: int) -> list[Text]:
        """Before there is a run directory."""
        lines = [row(("budgetrl", STRONG)), row("")]
        lines += [row(scrub(text)) for text in self._messages]
        lines += [row(("Ctrl-C stops", LABEL))]
        return [fit(line, width, self._glyphs) for line in lines]
