"""A run that may go on, as a display follows it: read from its files, in bounded memory.

    view = LiveRun(run)
    for event in view.read(): ...      new events since the last call; the view is up to date
    view.status_at(now), view.elapsed_s(now)

It draws nothing. A run of 10,000 updates takes no more memory here than one of 1,000: updates are
kept as curves (`series`), and in full only the newest few.
"""

import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from budgetrl.account.run import Account
from budgetrl.account.series import MEASURED, Series
from budgetrl.events import Event, RunResumed, Step, parse
from budgetrl.history import History
from budgetrl.rundir import HEARTBEAT_FRESH_S, RunDir
from budgetrl.types import RunStatus

BLOCK_BYTES = 1 << 17
FULL_BYTES = 1 << 18
"""So much at the end of a long event file is read line by line."""
STEP_MARK, PLAN_MARK = b'"kind": "step"', b'"kind": "plan"'
"""Marks of the lines that make a long event file long."""
STEP_NUMBER, STORED_BYTES = re.compile(rb'"step": (\d+)'), re.compile(rb'"stored_bytes": (\d+)')
"""What is read of updates that are skipped, so that the missing ones are known."""
RECENT_STEPS = 20
"""Updates that are kept in full: speed is their mean."""
RECENT_SAMPLES = 8


class LiveRun(Account):
    """One run as a display sees it."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(run, History())
        self.series = {name: Series() for name in MEASURED}
        self.samples: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=RECENT_SAMPLES)
        self.drawn: dict[tuple[str, int, int], Any] = {}
        """Whatever was drawn of the events, by name and size; forgotten with every new event."""
        self._offset, self._made = 0, 0

    def read(self) -> Iterator[Event]:
        """Fold in what is new in the event file, and yield it."""
        while True:
            lines, self._offset = self.run.tail_lines(self._offset, BLOCK_BYTES)
            if not lines:
                return
            for line in lines:
                event = self._take(line)
                if event is not None:
                    yield event

    def catch_up(self) -> bool:
        """As `read`, for who does not need the events; whether there were any.

        Of updates far back only some are read, evenly: a curve has no more points anyway.
        """
        offset = self._offset
        size = self.run.events_size()
        if size == offset:
            return False
        every = 1 + (size - offset) // (2 * FULL_BYTES)
        while size - self._offset > FULL_BYTES and self._skim(every):
            pass
        for _ in self.read():
            pass
        return self._offset > offset

    @property
    def steps(self) -> int:
        """Updates that count."""
        return self._made

    def elapsed_s(self, now: float | None = None) -> float:
        """Paid seconds; while the run lives, up to now (Unix seconds)."""
        age = (time.time() if now is None else now) - self.beat("t")
        paid = self.beat("paid_s")
        if paid and 0 <= age < HEARTBEAT_FRESH_S and self.status_at(now) is RunStatus.RUNNING:
            paid += age
        return max(self.paid_s, paid)

    def _skim(self, every: int) -> bool:
        """Fold in one block, of the many alike lines only some; whether there was a block."""
        lines, self._offset = self.run.tail_lines(self._offset, BLOCK_BYTES)
        for number, line in enumerate(lines):
            # Two lines belong to an update: the choice is by pairs, so that both kinds are seen.
            is_step = STEP_MARK in line
            if number // 2 % every == 0 or not (is_step or PLAN_MARK in line):
                self._take(line)
            elif is_step and (told := STEP_NUMBER.search(line)):
                stored = STORED_BYTES.search(line)
                self.history.tell(int(told[1]), int(stored[1]) if stored else None)
        return bool(lines)

    def _take(self, line: bytes) -> Event | None:
        event = parse(line)
        if event is not None:
            self._fold(event)
        return event

    def _fold(self, event: Event) -> None:
        self.history.add(event)
        self.drawn.clear()
        if isinstance(event, Step):
            if self.history.steps[-1] is event:  # else its line is doubled
                self._fold_step(event)
        elif isinstance(event, RunResumed):
            self._made = min(self._made, event.from_step)
            for series in self.series.values():
                series.drop_after(event.from_step)

    def _fold_step(self, step: Step) -> None:
        del self.history.steps[:-RECENT_STEPS]
        if step.step <= self._made:  # the line of a resumption is gone
            for series in self.series.values():
                series.drop_after(step.step - 1)
        self._made = step.step
        if step.sample:
            self.samples.append((step.step, step.sample))
        for name, series in self.series.items():
            series.add(step.step, MEASURED[name](step))
