"""What one frame shows: a run at one moment, and the means to draw it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from budgetrl.account.live import RunView, number
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

    view: RunView
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
            return "starting" if not self.view.step else "running"
        return DOING.get(span.name, span.name)

    @property
    def sample(self) -> tuple[int, Mapping[str, Any]] | None:
        """The completion whose turn it is: the newest when the moment is new, then older ones."""
        samples = self.view.samples
        if not samples:
            return None
        if self.status is not RunStatus.RUNNING:
            return samples[-1]
        return samples[int(self.now / SAMPLE_S) % len(samples)]


@dataclass(frozen=True, slots=True)
class Bill:
    """Seconds of a run by what they are for: paid, then expected."""

    setup: float
    baseline: float
    train: float
    end: float
    ahead: float
    """Expected training."""
    reserve: float
    """Kept for the final evaluation, the last save and the report."""
    free: float
    """Of the budget, not expected to be used."""
    paid: float
    ends_at: float
    budget: float

    @property
    def left(self) -> float:
        """Of the budget; never negative."""
        return max(0.0, self.budget - self.paid)


def bill_of(scene: Scene) -> Bill:
    """Where the seconds went, and where the rest will go."""
    view, history = scene.view, scene.view.history
    seconds = view.phase_seconds(scene.now)
    paid = view.elapsed_s(scene.now)
    baseline = seconds.get("baseline", 0.0)
    end = seconds.get("final", 0.0) + seconds.get("report", 0.0)
    if history.finished is not None:
        # After the worker's last event only the report and the exit are paid.
        end += max(0.0, paid - history.elapsed_s)
    setup = sum(seconds.get(name, 0.0) for name in ("imports", "download", "model", "data"))
    if "train" not in seconds and not view.step:
        setup = paid - baseline - end
    train = max(0.0, paid - setup - baseline - end)
    budget = view.budget_s or 0.0
    if scene.status is not RunStatus.RUNNING:
        return Bill(setup, baseline, train, end, 0, 0, max(0, budget - paid), paid, paid, budget)
    forecast = history.plan
    kept = forecast.reserve_s if forecast else number(view.plan.get("reserve_s")) or 0.0
    kept = max(0.0, kept + (number(view.plan.get("report_s")) or 0.0) - end)
    ends_at = forecast.ends_at_s if forecast else number(view.plan.get("total_s")) or budget
    ends_at = max(paid, ends_at)
    rest = max(0.0, ends_at - paid)
    ending = end > 0 or "final" in seconds
    reserve = rest if ending else min(kept, rest)
    free = max(0.0, budget - ends_at)
    return Bill(setup, baseline, train, end, rest - reserve, reserve, free, paid, ends_at, budget)


def more_updates(view: RunView) -> tuple[int, int, int] | None:
    """Updates that the budget still buys: expected, low and high; None before the first forecast.

    Each update brings its own forecast; the range is that of the newest plan, in proportion.
    """
    plan = view.history.plan
    if plan is None or not plan.step:
        return None
    steps = view.history.steps
    expected = (
        steps[-1].forecast_steps if steps and steps[-1].step >= plan.step else plan.forecast_steps
    )
    scale = expected / plan.forecast_steps if plan.forecast_steps else 1.0
    low, high = round(plan.forecast_low * scale), round(plan.forecast_high * scale)
    asked = number(view.plan.get("requested_steps"))
    cap = max(0, int(asked) - view.step) if asked is not None else high
    return min(expected, cap), min(low, cap), min(max(high, expected), cap)
