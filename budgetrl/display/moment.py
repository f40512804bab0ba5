"""What one frame shows: a run at one moment, and the means to draw it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from budgetrl.account.bill import Bill, bill_of
from budgetrl.account.live import LiveRun
from budgetrl.display.glyphs import Glyphs
from budgetrl.phases import PHASES
from budgetrl.types import RunStatus

SAMPLE_S = 6.0
"""How long one completion stays."""


@dataclass(frozen=True, slots=True)
class Moment:
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
            return PHASES["report"].doing
        span = self.view.history.phase_now()
        if span is None:
            return "starting" if not self.view.steps else "running"
        doing = PHASES[span.name].doing if span.name in PHASES else span.name
        return doing + (self._stage if span.name == "train" else "")

    @property
    def _stage(self) -> str:
        """Which stage of the training lasts; nothing where there are none."""
        stages = self.view.history.stages
        if not stages or stages[-1].state in ("ended", "gate"):
            return ""
        newest = stages[-1]
        which = f" ({newest.index + 1} of {newest.stages})" if newest.stages > 1 else ""
        return f", {newest.name}{which}"

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
