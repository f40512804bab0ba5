"""The updates of a run, stage by stage: train, save at the boundary, measure the gate, go on.

    last = Course(prepared, recipe).make(follower, newest)

A run without stages is one of them. Each boundary is a checkpoint, so a kill between two stages
costs what was done since: nothing that cannot be made again, bit for bit.
"""

from dataclasses import dataclass
from typing import Any

import transformers

from budgetrl.checkpoint_files import CheckpointFile
from budgetrl.engine.base import sample_seed
from budgetrl.events import StageEvent
from budgetrl.recipe.schema import Recipe, StageKind
from budgetrl.training.callbacks import StepCallback
from budgetrl.training.checkpoints import load_trained
from budgetrl.training.gate import measure_gate
from budgetrl.training.setup import Prepared, build_follower
from budgetrl.training.stopper import StepAborted
from budgetrl.training.traces import own_traces
from budgetrl.types import StopReason


@dataclass(slots=True)
class Course:
    """What all stages of a run share."""

    prepared: Prepared
    """For any of them."""
    recipe: Recipe
    """Of the run."""

    def make(self, follower: StepCallback, newest: CheckpointFile | None) -> StepCallback:
        """All updates that are left, from a checkpoint if there is one.

        Args:
            follower: of the stage that the checkpoint is of, or of the first one.
            newest: where an earlier attempt came to.

        Returns:
            the follower of the last stage that was begun.
        """
        while True:
            self.prepared.log.stage = follower.progress.name
            clean = self.prepared.clean
            if follower.progress.over:
                assert newest is not None
                load_trained(self.prepared.engine.model, newest.path)
            else:
                self._train(follower, newest)
            over = follower.progress.over and follower.stop_reason is None
            if not over or self.prepared.stopper.requested():
                return follower
            self._tell(follower, "ended")
            if follower.progress.index + 1 == len(self.recipe.stages):
                return follower
            clean.restore()
            if self._is_ready(follower):
                follower, newest = self._next(follower), None
            elif follower.progress.extended:
                follower.stop_reason = StopReason.NO_SIGNAL
                return follower
            else:
                follower, newest = self._extended(follower), self.prepared.run.newest_checkpoint()

    def _train(self, follower: StepCallback, newest: CheckpointFile | None) -> None:
        """The updates of one stage."""
        if not follower.begin():
            return
        if newest is None or follower.progress.steps == 0:
            self._tell(follower, "started")
        if not self._has_rows(follower):
            follower.stop_reason = StopReason.NO_SIGNAL
            return
        with self.prepared.log.phase("train"):
            try:
                resume_from = None if newest is None else str(newest.path)
                follower.trainer.train(resume_from_checkpoint=resume_from)
            except StepAborted:
                follower.stop_reason = self.prepared.stopper.reason or StopReason.BUDGET
        with self.prepared.log.phase("checkpoint"):
            follower.save("stage" if follower.progress.over else "end")

    def _has_rows(self, follower: StepCallback) -> bool:
        """Whether there is something to learn from; a stage may have to make it first."""
        sft = follower.recipe.sft
        if follower.progress.kind is not StageKind.SFT or sft.source == "data":
            return True
        with self.prepared.log.phase("traces"):
            sampler = own_traces(self.prepared.at(follower.progress), follower)
        if sampler is None:
            self.prepared.log.warn(
                "no_traces",
                f"stage {follower.progress.name}: the model gave no right answer to learn from; a "
                'warm-up needs demonstrations: name data with solutions, sft.source = "data"',
            )
            return False
        follower.parts.sampler = sampler
        return True

    def _next(self, before: StepCallback) -> StepCallback:
        """The stage after one that is over, with an optimiser of its own."""
        now, stage = before.progress, self.recipe.stages[before.progress.index + 1]
        recipe = self.prepared.recipes[now.index + 1]
        same = recipe.data == before.recipe.data and StageKind.SFT not in (now.kind, stage.kind)
        prepared = self.prepared.at(now.next(stage, same_data=same))
        made = build_follower(prepared, recipe, before)
        transformers.set_seed(sample_seed(recipe.seed, "stage", prepared.progress.index) % 2**32)
        return made

    def _extended(self, before: StepCallback) -> StepCallback:
        """The same stage once more, with the optimiser that it has."""
        before.progress.extend()
        self._tell(before, "extended")
        return build_follower(self.prepared.at(before.progress), before.recipe, before)

    def _is_ready(self, follower: StepCallback) -> bool:
        """Whether the next stage may begin: the gate is passed, or `on_fail` lets it."""
        stage = follower.progress.stage
        assert stage is not None
        if stage.gate is None:
            return True
        following = self.recipe.stages[follower.progress.index + 1]
        prepared = self.prepared.at(follower.progress.next(following, same_data=False))
        with prepared.log.phase("gate"):
            seen = measure_gate(stage.gate, prepared)
        if seen is None:
            return True  # somebody stops the run, which is found right after this
        extended = follower.progress.extended
        ready = seen.passed or (extended and stage.on_fail == "go_on")
        missed = "stop" if extended else "extend"
        self._tell(
            follower,
            "gate",
            signal_share=seen.groups_with_signal / max(1, seen.groups),
            groups=seen.groups,
            groups_with_signal=seen.groups_with_signal,
            wanted_share=stage.gate.signal_share,
            decision="go_on" if ready else missed,
        )
        return ready

    def _tell(self, follower: StepCallback, state: Any, **measured: Any) -> None:
        """The event of a stage; a run without stages has none."""
        progress = follower.progress
        if progress.stage is None:
            return
        now = self.prepared.log.ledger.clock()
        allotted_s = follower.allotted_s(now)
        ended = state == "ended"
        self.prepared.log.emit(
            StageEvent(
                name=progress.stage.name,
                training=progress.kind.value,
                index=progress.index,
                stages=len(self.recipe.stages),
                state=state,
                step=progress.first_step + progress.steps,
                seconds=progress.taken_s(now) if ended else None,
                updates=progress.steps if ended else None,
                allotted_s=None if allotted_s == float("inf") else allotted_s,
                **measured,
            )
        )
