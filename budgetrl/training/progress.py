"""How far a run is in one of its stages: what came before, what it may take, when it is over.

A run without stages is one stage without a name. The seconds of a stage are those of the bill, over
all attempts; a share is of the training time that is left when the stage begins, so what one does
not use is the next one's.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from budgetrl.recipe.schema import Stage, StageKind

AT_MOST = frozenset({"loss"})
"""Conditions that are reached from above."""
_CONDITIONS = {"accuracy": "accuracy_mean", "format": "format_mean"} | {
    "completion_tokens": "completion_tokens_mean"
}
"""Names in a step event, where they are others."""


@dataclass(slots=True)
class Progress:
    """Where a run is."""

    stage: Stage | None = None
    """None: the run has no stages."""
    index: int = 0
    first_step: int = 0
    """Updates that were made before the stage."""
    first_batch: int = 0
    """Batches that the stage's sampler has given to stages before it."""
    steps: int = 0
    """Updates made in it."""
    spent_s: float = 0.0
    """By earlier attempts."""
    started: float | None = None
    """The clock's reading when this attempt went on with it."""
    extended: bool = False
    """It was too short for its gate, and is made once more."""
    over: bool = False
    _recent: deque[float] = field(default_factory=deque)

    @property
    def name(self) -> str | None:
        """Of the stage; None where the run has none."""
        return None if self.stage is None else self.stage.name

    @property
    def kind(self) -> StageKind:
        """Of the stage."""
        return StageKind.GRPO if self.stage is None else self.stage.kind

    def batch_of(self, step: int) -> int:
        """The sampler's batch of a step, counted from 0."""
        return step - self.first_step + self.first_batch

    def updates_in_schedule(self, step: int) -> int:
        """Updates made in the stage, as its schedule counts them: an extension starts anew."""
        made = step - self.first_step
        if self.extended and self.stage is not None and self.stage.steps:
            made %= self.stage.steps
        return made

    def begin(self, now: float) -> None:
        """This attempt goes on with the stage."""
        self.started = now

    def taken_s(self, now: float) -> float:
        """Seconds of the stage so far."""
        return self.spent_s + (0.0 if self.started is None else now - self.started)

    def allotted_s(self, now: float, left_s: float) -> float:
        """Seconds that it may take in all; all that is left is no limit but the budget's own.

        Args:
            now: the clock's reading.
            left_s: training time that is left now.
        """
        if self.stage is None or self.stage.share in (None, 1.0):
            return float("inf")
        return self.stage.share * (self.taken_s(now) + max(0.0, left_s))

    def note(self, step: int, fields: Mapping[str, Any], stop: int | None) -> None:
        """An update was made: count it, and see whether the stage has reached its end.

        Args:
            step: its number in the run.
            fields: of its event.
            stop: updates that the stage is to make; None: no number.
        """
        self.steps = step - self.first_step
        wanted = None if stop is None else stop * (2 if self.extended else 1)
        self.over |= self.stage is not None and self.steps == wanted
        until = None if self.stage is None else self.stage.until
        if until is None:
            return
        name, limit = until.condition
        value = fields.get(_CONDITIONS.get(name, name))
        if value is None:
            return
        self._recent.append(value)
        while len(self._recent) > until.updates:
            self._recent.popleft()
        mean = fmean(self._recent)
        reached = mean <= limit if name in AT_MOST else mean >= limit
        self.over |= reached and len(self._recent) == until.updates

    def watch_time(self, left_s: float, step_s: float) -> None:
        """The stage is over once more than half of the next update would be beyond its share.

        Args:
            left_s: of what it may take.
            step_s: of an update.
        """
        self.over |= left_s < 0.5 * step_s

    def extend(self) -> None:
        """Once more, because it was too short."""
        self.extended, self.over = True, False
        self._recent.clear()

    def next(self, stage: Stage, *, same_data: bool) -> "Progress":
        """The stage after this one."""
        first_batch = self.first_batch + self.steps if same_data else 0
        return Progress(stage, self.index + 1, self.first_step + self.steps, first_batch)

    def to_json(self, now: float) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "name": self.name,
            "index": self.index,
            "first_step": self.first_step,
            "first_batch": self.first_batch,
            "spent_s": self.taken_s(now),
            "extended": self.extended,
            "over": self.over,
            "recent": list(self._recent),
        }

    @classmethod
    def from_json(cls, stages: tuple[Stage, ...], data: Mapping[str, Any], step: int) -> "Progress":
        """The inverse of `to_json`, for the checkpoint of a step."""
        return cls(
            stage=stages[data["index"]],
            index=data["index"],
            first_step=data["first_step"],
            first_batch=data["first_batch"],
            steps=step - data["first_step"],
            spent_s=data["spent_s"],
            extended=data["extended"],
            over=data["over"],
            _recent=deque(data["recent"]),
        )
