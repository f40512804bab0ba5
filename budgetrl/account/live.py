"""What a display knows of one run: read from the run directory's files, in bounded memory.

    view = RunView(run)
    for event in view.read(): ...      new events since the last call; the view is up to date
    view.status(now), view.elapsed_s(now), view.result()

It draws nothing. A run of 10,000 updates takes no more memory here than one of 1,000: updates are
kept as curves (`series`), and in full only the newest few.
"""

import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from budgetrl.account.series import Series
from budgetrl.budget import usd_of
from budgetrl.errors import RunDirError
from budgetrl.events import Event, RunResumed, Step, parse
from budgetrl.history import History
from budgetrl.rundir import HEARTBEAT, HEARTBEAT_FRESH_S, PLAN, RESOLVED, RESULT, RunDir
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
CURVES = ("reward", "accuracy", "length", "entropy", "signal")


class RunView:
    """One run as a display sees it."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.history = History()
        self.step = 0
        self.series = {name: Series() for name in CURVES}
        self.samples: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=RECENT_SAMPLES)
        self.unreadable = 0
        """Lines of the event file that are torn or foreign."""
        self.drawn: dict[tuple[str, int, int], Any] = {}
        """Whatever was drawn of the events, by name and size; forgotten with every new event."""
        self._offset = 0
        self._files: dict[str, tuple[int, Mapping[str, Any]]] = {}

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

    def file(self, name: str) -> Mapping[str, Any]:
        """One of the run's JSON files, read again when it changed; empty if absent or broken."""
        try:
            changed = (self.run.path / name).stat().st_mtime_ns
        except OSError:
            return {}
        known = self._files.get(name)
        if known is None or known[0] != changed:
            value: Any = {}
            with suppress(RunDirError):
                value = self.run.read_json(name)
            known = self._files[name] = (changed, value if isinstance(value, dict) else {})
        return known[1]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe."""
        return _mapping(self.file(RESOLVED).get("recipe"))

    @property
    def plan(self) -> Mapping[str, Any]:
        """The plan that the run started with, as `types.Plan` has it."""
        planned = _mapping(self.file(PLAN).get("plan"))
        return planned or (self.history.started.plan if self.history.started else {})

    @property
    def times(self) -> Mapping[str, Any]:
        """Expected seconds of every phase, as `budget.PhaseTimes` has them."""
        return _mapping(self.file(PLAN).get("times"))

    @property
    def name(self) -> str:
        """Name of the recipe."""
        started = self.history.started
        name = _mapping(self.recipe.get("recipe")).get("name")
        return str(name or (started.recipe if started else self.run.name))

    @property
    def usd_per_hour(self) -> float | None:
        """Price, if one is known."""
        started = self.history.started
        return number(self.plan.get("usd_per_hour")) or (started.usd_per_hour if started else None)

    @property
    def budget_s(self) -> float | None:
        """What the run may take, over all attempts."""
        return self.history.budget_s or number(self.plan.get("budget_s"))

    def elapsed_s(self, now: float | None = None) -> float:
        """Paid seconds; while the run lives, up to now (Unix seconds)."""
        beat = self.file(HEARTBEAT)
        paid = number(beat.get("paid_s")) or 0.0
        age = (time.time() if now is None else now) - (number(beat.get("t")) or 0.0)
        if paid and 0 <= age < HEARTBEAT_FRESH_S and self.status(now) is RunStatus.RUNNING:
            paid += age
        return max(self.history.elapsed_s, paid)

    def usd_of(self, seconds: float | None) -> float | None:
        """What seconds cost, if a price is known."""
        return usd_of(seconds, self.usd_per_hour)

    def status(self, now: float | None = None) -> RunStatus:
        """What the files tell about the run."""
        return self.run.status_of(self.history.finished, now)

    def result(self) -> Mapping[str, Any]:
        """The final JSON of `run`, or as much of it as the events tell; empty while it lasts."""
        finished = self.history.finished
        if finished is None:
            return {}
        told: dict[str, Any] = {
            "stop_reason": finished.stop_reason.value,
            "steps": finished.steps,
            "spent": {
                "wall_s": self.history.elapsed_s,
                "train_s": finished.train_s,
                "usd": self.history.spent_usd,
            },
            "budget": {"wall_s": self.budget_s, "usd": self.usd_of(self.budget_s)},
            "baseline": finished.baseline,
            "final": finished.final,
            "difference": finished.difference,
            "best_checkpoint": finished.best_checkpoint,
            "attempts": self.history.attempt,
        }
        return told | dict(self.file(RESULT))

    def phase_seconds(self, now: float | None = None) -> dict[str, float]:
        """Paid seconds by phase; running phases count up to now."""
        totals = self.history.phase_seconds()
        ahead = self.elapsed_s(now) - self.history.elapsed_s
        for span in self.history.spans:
            if span.seconds is None:
                totals[span.name] += ahead
        return totals

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
        if event is None:
            self.unreadable += 1
        else:
            self._fold(event)
        return event

    def _fold(self, event: Event) -> None:
        self.history.add(event)
        self.drawn.clear()
        if isinstance(event, Step):
            self._fold_step(event)
        elif isinstance(event, RunResumed):
            self.step = min(self.step, event.from_step)
            for series in self.series.values():
                series.drop_after(event.from_step)

    def _fold_step(self, step: Step) -> None:
        del self.history.steps[:-RECENT_STEPS]
        self.step = step.step
        if step.sample:
            self.samples.append((step.step, step.sample))
        values = {
            "reward": step.reward_mean,
            "accuracy": step.accuracy_mean,
            "length": step.completion_tokens_mean,
            "entropy": step.entropy,
            "signal": step.groups_with_signal / step.groups if step.groups else None,
        }
        for name, value in values.items():
            self.series[name].add(step.step, value)


def number(value: Any) -> float | None:
    """A JSON value as a number, or None."""
    return float(value) if isinstance(value, int | float) and value is not True else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
