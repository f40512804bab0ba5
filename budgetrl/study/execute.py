"""Hand out the trials of a sweep to whatever runs them, inside one budget, until all have ended.

    plan_sweep(...) -> StudyDir.create(...) | open_study(...) -> run_sweep(study, pool, ...)

A pool is this process, one trial after another, or a Ray cluster. A killed sweep goes on where it
was: finished trials stand, one that was cut off is resumed. A trial that fails is shown and does
not stop the others. Every card of the pool is paid for as long as the sweep lasts; what is left
over stays unspent.
"""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from budgetrl.account.run import last_beat
from budgetrl.display.base import GuardedDisplay
from budgetrl.errors import DataError, ExitCode
from budgetrl.evaluation.rows import load_eval
from budgetrl.history import read_history
from budgetrl.pace import slowness
from budgetrl.recipe.load import LoadedRecipe
from budgetrl.rundir import RunDir
from budgetrl.study.asha import next_trial
from budgetrl.study.specs import baseline_key
from budgetrl.study.state import StudyDir, TrialState
from budgetrl.study.trial import Done, Job, bring, run_trial, second_copy
from budgetrl.supervise.ending import HARD_MARGIN_S, run_reporter
from budgetrl.supervise.worker import Signals
from budgetrl.types import RunStatus

OpenDisplay = Callable[[], AbstractContextManager[GuardedDisplay]]
"""A fresh display for every trial."""
Say = Callable[[int, str], None]
MOST_LOST = 3
"""Times that a trial's process or machine may be lost."""
NOTE_S = 5.0
"""Between two notes of what was paid."""
CLOSE_S = 2.0
"""From the report to the end of this process on an idle machine: a cluster is let go."""
LATE_S = 5.0
"""After the end of the budget a pool's trials are ended by force."""
_STOPPED = (ExitCode.INTERRUPTED, ExitCode.TERMINATED)


class Pool(Protocol):
    """What runs trials."""

    @property
    def slots(self) -> int:
        """Cards, or cores, that are paid for now."""
        ...

    def start(self, job: Job) -> None:
        """Run a trial; there is a free slot."""
        ...

    def finished(self) -> list[Done]:
        """Trials that have come to an end since the last call; waits a moment for one."""
        ...

    def stop(self, *, at_once: bool = False) -> None:
        """Have all running trials save and leave, or end them by force."""
        ...


class ThisProcess:
    """The pool of one slot: each trial in turn, shown as `budgetrl run` shows a run."""

    slots = 1

    def __init__(self, open_display: OpenDisplay) -> None:
        self._open_display = open_display
        self._done: list[Done] = []

    def start(self, job: Job) -> None:
        """See `Pool`; returns when the trial has ended."""
        with self._open_display() as display:
            self._done.append(run_trial(job, display))

    def finished(self) -> list[Done]:
        """See `Pool`."""
        done, self._done = self._done, []
        return done

    def stop(self, *, at_once: bool = False) -> None:
        """See `Pool`; nothing runs in between."""


class Meter:
    """What all cards of a pool have cost."""

    def __init__(self, pool: Pool, paid_s: float, started: float) -> None:
        self._pool, self._paid_s, self._at = pool, paid_s, started

    def read(self) -> float:
        """Seconds paid so far; gaps between attempts cost nothing."""
        now = time.monotonic()
        self._paid_s += self._pool.slots * (now - self._at)
        self._at = now
        return self._paid_s


class Sweeping:
    """One process's work on a sweep."""

    def __init__(
        self,
        study: StudyDir,
        pool: Pool,
        started: float,
        gpu: str | None = None,
        *,
        allow_code: bool = False,
    ) -> None:
        self.study, self._pool, self._gpu, self._allow_code = study, pool, gpu, allow_code
        self._loaded = [self._recipe_of(trial) for trial in study.trials]
        self._meter = Meter(pool, study.paid_s(), started)
        self._started: float | None = started if isinstance(pool, ThisProcess) else None
        self.busy: dict[int, int] = {}
        """Running trials, with the updates that they shall make (0: their own number)."""
        self._settled: set[tuple[int, int]] = set()
        self._lost: dict[int, int] = {}
        self._noted_at = 0.0

    def left_s(self) -> float:
        """Wall seconds until the budget ends, without the report."""
        return self.wall_left_s() - self.study.report_s

    def wall_left_s(self) -> float:
        """Wall seconds until the budget ends."""
        return (self.study.budget.wall_s - self._meter.read()) / self._pool.slots

    def hand_out(self) -> int | None:
        """Start one trial; None where none is left, or all slots are taken."""
        work = self._next() if len(self.busy) < self._pool.slots else None
        if work is None:
            return None
        index, goal = work
        job = self._job(index, goal)
        self.study.update(index, run=job.run, error=None)
        self.busy[index] = goal
        self._started = None
        self._pool.start(job)
        return index

    def take_back(self, done: Done) -> TrialState:
        """Note how a trial came out."""
        index, goal = done.index, self.busy.pop(done.index)
        trial = self.study.trials[index]
        copy = second_copy(self._loaded[index].recipe, trial.run or "")
        run = RunDir(self.study.path / (trial.run or ""))
        if copy is not None and last_beat(copy) > last_beat(run):
            bring(copy, run)
        error = done.error
        if done.lost:
            self._lost[index] = self._lost.get(index, 0) + 1
            if self._lost[index] < MOST_LOST:
                return trial
            error = f"its worker was lost {MOST_LOST} times"
        self._settled.add((index, goal))
        self.study.update(index, error=error)
        self._score(index)
        self.note()
        return self.study.trials[index]

    def note(self, *, every_s: float = 0.0, ahead_s: float = 0.0) -> None:
        """Write down what was paid, and will be until this process has ended."""
        if time.monotonic() - self._noted_at >= every_s:
            self._noted_at = time.monotonic()
            self.study.note_paid(self._meter.read() + self._pool.slots * ahead_s)

    def _next(self) -> tuple[int, int] | None:
        if self.study.rungs:
            for index in range(len(self.study.trials)):
                self._score(index)
            scores = [trial.scores for trial in self.study.trials]
            out = {index for index, goal in self._settled if goal not in scores[index]}
            return next_trial(scores, self.study.rungs, self.busy, out)
        waiting = (
            index
            for index, trial in enumerate(self.study.trials)
            if index not in self.busy and (index, 0) not in self._settled and self._open(trial)
        )
        # What a lost machine's worker may still hold comes last.
        return min(((i, 0) for i in waiting), key=lambda w: self._lost.get(w[0], 0), default=None)

    def _open(self, trial: TrialState) -> bool:
        """Whether a trial has not begun, or was cut off."""
        run = self.study.run_of(trial)
        return run is None or run.status() not in (RunStatus.FINISHED, RunStatus.FAILED)

    def _score(self, index: int) -> None:
        """Note pass@1 of a trial that stands at a rung."""
        trial, suite = self.study.trials[index], self.study.config.get("metric")
        run = self.study.run_of(trial)
        if run is None or index in self.busy or not self.study.rungs:
            return
        steps = read_history(run).steps
        made = steps[-1].step if steps else 0
        if made in trial.scores or made not in self.study.rungs:
            return
        if run.status() is not RunStatus.FINISHED:
            return
        with suppress(DataError):  # no final evaluation, or a damaged one: it goes no further
            found = load_eval(run.evals / str(suite) / "final.json", with_rows=False)
            if found.result is not None:
                scores = {**trial.scores, made: found.result.pass_at[1]}
                self.study.update(index, scores=scores)

    def _job(self, index: int, goal: int) -> Job:
        trial, loaded = self.study.trials[index], self._loaded[index]
        sets = _until(loaded, goal, self.study.rungs)
        left_s, exists = self.left_s(), self.study.run_of(trial) is not None
        place = f"trial {index + 1} of {len(self.study.trials)}: {trial.spec.label}"
        return Job(
            index=index,
            place=place,
            folder=self.study.path,
            run=trial.run or RunDir.new_name(loaded.recipe.name),
            loaded=trial.spec.load(*sets) if sets and not exists else loaded,
            # Under ASHA updates end a trial, not time.
            budget_s=left_s if goal else trial.row["budget_s"],
            end_t=time.time() + left_s,
            most_s=left_s,
            usd_per_hour=self.study.budget.usd_per_hour,
            baseline=self._baseline(index),
            command=("budgetrl", *sys.argv[1:]),
            gpu=self._gpu,
            started=self._started,
            sets=sets if exists else (),
            allow_code=self._allow_code,
            report=not goal or goal == self.study.rungs[-1],
        )

    def _baseline(self, index: int) -> str | None:
        """An earlier run on the same model that has come past its baseline."""
        key = baseline_key(self._loaded[index].recipe)
        for other, trial in enumerate(self.study.trials):
            if other != index and trial.run and baseline_key(self._loaded[other].recipe) == key:
                run = self.study.run_of(trial) or second_copy(self._loaded[other].recipe, trial.run)
                if run is not None and run.eval_files("baseline"):
                    return trial.run
        return None

    def _recipe_of(self, trial: TrialState) -> LoadedRecipe:
        """The trial's recipe, with its number of updates where all make as many."""
        if self.study.config["split"] == "steps":
            return trial.spec.load(f"schedule.stop_after_steps={trial.row['planned_steps']}")
        return trial.spec.load()


def _until(loaded: LoadedRecipe, goal: int, rungs: tuple[int, ...]) -> tuple[str, ...]:
    """What makes a trial stop at a rung, with the learning rate's shape of a whole run."""
    if not goal:
        return ()
    schedule = loaded.recipe.schedule
    length = schedule.schedule_steps or rungs[-1]
    return f"schedule.schedule_steps={length}", f"schedule.stop_after_steps={goal}"


def run_sweep(
    study: StudyDir,
    pool: Pool,
    open_display: OpenDisplay,
    started: float,
    *,
    gpu: str | None = None,
    allow_code: bool = False,
    say: Say | None = None,
) -> ExitCode:
    """Run what is left of a sweep, and make its report.

    Args:
        study: new, or one that was cut off; the caller holds it (`StudyDir.held`).
        pool: runs the trials.
        open_display: shows that the report is written.
        started: monotonic seconds at which the pool began to cost.
        gpu: name of the GPU to plan for.
        allow_code: whether rewards of the user may be imported.
        say: takes a trial's number, and what has become of it: "starts", "goes on", "is lost" or
            nothing where it came out.

    Returns:
        0, 1 where every trial failed, or how the user ended it (130, 143).
    """
    sweep = Sweeping(study, pool, started, gpu, allow_code=allow_code)
    code = hand_out_all(sweep, pool, say)
    closing_s = min(CLOSE_S * slowness(), study.report_s / 2)
    if code is ExitCode.OK:
        end = time.monotonic() + sweep.wall_left_s() - HARD_MARGIN_S - closing_s
        command = [sys.executable, "-m", "budgetrl", "report", str(study.path), "--json"]
        with open_display() as display:
            run_reporter(command, study.path / "report.log", end, display)
    sweep.note(ahead_s=closing_s)
    failed = all(study.status(trial) == RunStatus.FAILED for trial in study.trials)
    return ExitCode.FAILED if code is ExitCode.OK and failed else code


def hand_out_all(sweep: Sweeping, pool: Pool, say: Say | None = None) -> ExitCode:
    """All trials to their end, or until somebody asks for the end; see `run_sweep`."""
    code = ExitCode.OK
    with Signals() as signals:
        while True:
            told = len(signals.received)
            if told and code is ExitCode.OK:
                terminated = signals.received[0].name == "SIGTERM"
                code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
                pool.stop()
            while code is ExitCode.OK and (index := sweep.hand_out()) is not None:
                if say is not None:
                    begun = sweep.study.run_of(sweep.study.trials[index]) is not None
                    say(index, "goes on" if begun else "starts")
            if not sweep.busy:
                break
            if told > 1 or sweep.left_s() < -LATE_S:
                pool.stop(at_once=True)
            for done in pool.finished():
                sweep.take_back(done)
                if say is not None:
                    say(done.index, "is lost, and goes on elsewhere" if done.lost else "")
                if done.exit_code in _STOPPED and code is ExitCode.OK:
                    code = ExitCode(done.exit_code)
                    pool.stop()
            sweep.note(every_s=NOTE_S)
    sweep.note()
    return code
