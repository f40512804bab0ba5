"""How the budget of a sweep is split over its trials, before a cent is spent.

    on each card:  baseline once per model | a share for every trial | the sweep's report

`time` gives every trial the same seconds, `steps` the same number of updates; under `asha` all
begin with few updates and the best go on. A trial pays for its own setup, updates, final
evaluation and report; only the first on each card pays for its model's baseline. Every card is
paid for as long as the sweep lasts: seconds are those of all cards together, wall seconds are not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from budgetrl.budget import (
    MIN_UPDATES,
    Budget,
    Limits,
    PhaseTimes,
    Plan,
    largest_affordable,
    plan,
)
from budgetrl.errors import BudgetError, UsageError
from budgetrl.evaluation.passk import t_quantile
from budgetrl.plan import Planned, budget_of, make_plan, replanned
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Recipe
from budgetrl.report.paper import SUITE_SIZES
from budgetrl.study.asha import ETA, reaching, rungs_of
from budgetrl.study.specs import TrialSpec, baseline_key, check_protocols
from budgetrl.units import duration, hours_option

Split = Literal["time", "steps", "asha"]

REPORT_S = 10.0
"""Kept for the sweep's own report, and as much again per ten trials."""
SEED_SPREAD = 0.05
"""Standard deviation between seeds: the least of 5 to 15 points on AIME24 (arXiv 2504.07086)."""


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """One trial with its part of the budget."""

    spec: TrialSpec
    planned: Planned
    """With the trial's own budget, and no baseline where an earlier trial has it."""

    @property
    def budget_s(self) -> float:
        """Wall seconds of this trial."""
        return self.planned.budget.wall_s

    @property
    def plan(self) -> Plan:
        """What the trial's budget buys."""
        return self.planned.plan


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """All trials inside one budget."""

    budget: Budget
    trials: tuple[PlannedTrial, ...]
    report_s: float
    slots: int = 1
    """Cards, or cores, that work at the same time."""
    rungs: tuple[int, ...] = ()
    """Of ASHA."""

    @property
    def wall_s(self) -> float:
        """Expected wall seconds."""
        ends = [0.0] * self.slots
        for seconds in self._parts_s():
            ends[ends.index(min(ends))] += seconds
        return max(ends) + self.report_s

    @property
    def total_s(self) -> float:
        """Expected seconds of all cards."""
        return self.slots * self.wall_s

    def _parts_s(self) -> list[float]:
        """What is run one after another, in order."""
        if not self.rungs:
            return [trial.plan.total_s for trial in self.trials]
        times = [trial.planned.times for trial in self.trials]
        return [
            seconds
            for level, of_rung in enumerate(_rung_costs(times, self.rungs))
            for seconds in sorted(of_rung)[-reaching(len(times), level) :]
        ]

    def detectable(self) -> dict[str, float]:
        """By suite, the smallest difference in pass@1 that its evaluation tells from noise.

        For two points on the same P problems with n samples each and s seeds, where only sampling
        differs: t(P - 1) sqrt(2 p (1 - p) / (n P s)) at p = 0.5, the worst case.
        """
        recipe, seeds = self.trials[0].planned.recipe, self.seeds
        found = {}
        for spec in recipe.eval:
            problems = SUITE_SIZES.get(spec.suite) or _problems(spec.path)
            if problems and problems > 1:
                rounds = spec.rounds.expected(problems) * seeds
                spread = math.sqrt(2 * 0.25 / (rounds * problems))
                found[spec.suite] = t_quantile(problems - 1) * spread
        return found

    @property
    def seeds(self) -> int:
        """Of every point."""
        return len({trial.spec.seed for trial in self.trials})

    def detectable_over_seeds(self) -> float | None:
        """The same where seeds spread by `SEED_SPREAD`: t(2 s - 2) sd sqrt(2 / s); None for one."""
        if self.seeds < 2:
            return None
        return t_quantile(2 * self.seeds - 2) * SEED_SPREAD * math.sqrt(2 / self.seeds)


def plan_sweep(
    specs: Sequence[TrialSpec],
    limits: Limits,
    *,
    split: Split = "time",
    gpu: str | None = None,
    dry_run: bool = False,
    slots: int = 1,
    mixed: bool = False,
) -> SweepPlan:
    """Split a budget over trials.

    Args:
        specs: the trials, in order.
        limits: of the whole sweep, over all cards.
        split: equal seconds or equal updates for every trial, or ASHA.
        gpu: name of the GPU to plan for.
        dry_run: plan only, so the GPU need not be here.
        slots: cards or cores that work at the same time.
        mixed: protocols may differ.

    Raises:
        BudgetError: a trial would get fewer than `MIN_UPDATES`; says how many trials fit.
        UsageError, RefusedError, HardwareError: as `budgetrl.plan.make_plan`; or protocols differ.
    """
    loaded = [spec.load() for spec in specs]
    if not mixed:
        check_protocols(loaded)
    of_point: dict[tuple[str, tuple[str, ...]], Planned] = {}  # a seed changes no plan
    for spec, one in zip(specs, loaded, strict=True):
        if (spec.recipe, spec.sets) not in of_point:
            planned = make_plan(one, limits, gpu=gpu, dry_run=dry_run)
            of_point[spec.recipe, spec.sets] = planned
    alone = [
        replace(of_point[spec.recipe, spec.sets], loaded=one)
        for spec, one in zip(specs, loaded, strict=True)
    ]
    recipes, slots = [made.recipe for made in alone], min(slots, len(specs))
    keys = [baseline_key(recipe) for recipe in recipes]
    times = [
        made.times if keys[:i].count(keys[i]) < slots else replace(made.times, baseline_s=0.0)
        for i, made in enumerate(alone)
    ]
    budget = budget_of(recipes[0], limits, alone[0].card)
    report_s = REPORT_S * (1 + len(specs) / 10)
    share_s = budget.wall_s / slots - report_s
    rungs: tuple[int, ...] = ()
    if split == "time":
        parts = _by_time(times, share_s, slots)
    elif split == "steps":
        parts = _by_steps(times, recipes, share_s, slots)
    else:
        rungs, parts = _by_merit(times, recipes, share_s * slots)
    trials = []
    for spec, made, own, (seconds, steps) in zip(specs, alone, times, parts, strict=True):
        if steps is not None:
            made = replace(made, loaded=spec.load(f"schedule.stop_after_steps={steps}"))
        own_budget = replace(budget, wall_s=seconds, usd=None)
        trials.append(PlannedTrial(spec, replanned(made, own_budget, own)))
    least = min(trial.plan.steps for trial in trials)
    asked = min(recipe.schedule.stop_after_steps or MIN_UPDATES for recipe in recipes)
    if least < min(MIN_UPDATES, asked):
        raise _too_many(times, share_s * slots, least, budget)
    return SweepPlan(budget, tuple(trials), report_s, slots, rungs)


Parts = list[tuple[float, int | None]]
"""Seconds and, where they are the same for all, updates of every trial."""


def _by_time(times: Sequence[PhaseTimes], share_s: float, slots: int) -> Parts:
    """Equal seconds besides the baselines."""
    longest = max(sum(own.baseline_s for own in times[i::slots]) for i in range(slots))
    each = (share_s - longest) / math.ceil(len(times) / slots)
    return [(max(0.0, each) + own.baseline_s, None) for own in times]


def _by_steps(
    times: Sequence[PhaseTimes], recipes: Sequence[Recipe], share_s: float, slots: int
) -> Parts:
    """The largest number of updates that every trial can make; what is over widens all budgets."""
    wanted = [recipe.schedule.stop_after_steps or 10**6 for recipe in recipes]

    def costs(steps: int) -> list[float]:
        return [_cost_s(own, steps) for own in times]

    def longest(steps: int) -> float:
        made = costs(steps)
        return max(sum(made[i::slots]) for i in range(slots))

    steps = min(*wanted, largest_affordable(longest, share_s))
    widened = max(1.0, share_s / longest(steps))
    return [(seconds * widened, steps) for seconds in costs(steps)]


def _by_merit(
    times: Sequence[PhaseTimes], recipes: Sequence[Recipe], share_s: float
) -> tuple[tuple[int, ...], Parts]:
    """The rungs of the longest whole run with which ASHA fits.

    Raises:
        UsageError: nothing can be chosen early, or the learning rate follows the money.
    """
    if any(recipe.schedule.by == "budget" for recipe in recipes):
        raise UsageError(
            '--asha judges trials by updates, and schedule.by = "budget" makes them differ.',
            hint='Set schedule.by = "steps", or leave --asha out.',
        )
    if any(len(recipe.stages) > 1 for recipe in recipes):
        raise UsageError(
            "--asha counts the updates of one stage, and the recipe has several.",
            hint="Leave --asha out: every trial is run through all stages.",
        )
    wanted = [recipe.schedule.stop_after_steps or 10**6 for recipe in recipes]

    def cost(steps: int) -> float:
        by_rung = _rung_costs(times, rungs_of(steps, len(times)))
        return sum(
            sum(sorted(of_rung)[-reaching(len(times), level) :])
            for level, of_rung in enumerate(by_rung)
        )

    steps = min(*wanted, largest_affordable(cost, share_s))
    rungs = rungs_of(max(1, steps), len(times))
    if len(rungs) < 2:
        raise UsageError(
            f"--asha: {len(times)} trials of {steps} updates have nothing to choose from early.",
            hint=f"Give at least {ETA} trials of more than {2 * ETA} updates, or leave it out.",
        )
    whole = [sum(parts) for parts in zip(*_rung_costs(times, rungs), strict=True)]
    return rungs, [(seconds, steps) for seconds in whole]


def _rung_costs(times: Sequence[PhaseTimes], rungs: Sequence[int]) -> list[list[float]]:
    """Seconds of every trial's part of the way to each rung: it loads and is judged each time."""
    found, done = [], 0
    for rung in rungs:
        found.append(
            [
                _cost_s(own if done == 0 else replace(own, baseline_s=0.0), rung - done)
                for own in times
            ]
        )
        done = rung
    return found


def _cost_s(times: PhaseTimes, steps: int) -> float:
    """The least budget that pays for so many updates, with the reserve of `budget.plan`."""
    made = plan(times, Budget(math.inf), steps)
    return made.total_s - (times.final_s + times.save_s if steps else 0.0) + made.reserve_s


def _too_many(
    times: Sequence[PhaseTimes], share_s: float, least: int, budget: Budget
) -> BudgetError:
    """Says how many trials fit, and what all of them would need."""
    needed = [_cost_s(own, MIN_UPDATES) for own in times]
    fitting = max((n for n in range(1, len(needed) + 1) if sum(needed[:n]) <= share_s), default=0)
    all_s = (sum(needed) + budget.wall_s - share_s) * 1.05
    some = f"{fitting} of {len(times)} arms fit" if fitting else "not even one arm fits"
    return BudgetError(
        f"{duration(budget.wall_s)} give an arm only {least} updates, and fewer than {MIN_UPDATES} "
        f"show nothing; {some}.",
        hint=f"Give --hours {hours_option(all_s)}, or fewer arms: values or seeds.",
    )


def _problems(path: str | None) -> int | None:
    """Lines of a local suite; None for suites on the hub."""
    if path is None:
        return None
    with open(local_path(path), encoding="utf-8") as file:
        return sum(bool(line.strip()) for line in file)


def plan_rows(made: SweepPlan) -> list[dict[str, Any]]:
    """One row per trial, for tables and JSON."""
    return [
        {
            "index": index,
            "values": dict(arm.spec.values),
            "recipe": arm.planned.recipe.name,
            "rank": arm.planned.recipe.lora.rank,
            "alpha": None
            if arm.planned.recipe.lora.is_full
            else arm.planned.recipe.lora.resolved_alpha,
            "alpha_policy": arm.planned.recipe.lora.alpha_policy.value,
            "lora_scale": arm.planned.recipe.lora.scale,
            "seed": arm.spec.seed,
            "budget_s": arm.budget_s,
            "planned_steps": arm.plan.steps,
            "step_s": arm.plan.step_s,
            "expected_s": arm.plan.total_s,
            "expected_usd": arm.plan.total_usd,
        }
        for index, arm in enumerate(made.trials)
    ]
