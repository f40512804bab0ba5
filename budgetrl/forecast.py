"""Whether one more update fits, learned from the steps that were measured.

    Forecaster: measured steps --> Decision             after each update: go on, or finish

What a budget buys before anything is measured is in `budget`. Everything is pure.
"""

import statistics
from collections import deque
from dataclasses import dataclass, field

from budgetrl.budget import EARLY_STEPS, RESERVE_FACTOR, reserve_s

LEAST_CORRECTION, MOST_CORRECTION = 0.7, 20.0
"""Of the plan's updates by the pace of the baseline evaluation."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether another update fits, and what the rest of the budget buys."""

    go_on: bool
    step_s: float
    """Forecast of the next update, pessimistic."""
    reserve_s: float
    rollout_limit_s: float
    """Generation of the next update must end within this."""
    forecast_steps: int
    """Updates that still fit, at the usual pace."""
    forecast_low: int
    forecast_high: int


@dataclass(slots=True)
class Forecaster:
    """Learns from measured steps what the next one costs and how much the end needs.

    Pessimistic where it decides (the slowest recent step), realistic where it informs.
    """

    planned_step_s: float
    baseline_eval_s: float
    """Measured seconds of the baseline evaluation; the final one has the same suites."""
    baseline_tokens_mean: float
    save_s: float
    planned_early_s: float | None = None
    """One of the first `EARLY_STEPS` updates, by the plan; None: not known."""
    planned_evals_s: float = 0.0
    """Evaluations during training, spread over all updates, by the plan."""
    rounds: int = 1
    """Samples of each problem in the evaluation that `baseline_eval_s` is of."""
    untrained: bool = True
    """Before the first update a shorter final evaluation is better than no update."""
    window: int = 5
    _steps: deque[tuple[float, float]] = field(default_factory=deque)
    _tokens_mean: float = 0.0

    def observe(self, step_s: float, rollout_s: float, tokens_mean: float | None) -> None:
        """Note one finished update; no mean length where none was drawn."""
        self.untrained = False
        self._steps.append((step_s, rollout_s))
        if tokens_mean is not None:
            self._tokens_mean = tokens_mean
        while len(self._steps) > 4 * self.window:
            self._steps.popleft()

    def observe_baseline(self, seconds: float, rounds: int, tokens_mean: float) -> None:
        """Note the baseline evaluation; before the first update its pace corrects the plan's."""
        if seconds > 0 and rounds > 0:
            planned, measured = self.baseline_eval_s / self.rounds, seconds / rounds
            if planned > 0:
                factor = min(MOST_CORRECTION, max(LEAST_CORRECTION, measured / planned))
                self.planned_step_s *= factor
                if self.planned_early_s is not None:
                    self.planned_early_s *= factor
            self.baseline_eval_s, self.rounds = seconds, rounds
        self.baseline_tokens_mean = tokens_mean

    def after(self, before: "Forecaster") -> None:
        """Take over what the stage before learnt of the run, but for its updates."""
        self.baseline_eval_s, self.rounds = before.baseline_eval_s, before.rounds
        self.baseline_tokens_mean = before.baseline_tokens_mean
        self._tokens_mean = before._tokens_mean
        self.save_s, self.untrained = before.save_s, before.untrained

    def observe_save(self, seconds: float) -> None:
        """Note one finished checkpoint; the slowest one counts."""
        self.save_s = max(self.save_s, seconds)

    @property
    def reserve_s(self) -> float:
        """What the end needs now: evaluation at today's lengths, and a save."""
        base = self.baseline_tokens_mean
        growth = self._tokens_mean / base if base > 0 and self._tokens_mean > 0 else 1.0
        rounds = self.rounds if self.untrained else 1
        return reserve_s(self.baseline_eval_s / rounds, self.save_s, growth)

    @property
    def pessimistic_step_s(self) -> float:
        """The slowest recent step with a margin, or the plan before there is any."""
        recent = [step for step, _ in list(self._steps)[-self.window :]]
        return 1.15 * max(recent) if recent else self.first_step_s

    @property
    def first_step_s(self) -> float:
        """The first update, by the plan, at the pace of the baseline once that is known."""
        return max(self.planned_step_s, self.planned_early_s or 0.0)

    @property
    def expected_final_s(self) -> float:
        """The final evaluation without a margin."""
        return (self.reserve_s - self.save_s) / RESERVE_FACTOR

    @property
    def expected_end_s(self) -> float:
        """What the end takes without a margin."""
        return self.expected_final_s + self.save_s

    @property
    def expected_step_s(self) -> float:
        """One of the updates to come, with its share of the evaluations.

        The plan's course at this run's pace; the median once that tells enough.
        """
        return self._expected_update_s() + self.planned_evals_s

    def _expected_update_s(self) -> float:
        seconds = [step for step, _ in self._steps]
        if not seconds:
            return self.planned_step_s
        if self.planned_early_s is not None and len(seconds) < 4 * self.window:
            early = seconds[:EARLY_STEPS]
            return self.planned_step_s / self.planned_early_s * sum(early) / len(early)
        return statistics.median_high(seconds)

    def decide(self, remaining_s: float, extra_s: float = 0.0) -> Decision:
        """Whether one more update fits.

        Args:
            remaining_s: until the worker's deadline.
            extra_s: a checkpoint or evaluation that is due right after it.
        """
        reserve, step = self.reserve_s, self.pessimistic_step_s
        free = remaining_s - reserve
        recent = list(self._steps)[-self.window :]
        after_rollout = max((s - r for s, r in recent), default=0.5 * self.planned_step_s)
        times = sorted(step for step, _ in self._steps) or [self.planned_step_s]
        fast, slow, expected = times[len(times) // 10], times[-1], self.expected_step_s
        return Decision(
            go_on=step + extra_s <= free,
            step_s=step,
            reserve_s=reserve,
            rollout_limit_s=max(0.0, free - 1.15 * after_rollout - extra_s),
            forecast_steps=_fit(free, expected),
            forecast_low=_fit(free, max(slow, expected)),
            forecast_high=_fit(free, min(fast, expected)),
        )


def _fit(seconds: float, step_s: float) -> int:
    return max(0, int(seconds / step_s)) if step_s > 0 else 0
