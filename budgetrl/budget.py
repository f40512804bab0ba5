"""Time and money: what a run may use, what that buys, what was paid and what is left.

    PhaseTimes --plan(times, budget)--> Plan            before a run: seconds become updates
    usd_of(seconds, usd_per_hour) --> dollars           nobody else multiplies by a price

What is paid and learned while a run lasts is in `ledger` and `forecast`. Everything is pure.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from budgetrl.errors import BudgetError, UsageError

if TYPE_CHECKING:
    from budgetrl.deadline import End
    from budgetrl.recipe.schema import Recipe

_HOUR_S = 3600.0

RESERVE_FACTOR = 1.3
"""Margin on the final evaluation: completions grow while a model learns (paper, Fig. 4)."""

BASELINE_SHARE = 0.4
"""Of what is left, for the evaluation before the first update: the end needs as much again."""

REPORT_FACTOR = 1.3
"""Margin on the report: a longer run has more to draw."""

EARLY_STEPS = 5
"""Updates after which a run's own pace corrects the plan's."""

MIN_UPDATES = 10
"""Fewer show nothing."""

EXIT_S = 1.0
"""Seconds between the end of the worker and the end of the supervisor, besides the report."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run may use: wall seconds, from process start to process end."""

    wall_s: float
    usd_per_hour: float | None = None
    usd: float | None = None
    """The limit in dollars, where one was given."""
    source: str = "recipe"
    """Who set it: "recipe", "command line" or "scheduler"."""

    def usd_of(self, seconds: float) -> float | None:
        """What seconds cost, if a price is known."""
        return usd_of(seconds, self.usd_per_hour)


@dataclass(frozen=True, slots=True)
class Limits:
    """What somebody allows to be used; None: nothing was said."""

    wall_s: float | None = None
    usd: float | None = None
    price: float | None = None
    """Dollars per hour."""
    end: "End | None" = None
    """When somebody else ends this process; it makes a budget shorter, never longer."""

    @classmethod
    def of(cls, recipe: "Recipe") -> "Limits":
        """What a recipe says."""
        said = recipe.budget
        wall_s = None if said.hours is None else said.hours * _HOUR_S
        return cls(wall_s, said.usd, said.usd_per_hour)

    @property
    def is_open(self) -> bool:
        """Whether neither time nor dollars are limited."""
        return self.wall_s is None and self.usd is None

    def budget(self, usd_per_hour: float | None) -> Budget | None:
        """The sooner of both limits at a price; None where neither is given.

        Raises:
            UsageError: dollars without a price.
        """
        limits = [] if self.wall_s is None else [self.wall_s]
        if self.usd is not None:
            if not usd_per_hour:
                raise UsageError(
                    "a limit in dollars needs the price of an hour, and none is known here.",
                    hint="Give a new run its price, such as --price 0.30, or limit the time.",
                )
            limits.append(self.usd / usd_per_hour * _HOUR_S)
        return Budget(min(limits), usd_per_hour, self.usd) if limits else None

    def budget_for(self, recipe: "Recipe", usd_per_hour: float | None) -> Budget | None:
        """These limits, else the recipe's: any of these replaces both of the recipe's.

        Raises:
            UsageError: dollars without a price.
        """
        budget = (Limits.of(recipe) if self.is_open else self).budget(usd_per_hour)
        if budget is not None and not self.is_open:
            budget = replace(budget, source="command line")
        return self.capped(budget, usd_per_hour, recipe.budget.grace_s)

    def capped(
        self, budget: Budget | None, usd_per_hour: float | None, grace_s: float, paid_s: float = 0.0
    ) -> Budget | None:
        """A budget that ends in time, where somebody else ends this process.

        Args:
            budget: of the run; None: no other limit.
            usd_per_hour: the price.
            grace_s: that is kept before that end.
            paid_s: by earlier attempts, whose time is over.

        Raises:
            BudgetError: that end is nearer than the grace.
        """
        if self.end is None:
            return budget
        left_s = self.end.wall_s - grace_s
        if left_s <= 0:
            raise BudgetError(
                f"{self.end.says}, and {grace_s:g} s are kept before it (budget.grace_s).",
                hint="Ask for a longer job.",
            )
        if budget is None:
            return Budget(paid_s + left_s, usd_per_hour, None, self.end.source)
        if budget.wall_s <= paid_s + left_s:
            return budget
        return replace(budget, wall_s=paid_s + left_s, source=self.end.source)


def usd_of(seconds: float | None, usd_per_hour: float | None) -> float | None:
    """What seconds cost; None where either is not known."""
    if seconds is None or usd_per_hour is None:
        return None
    return seconds / _HOUR_S * usd_per_hour


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


@dataclass(frozen=True, slots=True)
class Plan:
    """What a budget buys, before or during a run. All in seconds unless named otherwise."""

    budget_s: float
    setup_s: float
    baseline_s: float
    step_s: float
    step_evals_s: float
    """All evaluations during training together."""
    saves_s: float
    """All checkpoints during training together."""
    reserve_s: float
    """Kept for the end: final evaluation, last save."""
    report_s: float
    """Report and exit, after the worker's deadline."""
    affordable_steps: int
    """What the budget buys, not capped by the recipe's stop_after_steps."""
    requested_steps: int | None
    total_s: float
    """Expected wall time of the run, for the smaller of affordable and requested."""
    usd_per_hour: float | None
    source: str
    """Where the times come from, for people."""
    notes: tuple[str, ...] = ()
    stages: tuple["StagePlan", ...] = ()
    """One after the other, if the run has any."""

    @property
    def steps(self) -> int:
        """Updates that the plan expects to make."""
        if self.requested_steps is None:
            return self.affordable_steps
        return min(self.affordable_steps, self.requested_steps)

    @property
    def total_usd(self) -> float | None:
        """Expected bill, if a price is known."""
        return usd_of(self.total_s, self.usd_per_hour)

    def to_json(self) -> dict[str, Any]:
        """For readers of JSON, who want its sums too."""
        return asdict(self) | {"steps": self.steps, "total_usd": self.total_usd}


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What one stage of a run takes of the training time."""

    name: str
    kind: str
    step_s: float
    """One update, with its share of evaluations and checkpoints."""
    share: float | None
    """Of the time that is left when it begins."""
    requested: int | None
    """Updates that it is to make; None: as many as fit."""
    steps: int = 0
    """That it makes."""
    remark: str = ""

    @property
    def seconds(self) -> float:
        """All its updates."""
        return self.steps * self.step_s


def divided(left_s: float, stages: Sequence[StagePlan]) -> list[StagePlan]:
    """How stages divide the training time: what one does not use is the next one's.

    Args:
        left_s: training time of all of them.
        stages: as they are asked for.
    """
    made = []
    for stage in stages:
        room_s = left_s if stage.share is None else stage.share * left_s
        fitting = int(room_s / stage.step_s) if stage.step_s > 0 else 0
        steps = fitting if stage.requested is None else min(fitting, stage.requested)
        made.append(replace(stage, steps=steps))
        left_s -= steps * stage.step_s
    return made


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
