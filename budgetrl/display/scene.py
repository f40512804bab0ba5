"""What one frame shows: a run at one moment, and the means to draw it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from budgetrl.account.bill import Bill, bill_of
from budgetrl.account.live import LiveRun
from budgetrl.display.glyphs import Glyphs
from budgetrl.types import RunStatus

DOING = {
    "imports": "starting",
    "download": "downloading",
    "model": "loading the model",
    "data": "loading problems",
    "preflight": "trying the longest update",
    "baseline": "measuring the baseline",
    "train": "training",
    "evaluation": "evaluating",
    "entropy": "measuring entropy",
    "checkpoint": "saving",
    "final": "final evaluation",
    "report": "writing the report",
}
SAMPLE_S = 6.0
"""How long one completion stays."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One moment of one run."""

    view: LiveRun
    now: float
    """Unix seconds."""
    status: RunStatus
    glyphs: Glyphs
    message: str = ""

    @property
    def doing(self) -> str:
        """What happens right now, for people."""
        if self.status is not RunStatus.RUNNING:
            return self.status.value
        if self.view.history.finished is not None:
            return DOING["report"]
        span = self.view.history.phase_now()
        if span is None:
            return "starting" if not self.view.steps else "running"
        return DOING.get(span.name, span.name)

    @property
    def bill(self) -> Bill:
        """What was paid, and what will be."""
        return bill_of(self.view, self.status, self.now)

    @property
    def sample(self) -> tuple[int, Mapping[str, Any]] | None:
        """The completion whose turn it is: the newest when the moment is new, then older ones."""
        samples = self.view.samples
        if not samples:
            return None
        if self.status is not RunStatus.RUNNING:
            return samples[-1]
        return samples[int(self.now / SAMPLE_S) % len(samples)]
