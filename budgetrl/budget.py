"""Time and money: what was paid, what is left, and whether one more update fits.

    PhaseTimes --plan(times, budget)--> Plan            before a run: seconds become updates
    Ledger: clock --> elapsed, remaining                during it: what is paid over all attempts
    Forecaster: measured steps --> Decision             after each update: go on, or finish

The only place where seconds become updates and dollars. Everything is pure; clocks are arguments.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from budgetrl.types import Plan, Spend

Clock = Callable[[], float]
"""Monotonic seconds."""

RESERVE_FACTOR = 1.3
"""Margin on the final evaluation: completions grow while a model learns (paper, Fig. 4)."""

BASELINE_SHARE = 0.4
"""Of what is left, for the evaluation before the first update: the end needs as much again."""

REPORT_FACTOR = 1.3
"""Margin on the report: a longer run has more to draw."""

LEAST_CORRECTION, MOST_CORRECTION = 0.7, 20.0
"""Of the plan's updates by the pace of the baseline evaluation."""

EARLY_STEPS = 5
"""Updates after which a run's own pace corrects the plan's."""

EXIT_S = 1.0
"""Seconds between the end of the worker and the end of the supervisor, besides the report."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run may use: wall seconds, from process start to process end."""

    wall_s: float
    usd_per_hour: float | None = None
    usd: float | None = None
    """The limit in dollars, where one was given."""

    @classmethod
    def of(
        cls, *, hours: float | None, usd: float | None, usd_per_hour: float | None
    ) -> "Budget | None":
        """The sooner of a time limit and a dollar limit; None when neither is given.

        Raises:
            ValueError: dollars without a price.
        """
        limits = [] if hours is None else [hours * 3600]
        if usd is not None:
            if not usd_per_hour:
                raise ValueError("a limit in dollars needs a price per hour")
            limits.append(usd / usd_per_hour * 3600)
        return cls(min(limits), usd_per_hour, usd) if limits else None

    def usd_of(self, seconds: float) -> float | None:
        """What seconds cost, if a price is known."""
        return None if self.usd_per_hour is None else seconds / 3600 * self.usd_per_hour


@dataclass(frozen=True, slots=True)
class PhaseTimes:
    """Expected or measured seconds of every phase of a run."""

    imports_s: float
    model_s: float
    data_s: float
    baseline_s: float
    """All baseline evaluations together."""
    rollout_s: float
    """Of one update, as the four that follow."""
    reward_s: float
    logprob_s: float
    update_s: float
    other_s: float
    step_eval_s: float
    """One evaluation during training, all its suites."""
    step_evals_every: int | None
    """Updates between two of them; None: there are none."""
    final_s: float
    save_s: float
    saves_every_s: float
    """Training seconds between two checkpoints."""
    report_s: float
    source: str
    early_step_s: float | None = None
    """One of the first `EARLY_STEPS` updates, which may be longer than later ones (with groups
    skipped, fewer rows enter an update the more a model learns); None: not known."""
    download_s: float = 0.0
    """Of what is not on this machine yet; 0 in measured times."""
    tokens_mean: float | None = None
    """Mean completion length that these times are for; None: not known."""

    @property
    def setup_s(self) -> float:
        """Everything before the baseline."""
        return self.imports_s + self.download_s + self.model_s + self.data_s

    @property
    def step_s(self) -> float:
        """One update."""
        return self.rollout_s + self.reward_s + self.logprob_s + self.update_s + self.other_s

    def scaled(self, factor: float, source: str) -> "PhaseTimes":
        """All times multiplied, for a machine that is slower (above 1) or faster."""
        keep = {"step_evals_every", "saves_every_s", "source", "tokens_mean"}
        names = [name for name in self.__dataclass_fields__ if name not in keep]
        changed = {n: value * factor for n in names if (value := getattr(self, n)) is not None}
        return replace(self, source=source, **changed)


def plan(
    times: PhaseTimes,
    budget: Budget,
    requested_steps: int | None = None,
    *,
    exit_s: float = EXIT_S,
    rounds: int = 1,
) -> Plan:
    """What a budget buys.

    `affordable_steps` is the largest n with setup + baseline + n steps + floor(n / every) step
    evaluations + saves + reserve + report <= budget; below zero money it is 0. Where that is 0 and
    evaluations have several rounds, one update with fewer rounds before and after is planned, and
    no time is kept for the report.

    Args:
        times: of every phase.
        budget: the limit.
        requested_steps: updates that the recipe wants; None: as many as fit.
        exit_s: between the end of the worker and the end of the supervisor, besides the report.
        rounds: samples of each problem in the evaluations, all suites one after the other.
    """
    reserve = reserve_s(times.final_s, times.save_s)
    end = times.report_s * REPORT_FACTOR + exit_s
    fixed = times.setup_s + times.baseline_s + reserve + end

    def cost(n: int) -> float:
        evals = (n // times.step_evals_every) * times.step_eval_s if times.step_evals_every else 0.0
        return fixed + n * times.step_s + evals + _saves_s(times, n)

    affordable = largest_affordable(cost, budget.wall_s)
    if affordable == 0 and rounds > 1:
        left_s = budget.wall_s - times.setup_s - exit_s
        round_s = max(times.baseline_s, times.final_s) / rounds
        fewer = affordable_rounds(left_s, round_s, times.step_s, times.save_s, rounds)
        if fewer:
            share = fewer / rounds
            shorter = replace(
                times,
                baseline_s=share * times.baseline_s,
                final_s=share * times.final_s,
                report_s=0.0,
            )
            made = plan(shorter, budget, 1, exit_s=exit_s)
            return replace(made, affordable_steps=1, requested_steps=requested_steps)
        if times.setup_s + times.baseline_s + end > budget.wall_s:
            end = exit_s
    steps = affordable if requested_steps is None else min(affordable, requested_steps)
    evals_s = (steps // times.step_evals_every) * times.step_eval_s if times.step_evals_every else 0
    saves = _saves_s(times, steps)
    expected = times.setup_s + times.baseline_s + steps * times.step_s + evals_s + saves
    # Without an update the baseline is the final evaluation, and there is nothing to save.
    closing = times.final_s + times.save_s if steps else 0.0
    return Plan(
        budget_s=budget.wall_s,
        setup_s=times.setup_s,
        baseline_s=times.baseline_s,
        step_s=times.step_s,
        step_evals_s=evals_s,
        saves_s=saves,
        reserve_s=reserve,
        report_s=end,
        affordable_steps=affordable,
        requested_steps=requested_steps,
        total_s=expected + closing + end,
        usd_per_hour=budget.usd_per_hour,
        source=times.source,
    )


def affordable_rounds(
    left_s: float, round_s: float, step_s: float, save_s: float, wanted: int
) -> int:
    """Rounds of an evaluation that may be made before training and again after one update.

    Args:
        left_s: for both evaluations, the update and a checkpoint.
        round_s: one sample of every problem.
        step_s: the update.
        save_s: the checkpoint.
        wanted: the most that is asked for.

    Returns:
        0 where not even one round before and after leaves an update.
    """
    free = left_s - step_s - save_s
    if free < 0:
        return 0
    return wanted if round_s <= 0 else min(wanted, int(free / (round_s * (1 + RESERVE_FACTOR))))


def reserve_s(evaluation_s: float, save_s: float, growth: float = 1.0) -> float:
    """Seconds kept for the end: the evaluation, longer by `growth` and a margin, and a save."""
    return evaluation_s * max(1.0, growth) * RESERVE_FACTOR + save_s


def _saves_s(times: PhaseTimes, steps: int) -> float:
    return math.floor(steps * times.step_s / times.saves_every_s) * times.save_s


def largest_affordable(cost: Callable[[int], float], limit: float) -> int:
    """The largest n >= 0 with cost(n) <= limit; 0 also when nothing fits. `cost` never falls."""
    high = 1
    while cost(high) <= limit and high < 10**7:
        high *= 2
    low = 0
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= limit else (low, middle)
    return low


@dataclass(slots=True)
class Ledger:
    """What this run has paid: process life, summed over attempts.

    Args:
        budget: the limit.
        clock: monotonic seconds.
        started: the clock's reading when this attempt began to cost.
        paid_before_s: paid by earlier attempts.
        reserved_s: kept for what follows the worker (report, exit).
    """

    budget: Budget
    clock: Clock
    started: float
    paid_before_s: float = 0.0
    reserved_s: float = 0.0
    train_s: float = 0.0

    @property
    def elapsed_s(self) -> float:
        """Paid so far, over all attempts."""
        return self.paid_before_s + self.clock() - self.started

    @property
    def used_share(self) -> float:
        """Share of the budget that is paid, over all attempts."""
        return self.elapsed_s / self.budget.wall_s

    @property
    def deadline(self) -> float:
        """The clock's reading at which the worker must be gone."""
        return self.started + self.budget.wall_s - self.paid_before_s - self.reserved_s

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; may be negative."""
        return self.deadline - self.clock()

    def charge_training(self, seconds: float) -> None:
        """Count seconds as training (a part of the elapsed time)."""
        self.train_s += seconds

    def spend(self) -> Spend:
        """What was paid."""
        elapsed = self.elapsed_s
        return Spend(elapsed, self.train_s, self.budget.usd_of(elapsed))


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

    def observe(self, step_s: float, rollout_s: float, tokens_mean: float) -> None:
        """Note one finished update."""
        self.untrained = False
        self._steps.append((step_s, rollout_s))
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
    def expected_end_s(self) -> float:
        """What the end takes without a margin."""
        return (self.reserve_s - self.save_s) / RESERVE_FACTOR + self.save_s

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
