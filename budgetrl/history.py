"""What a run's events add up to: pure folds, for the live view, the report and the next plan.

history = read_history(run)          or History() and .add(event) one by one
history.steps, .evaluations, .spend, measured_times(history)
"""

import copy
import statistics
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from budgetrl.budget import EARLY_STEPS, PhaseTimes
from budgetrl.events import (
    Changed,
    Checkpoint,
    Download,
    Entropy,
    Error,
    Evaluation,
    Event,
    Phase,
    PlanEvent,
    RunFinished,
    RunResumed,
    RunStarted,
    RunWarning,
    StageEvent,
    Step,
    parse,
)
from budgetrl.lean_steps import lean_step
from budgetrl.phases import MEASURED_ONCE, UPDATE_PHASES
from budgetrl.rundir import RunDir

UNTOLD, UNSTORED = -2, -1
"""Of an update: no event tells of it; its completions were not stored, or no event says so."""
MOST_STEPS = 10**7
"""A damaged line may name any number."""

BLOCK_BYTES = 1 << 17
"""Of events, at a time."""

RECENT_STEPS = 20
"""Updates that say what the next ones take."""


@dataclass(slots=True)
class Span:
    """One phase of one attempt."""

    name: str
    attempt: int
    started_s: float
    """Paid seconds at its start."""
    expected_s: float | None = None
    seconds: float | None = None
    """None while it lasts."""


@dataclass(slots=True)
class History:
    """A run so far. Steps that a resumed attempt made again are counted once."""

    started: RunStarted | None = None
    attempt: int = 1
    steps: list[Step] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    entropies: list[Entropy] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    stages: list[StageEvent] = field(default_factory=list)
    """Where stages of the training began and ended, and their gates, in order."""
    warnings: dict[str, RunWarning] = field(default_factory=dict)
    """Open warnings by code."""
    errors: list[Error] = field(default_factory=list)
    changes: list[Changed] = field(default_factory=list)
    """What was changed on purpose between attempts."""
    spans: list[Span] = field(default_factory=list)
    download: Download | None = None
    """The newest, of any repository."""
    plan: PlanEvent | None = None
    budget_s: float | None = None
    micro_batch: int | None = None
    """Of a resumed attempt, where it is not the recipe's."""
    finished: RunFinished | None = None
    elapsed_s: float = 0.0
    spent_usd: float | None = None
    last_t: float | None = None
    told: "array[int]" = field(default_factory=lambda: array("q"))
    """What the events tell of each update: UNTOLD, UNSTORED, or the bytes of its completions."""
    reached: int = 0
    """The highest update that an event tells of, also one that was made again later."""
    resumed_from: dict[int, int] = field(default_factory=dict)
    """By attempt, the update that it went on from."""
    newer_schema: bool = False
    """Some events were written by a newer budgetrl."""

    def copy(self) -> "History":
        """One that grows by itself."""
        return replace(self, **{f.name: copy.copy(getattr(self, f.name)) for f in fields(self)})

    def add(self, event: Event) -> None:
        """Fold one more event in."""
        self._stamp(event)
        self.newer_schema |= (
            event.schema_version > type(event).model_fields["schema_version"].default
        )
        match event:
            case RunStarted():
                self.started, self.budget_s = event, event.budget_s
            case RunResumed():
                self._resume(event)
            case Step():
                self._step(event)
            case StageEvent():
                told = [(one.name, one.state, one.step) for one in self.stages]
                if (event.name, event.state, event.step) not in told:  # by an earlier attempt
                    self.stages.append(event)
            case Evaluation():
                self.evaluations.append(event)
            case Entropy():
                self.entropies.append(event)
            case Checkpoint():
                self.checkpoints.append(event)
            case Download():
                self.download = event
            case PlanEvent():
                self.plan = event
            case RunWarning():
                self._warn(event)
            case Changed():
                self.changes.append(event)
            case Error():
                self.errors.append(event)
            case Phase():
                self._phase(event)
            case RunFinished():
                self.finished = event
            case _:
                pass

    def add_lean(self, step: Step) -> None:
        """Fold in an update of which only the numbers are kept."""
        self._stamp(step)
        self._step(step)

    def _stamp(self, event: Event) -> None:
        self.elapsed_s = max(self.elapsed_s, event.elapsed_s)
        if event.spent_usd is not None:
            self.spent_usd = max(self.spent_usd or 0.0, event.spent_usd)
        self.attempt = max(self.attempt, event.attempt)
        self.last_t = event.t

    def _step(self, step: Step) -> None:
        """An update counts once: of a doubled line, and where the line of a resumption is gone."""
        if self.steps and step.step <= self.steps[-1].step:
            if step.attempt <= self.steps[-1].attempt:
                return
            self.steps = [one for one in self.steps if one.step < step.step]
        self.steps.append(step)
        self.tell(step.step, step.stored_bytes)

    def tell(self, step: int, stored_bytes: int | None) -> None:
        """Note that an update was made, for readers that skip its event."""
        if 0 < step < MOST_STEPS:
            self.told.extend([UNTOLD] * (step - len(self.told)))
            self.told[step - 1] = UNSTORED if stored_bytes is None else stored_bytes
            self.reached = max(self.reached, step)

    def phase_now(self) -> Span | None:
        """The innermost phase that lasts, if any."""
        open_spans = [span for span in self.spans if span.seconds is None]
        return open_spans[-1] if open_spans else None

    def phase_seconds(self, elapsed_s: float | None = None) -> dict[str, float]:
        """Paid seconds by phase over all attempts, each without the phases that ran inside it.

        Args:
            elapsed_s: until when a phase counts that lasts; None: the last event.
        """
        now_s = self.elapsed_s if elapsed_s is None else elapsed_s
        totals: dict[str, float] = {}
        around: list[tuple[str, float]] = []  # name and end of the phases around this one
        for span in sorted(self.spans, key=lambda span: (span.attempt, span.started_s)):
            lasting = now_s - span.started_s
            seconds = max(0.0, lasting if span.seconds is None else span.seconds)
            while around and around[-1][1] <= span.started_s + 1e-3:
                around.pop()
            if around:
                totals[around[-1][0]] -= seconds
            totals[span.name] = totals.get(span.name, 0.0) + seconds
            around.append((span.name, span.started_s + seconds))
        return {name: max(0.0, seconds) for name, seconds in totals.items()}

    def step_phase_seconds(self) -> dict[str, float]:
        """Seconds by phase within updates, summed over all updates."""
        totals: dict[str, float] = {}
        for step in self.steps:
            for name, seconds in step.phase_s.items():
                totals[name] = totals.get(name, 0.0) + seconds
        return totals

    def evaluation(self, when: str, suite: str) -> Evaluation | None:
        """The newest evaluation of a suite at a moment."""
        found = [e for e in self.evaluations if e.when == when and e.suite == suite]
        return found[-1] if found else None

    def suites(self) -> list[str]:
        """Suites that were evaluated, in order of appearance."""
        return list(dict.fromkeys(evaluation.suite for evaluation in self.evaluations))

    def _resume(self, event: RunResumed) -> None:
        kept, self.reached = event.from_step, max(self.reached, event.reached)
        self.resumed_from[event.attempt] = kept
        if 0 <= kept < MOST_STEPS:
            del self.told[kept:]
            self.told.extend([UNTOLD] * (kept - len(self.told)))
        self.steps = [step for step in self.steps if step.step <= kept]
        self.entropies = [e for e in self.entropies if e.step <= kept]
        self.stages = [one for one in self.stages if one.step <= kept]
        self.checkpoints = [c for c in self.checkpoints if c.step <= kept]
        self.evaluations = [e for e in self.evaluations if e.step <= kept and e.when != "final"]
        for span in self.spans:
            if span.seconds is None:
                span.seconds = max(0.0, event.elapsed_s - span.started_s)
        self.budget_s, self.finished = event.budget_s, None
        self.micro_batch = event.micro_batch
        self.warnings.clear()

    def _warn(self, event: RunWarning) -> None:
        self.warnings.pop(event.code, None)
        if not event.resolved:
            self.warnings[event.code] = event

    def _phase(self, event: Phase) -> None:
        if event.state == "started":
            self.spans.append(Span(event.name, event.attempt, event.elapsed_s, event.expected_s))
            return
        for span in reversed(self.spans):
            if span.name == event.name and span.seconds is None:
                known = event.seconds is not None
                span.seconds = event.seconds if known else event.elapsed_s - span.started_s
                return


def fold(events: Iterable[Event]) -> History:
    """The history that a sequence of events adds up to."""
    history = History()
    for event in events:
        history.add(event)
    return history


class Followed:
    """The history of a run that goes on: what is new is read, and nothing again."""

    def __init__(self, run: RunDir) -> None:
        self.history = History()
        self._run, self._offset = run, 0

    def read(self) -> list[Step]:
        """Fold in what was written since the last call; the updates of it."""
        made: list[Step] = []
        while True:
            lines, self._offset = self._run.tail_lines(self._offset, BLOCK_BYTES)
            if not lines:
                return made
            made += _fold_lines(self.history, lines)


def read_history(run: RunDir) -> History:
    """The history of a run directory; of updates the numbers, so that 50,000 have room."""
    history = History()
    for _ in _fold_lines(history, run.lines()):
        pass
    return history


def _fold_lines(history: History, lines: Iterable[bytes]) -> Iterator[Step]:
    """Fold in lines; yields updates."""
    for line in lines:
        lean = lean_step(line)
        if lean is not None:
            history.add_lean(lean)
            yield lean
        elif (event := parse(line)) is not None:
            history.add(event)
            if isinstance(event, Step):
                yield event


def replanned_times(history: History, planned: PhaseTimes, source: str) -> PhaseTimes:
    """A plan's times with what a run has measured so far in their place.

    Args:
        history: of the run, finished or not.
        planned: for phases that it has not come to.
        source: says where these times are from, if any was measured.
    """
    known: dict[str, Any] = {
        f"{name}_s": seconds
        for name in MEASURED_ONCE
        if (seconds := _typical(history, name)) is not None
    }
    if "baseline_s" in known:
        known.setdefault("final_s", known["baseline_s"])
    if history.steps:
        recent = (history.steps[1:] or history.steps)[-RECENT_STEPS:]
        known |= {
            f"{name}_s": statistics.median(step.phase_s.get(name, 0.0) for step in recent)
            for name in UPDATE_PHASES
        }
        known["early_step_s"] = None
    if history.checkpoints:
        known["save_s"] = max(checkpoint.seconds for checkpoint in history.checkpoints)
    return replace(planned, **known, source=source) if known else planned


def only_stages(history: History, names: Collection[str | None]) -> History:
    """The same run with the updates of some of its stages alone; None: of a run without any."""
    return replace(history, steps=[step for step in history.steps if step.stage in names])


def measured_times(history: History, report_s: float, source: str) -> PhaseTimes | None:
    """What a run's phases really took; None before it has made an update and a final evaluation.

    Args:
        history: a finished run.
        report_s: seconds from the end of the worker to the end of the run.
        source: says where these times are from.
    """
    once: dict[str, Any] = {f"{name}_s": _typical(history, name) for name in MEASURED_ONCE}
    if not history.steps or None in once.values():
        return None
    settled = history.steps[1:] or history.steps
    update = {
        f"{name}_s": statistics.fmean(s.phase_s.get(name, 0.0) for s in settled)
        for name in UPDATE_PHASES
    }
    step_evals = [e for e in history.evaluations if e.when == "step"]
    numbers = sorted({e.step for e in step_evals})
    saves = [checkpoint.seconds for checkpoint in history.checkpoints]
    train_s = sum(sum(s.phase_s.values()) for s in history.steps)
    early = [sum(s.phase_s.values()) for s in history.steps[:EARLY_STEPS]]
    return PhaseTimes(
        **once,
        **update,
        step_eval_s=sum(e.seconds for e in step_evals) / len(numbers) if numbers else 0.0,
        step_evals_every=numbers[0] if numbers else None,
        save_s=max(saves, default=0.0),
        saves_every_s=train_s / max(1, len(saves)),
        report_s=report_s,
        source=source,
        early_step_s=statistics.fmean(early) if len(settled) >= 4 * EARLY_STEPS else None,
        tokens_mean=statistics.fmean(s.completion_tokens_mean for s in settled),
    )


def _typical(history: History, name: str) -> float | None:
    seconds = [span.seconds for span in history.spans if span.name == name and span.seconds]
    return statistics.median(seconds) if seconds else None
