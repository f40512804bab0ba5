"""When a run is saved, which checkpoint is the best, and what is kept of completions.

How a checkpoint is written and read is in `training.checkpoints`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgetrl.checkpoint_files import damaged_files, read_checkpoint
from budgetrl.errors import ExitCode
from budgetrl.estimation.cadence import MIN_SAVE_INTERVAL_S, SAVE_INTERVAL_SHARE
from budgetrl.events import Checkpoint
from budgetrl.files import make_durable
from budgetrl.forecast import Forecaster
from budgetrl.recipe.schema import Recipe
from budgetrl.retention import dropped_by
from budgetrl.rundir import RunDir
from budgetrl.training.checkpoints import prune, save_checkpoint
from budgetrl.training.clock import PhaseClock
from budgetrl.training.log import RunLog
from budgetrl.training.mirror import MirrorGuard, mirror_of
from budgetrl.training.recorder import StepRecord
from budgetrl.training.stopper import Stopper

RECENT_SAVE_S = 60.0
"""A checkpoint younger than this is good enough when the machine is taken away."""


@dataclass(slots=True)
class Best:
    """The best step evaluation so far, by the recipe's [select]."""

    step: int | None = None
    value: float | None = None


@dataclass(slots=True)
class Saver:
    """Saves by steps, by time, and when something is worth keeping."""

    run: RunDir
    recipe: Recipe
    log: RunLog
    clock: PhaseClock
    forecaster: Forecaster
    stopper: Stopper
    state: Callable[[], dict[str, Any]]
    """What a resumed run needs besides adapter, optimiser and random generators."""
    best: Best = field(default_factory=Best)
    saved_step: int = 0
    _last_save: float = 0.0
    _stored: list[Path] = field(default_factory=list)
    """Completions since the last checkpoint: the disk is waited for once, and not in an update."""
    _mirror: MirrorGuard = field(init=False)

    def __post_init__(self) -> None:
        self._mirror = MirrorGuard(self.run, mirror_of(self.run, self.recipe), self.log.warn)

    def begin(self) -> None:
        """Training starts: the interval by time runs from here."""
        self._last_save = self.log.ledger.clock()

    def save(self, trainer: Any, reason: str) -> None:
        """A complete checkpoint of the last finished update, unless there is one already.

        A disk that is full costs the checkpoint and a warning, not the run.
        """
        step, start = trainer.rollouts, self.log.ledger.clock()
        preempted = self.stopper.exit_code is ExitCode.TERMINATED
        recent = self.saved_step and start - self._last_save < RECENT_SAVE_S
        if step in (0, self.saved_step) or (preempted and recent):
            return
        self._last_save = start
        try:
            with self.clock.elsewhere():
                make_durable(self._stored)
                self._stored.clear()
                path = save_checkpoint(self.run, trainer, self.state())
                prune(self.run, self.best.step, self.recipe.checkpoint.milestones)
                self._mirror.update()
        except OSError as error:
            self.log.warn("not_saved", f"the checkpoint of step {step} was not written: {error}")
            return
        self.saved_step = step
        seconds = self.log.ledger.clock() - start
        self.forecaster.observe_save(seconds)
        self.log.emit(
            Checkpoint(
                step=step,
                path=self.run.relative(path),
                seconds=seconds,
                best=step == self.best.step,
                reason=reason,
            )
        )

    def note_best(self, trainer: Any, value: float) -> None:
        """An evaluation of the last finished update: the best so far is saved."""
        if self.best.value is None or value > self.best.value:
            before, self.best = self.best, Best(trainer.rollouts, value)
            self.save(trainer, "best")
            if self.saved_step != trainer.rollouts:
                self.best = before

    def best_step(self) -> int | None:
        """The update that the final evaluation judges, by [select]; None: the last one.

        Every byte of its checkpoint is read, which may take seconds: call it once.
        """
        step = self.best.step if self.recipe.select.use == "best" else None
        if step is None:
            return None
        checkpoint = read_checkpoint(self.run.checkpoint_path(step))
        if checkpoint is not None and not damaged_files(checkpoint):
            return step
        self.best = Best()
        self.log.warn(
            "best_lost", f"the best checkpoint, of step {step}, is gone: the last update is judged"
        )
        return None

    def best_checkpoint(self) -> str | None:
        """The checkpoint that the final evaluation judges, relative to the run directory."""
        best = self.best.step if self.recipe.select.use == "best" else None
        there = best is not None and read_checkpoint(self.run.checkpoint_path(best)) is not None
        step = best if there else self.saved_step
        return self.run.relative(self.run.checkpoint_path(step)) if step else None

    def store(self, step: int, record: StepRecord) -> int | None:
        """Keep the completions of a step; the bytes of their file, None where they are not kept."""
        try:
            stored_bytes = self.run.write_completions(step, record.rows())
            self._stored.append(self.run.completions_file(step))
            old = dropped_by(self.recipe.checkpoint.keep_completions, step)
            if old is not None:
                self.run.drop_completions(old)
        except OSError as error:
            self.log.warn("not_stored", f"the completions of step {step} were not stored: {error}")
            return None
        return stored_bytes

    def due(self, step: int) -> bool:
        """Whether a checkpoint belongs after this update."""
        every = self.recipe.checkpoint.every_steps
        return (every is not None and step % every == 0) or self._due_by_time()

    def cost_s(self, step: int) -> float:
        """Seconds of the checkpoint that belongs after this update; 0 if none does."""
        return self.forecaster.save_s if self.due(step) else 0.0

    def _due_by_time(self) -> bool:
        return self.log.ledger.clock() - self._last_save >= self._interval_s()

    def _interval_s(self) -> float:
        checkpoint = self.recipe.checkpoint
        if checkpoint.every_minutes is not None:
            return 60 * checkpoint.every_minutes
        if checkpoint.every_steps is not None:
            return math.inf
        return max(MIN_SAVE_INTERVAL_S, SAVE_INTERVAL_SHARE * self.log.ledger.budget.wall_s)
