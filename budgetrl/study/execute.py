"""Hand out the trials of a sweep to whatever runs them, inside one budget, until all have ended.

    StudyDir.create(path, plan_sweep(...)) | open_study(path) -> Sweeping(study, pool, ...).run(...)

A pool is this process, one trial after another, or a Ray cluster. A killed sweep goes on where it
was: finished trials stand, one that was cut off is resumed. A trial that fails is shown and does
not stop the others. Every card of the pool is paid for as long as the sweep lasts; what is left
over stays unspent.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from budgetrl.display.base import GuardedDisplay
from budgetrl.errors import ExitCode
from budgetrl.pace import slowness
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import RunDir
from budgetrl.study.asha import next_trial
from budgetrl.study.specs import baseline_key
from budgetrl.study.state import StudyDir
from budgetrl.study.trial import Done, Job, bring_newer, run_trial
from budgetrl.study.watch import trial_row
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

    def start(self, job: Job) -> None:
        """Run a trial; there is a free slot."""

    def finished(self) -> list[Done]:
        """Trials that have come to an end since the last call; waits a moment for one."""

    def stop(self, *, at_once: bool = False) -> None:
        """Have all running trials save and leave, or end them by force."""


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


class Sweeping:
    """One process's work on a sweep."""

    def __init__(
        self,
        study: StudyDir,
        pool: Pool,
        started: float,
        *,
        gpu: str | None = None,
        allow_code: bool = False,
        say: Say | None = None,
    ) -> None:
        """Nothing is run yet.

        Args:
            study: new, or one that was cut off; the caller holds it (`StudyDir.held`).
            pool: runs the trials.
            started: monotonic seconds at which the pool began to cost.
            gpu: name of the GPU to plan for.
            allow_code: whether rewards of the user may be imported.
            say: takes a trial's number, and what has become of it: "starts", "goes on", "is lost"
                or nothing where it came out.
        """
        self._study, self._pool, self._gpu, self._allow_code = study, pool, gpu, allow_code
        self._say = say or (lambda index, news: None)
        self._loaded = [trial.spec.load() for trial in study.trials]
        self._paid_s, self._read_at = study.paid_s(), started
        self._started: float | None = started if isinstance(pool, ThisProcess) else None
        self._busy: dict[int, int] = {}
        """Running trials, with the updates that they shall make (0: their own number)."""
        self._settled: set[tuple[int, int]] = set()
        self._lost: Counter[int] = Counter()
        self._noted_at = 0.0

    def run(self, open_display: OpenDisplay) -> ExitCode:
        """All that is left of the sweep, and its report, which is shown.

        Returns:
            0, 1 where every trial failed, or how the user ended it (130, 143).
        """
        code, study = self.hand_out_all(), self._study
        closing_s = min(CLOSE_S * slowness(), study.sweep.report_s / 2)
        if code is ExitCode.OK:
            end = time.monotonic() + self._wall_left_s() - HARD_MARGIN_S - closing_s
            command = [sys.executable, "-m", "budgetrl", "report", str(study.path), "--json"]
            with open_display() as display:
                run_reporter(command, study.path / "report.log", end, display)
        self._note(ahead_s=closing_s)
        failed = all(study.status(trial) == RunStatus.FAILED for trial in study.trials)
        return ExitCode.FAILED if code is ExitCode.OK and failed else code

    def hand_out_all(self) -> ExitCode:
        """All trials to their end, or until somebody asks for the end."""
        code = ExitCode.OK
        with Signals() as signals:
            while True:
                told = len(signals.received)
                if told and code is ExitCode.OK:
                    terminated = signals.received[0].name == "SIGTERM"
                    code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
                    self._pool.stop()
                while code is ExitCode.OK and self._hand_out():
                    pass
                if not self._busy:
                    break
                if told > 1 or self._left_s() < -LATE_S:
                    self._pool.stop(at_once=True)
                for done in self._pool.finished():
                    self._take_back(done)
                    if done.exit_code in _STOPPED and code is ExitCode.OK:
                        code = ExitCode(done.exit_code)
                        self._pool.stop()
                self._note(every_s=NOTE_S)
        self._note()
        return code

    def _read_meter(self) -> float:
        """What all cards have cost so far; gaps between attempts cost nothing."""
        now = time.monotonic()
        self._paid_s += self._pool.slots * (now - self._read_at)
        self._read_at = now
        return self._paid_s

    def _left_s(self) -> float:
        """Wall seconds until the budget ends, without the report."""
        return self._wall_left_s() - self._study.sweep.report_s

    def _wall_left_s(self) -> float:
        """Wall seconds until the budget ends."""
        return (self._study.sweep.budget.wall_s - self._read_meter()) / self._pool.slots

    def _hand_out(self) -> bool:
        """Start one trial; False where none is left, or all slots are taken."""
        work = self._next() if len(self._busy) < self._pool.slots else None
        if work is None:
            return False
        index, goal = work
        job = self._job(index, goal)
        begun = self._study.run_of(self._study.trials[index]) is not None
        self._study.update(index, run=job.run, error=None)
        self._busy[index] = goal
        self._started = None
        self._pool.start(job)
        self._say(index, "goes on" if begun else "starts")
        return True

    def _take_back(self, done: Done) -> None:
        """Note how a trial came out."""
        index, goal = done.index, self._busy.pop(done.index)
        name, error = self._study.trials[index].run, done.error
        assert name is not None, "it was handed out"
        bring_newer(RunDir(self._study.path / name), self._loaded[index].recipe)
        self._lost[index] += done.lost
        if done.lost and self._lost[index] >= MOST_LOST:
            error = f"its worker was lost {MOST_LOST} times"
        if error or not done.lost:
            self._settled.add((index, goal))
            self._study.update(index, error=error)
            self._note()
        self._say(index, "is lost, and goes on elsewhere" if done.lost and not error else "")

    def _note(self, *, every_s: float = 0.0, ahead_s: float = 0.0) -> None:
        """Write down what was paid, and will be until this process has ended."""
        if time.monotonic() - self._noted_at >= every_s:
            self._noted_at = time.monotonic()
            self._study.note_paid(self._read_meter() + self._pool.slots * ahead_s)

    def _next(self) -> tuple[int, int] | None:
        """A trial and its goal. Without ASHA all go to their own end, which is the only rung."""
        scores = [self._scores(index) for index in range(len(self._study.trials))]
        out = {index for index, goal in self._settled if goal not in scores[index]}
        # What a lost worker may still hold comes last.
        order = sorted(range(len(scores)), key=lambda index: self._lost[index])
        return next_trial(scores, self._study.sweep.rungs or (0,), self._busy, out, order)

    def _scores(self, index: int) -> Mapping[int, float]:
        """pass@1 by rung: a trial that stands at one has its noted, or goes no further."""
        rungs, trial = self._study.sweep.rungs, self._study.trials[index]
        run = self._study.run_of(trial)
        ended = run is not None and run.status() in (RunStatus.FINISHED, RunStatus.FAILED)
        if not rungs:
            return {0: 0.0} if ended else {}
        if ended and index not in self._busy:
            row = trial_row(self._study, index)
            made, result = row["steps"], (row["final"] or {}).get(self._study.config.metric)
            if result is not None and made in rungs and made not in trial.scores:
                scores = {**trial.scores, made: result["pass_at"]["1"]}
                self._study.update(index, scores=scores)
        return self._study.trials[index].scores

    def _job(self, index: int, goal: int) -> Job:
        study, loaded = self._study, self._loaded[index]
        trial, rungs, key = study.trials[index], study.sweep.rungs, baseline_key(loaded.recipe)
        others = [
            trial.run
            for trial, other in zip(study.trials, self._loaded, strict=True)
            if trial.run and other is not loaded and baseline_key(other.recipe) == key
        ]
        sets = _until(loaded.recipe, goal, rungs)
        left_s, exists = self._left_s(), study.run_of(trial) is not None
        return Job(
            index=index,
            place=f"trial {index + 1} of {len(study.trials)}: {trial.spec.label}",
            folder=study.path,
            run=trial.run or RunDir.new_name(loaded.recipe.name),
            loaded=trial.spec.load(*sets) if sets and not exists else loaded,
            # Under ASHA updates end a trial, not time.
            budget_s=left_s if goal else trial.row.budget_s,
            end_t=time.time() + left_s,
            most_s=left_s,
            usd_per_hour=study.sweep.budget.usd_per_hour,
            siblings=tuple(others),
            command=("budgetrl", *sys.argv[1:]),
            gpu=self._gpu,
            started=self._started,
            sets=sets if exists else (),
            allow_code=self._allow_code,
            report=not goal or goal == rungs[-1],
        )


def _until(recipe: Recipe, goal: int, rungs: tuple[int, ...]) -> tuple[str, ...]:
    """What makes a trial stop at a rung, with the learning rate's shape of a whole run."""
    if not goal:
        return ()
    length = recipe.schedule.schedule_steps or rungs[-1]
    return f"schedule.schedule_steps={length}", f"schedule.stop_after_steps={goal}"
