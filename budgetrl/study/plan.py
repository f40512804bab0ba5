"""How a study's budget is split, before a cent is spent.

    baseline once per model | a share for every arm | the study's report

`time` gives every arm the same seconds, `steps` the same number of updates. An arm pays for its
own setup, updates, final evaluation and report; only its model's first arm pays for the baseline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from budgetrl.budget import Budget, Limits, PhaseTimes, Plan, largest_affordable, plan
from budgetrl.errors import BudgetError
from budgetrl.evaluation.passk import t_quantile
from budgetrl.plan import Planned, budget_of, make_plan
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Recipe
from budgetrl.report.paper import SUITE_SIZES
from budgetrl.study.arms import ArmSpec, check_protocols
from budgetrl.study.feasibility import MIN_UPDATES
from budgetrl.units import duration, hours_option

Split = Literal["time", "steps"]

REPORT_S = 10.0
"""Kept for the study's own report, and as much again per ten arms."""


@dataclass(frozen=True, slots=True)
class PlannedArm:
    """One arm with its part of the budget."""

    spec: ArmSpec
    planned: Planned
    """With the arm's own budget, and no baseline where an earlier arm has it."""

    @property
    def budget_s(self) -> float:
        """Wall seconds of this arm."""
        return self.planned.budget.wall_s

    @property
    def plan(self) -> Plan:
        """What the arm's budget buys."""
        return self.planned.plan


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """All arms inside one budget."""

    budget: Budget
    arms: tuple[PlannedArm, ...]
    report_s: float

    @property
    def total_s(self) -> float:
        """Expected wall seconds."""
        return sum(arm.plan.total_s for arm in self.arms) + self.report_s

    def detectable(self) -> dict[str, float]:
        """By suite, the smallest difference in pass@1 that its evaluation tells from noise.

        For two results on the same P problems with n samples each, where only sampling differs:
        t(P - 1) sqrt(2 p (1 - p) / (n P)) at p = 0.5, the worst case. Seeds add to it.
        """
        recipe = self.arms[0].planned.recipe
        found = {}
        for spec in recipe.eval:
            problems = SUITE_SIZES.get(spec.suite) or _problems(spec.path)
            if problems and problems > 1:
                spread = math.sqrt(2 * 0.25 / (spec.rounds.expected(problems) * problems))
                found[spec.suite] = t_quantile(problems - 1) * spread
        return found


def plan_study(
    specs: Sequence[ArmSpec],
    limits: Limits,
    *,
    split: Split = "time",
    gpu: str | None = None,
    dry_run: bool = False,
) -> StudyPlan:
    """Split a budget over arms.

    Args:
        specs: the arms, in order.
        limits: of the whole study.
        split: equal seconds or equal updates for every arm.
        gpu: name of the GPU to plan for.
        dry_run: plan only, so the GPU need not be here.

    Raises:
        BudgetError: an arm would get fewer than `MIN_UPDATES`; says how many arms fit.
        UsageError, HardwareError: as `budgetrl.plan.make_plan`.
    """
    loaded = [spec.load() for spec in specs]
    check_protocols(loaded)
    alone = [make_plan(one, limits, gpu=gpu, dry_run=dry_run) for one in loaded]
    first_of = {one.recipe.model.id: i for i, one in reversed(list(enumerate(loaded)))}
    firsts = set(first_of.values())
    times = [
        made.times if i in firsts else replace(made.times, baseline_s=0.0)
        for i, made in enumerate(alone)
    ]
    budget = budget_of(loaded[0].recipe, limits, alone[0].card)
    report_s = REPORT_S * (1 + len(specs) / 10)
    share_s = budget.wall_s - report_s
    shared = _by_time if split == "time" else _by_steps
    parts = shared(times, [made.recipe for made in alone], share_s)
    arms = []
    for spec, made, own, (seconds, steps) in zip(specs, alone, times, parts, strict=True):
        if steps is not None:
            loaded_arm = spec.load(f"schedule.stop_after_steps={steps}")
        else:
            loaded_arm = made.loaded
        own_budget = replace(budget, wall_s=seconds, usd=None)
        requested = loaded_arm.recipe.schedule.stop_after_steps
        bought = plan(own, own_budget, requested)
        arms.append(PlannedArm(spec, Planned(loaded_arm, own_budget, own, bought, made.card)))
    least = min(arm.plan.steps for arm in arms)
    if least < MIN_UPDATES:
        raise _too_many(times, share_s, least, budget)
    return StudyPlan(budget, tuple(arms), report_s)


Parts = list[tuple[float, int | None]]
"""Seconds and, where they are the same for all, updates of every arm."""


def _by_time(times: Sequence[PhaseTimes], recipes: Sequence[Recipe], share_s: float) -> Parts:
    """Equal seconds besides the baselines."""
    each = (share_s - sum(own.baseline_s for own in times)) / len(times)
    return [(max(0.0, each) + own.baseline_s, None) for own in times]


def _by_steps(times: Sequence[PhaseTimes], recipes: Sequence[Recipe], share_s: float) -> Parts:
    """The largest number of updates that every arm can make; what is over widens all budgets."""
    wanted = [recipe.schedule.stop_after_steps or 10**6 for recipe in recipes]

    def costs(steps: int) -> list[float]:
        return [_cost_s(own, steps) for own in times]

    steps = min(*wanted, largest_affordable(lambda n: sum(costs(n)), share_s))
    needed = costs(steps)
    widened = max(1.0, share_s / sum(needed))
    return [(seconds * widened, steps) for seconds in needed]


def _cost_s(times: PhaseTimes, steps: int) -> float:
    """The least budget that pays for so many updates, with the reserve of `budget.plan`."""
    made = plan(times, Budget(math.inf), steps)
    return made.total_s - (times.final_s + times.save_s if steps else 0.0) + made.reserve_s


def _too_many(
    times: Sequence[PhaseTimes], share_s: float, least: int, budget: Budget
) -> BudgetError:
    """Says how many arms fit, and what all of them would need."""
    needed = [_cost_s(own, MIN_UPDATES) for own in times]
    fitting = max((n for n in range(1, len(needed) + 1) if sum(needed[:n]) <= share_s), default=0)
    all_s = (sum(needed) + budget.wall_s - share_s) * 1.05
    some = f"{fitting} of {len(times)} arms fit" if fitting else "not even one arm fits"
    return BudgetError(
        f"{duration(budget.wall_s)} give an arm only {least} updates, and fewer than {MIN_UPDATES} "
        f"show nothing; {some}.",
        hint=f"Give --hours {hours_option(all_s)}, or fewer arms with --ranks, --seeds or --alpha.",
    )


def _problems(path: str | None) -> int | None:
    """Lines of a local suite; None for suites on the hub."""
    if path is None:
        return None
    with open(local_path(path), encoding="utf-8") as file:
        return sum(bool(line.strip()) for line in file)


def plan_rows(made: StudyPlan) -> list[dict[str, Any]]:
    """One row per arm, for tables and JSON."""
    return [
        {
            "recipe": arm.planned.recipe.name,
            "rank": arm.spec.rank,
            "alpha": arm.planned.recipe.lora.resolved_alpha,
            "alpha_policy": arm.spec.alpha.value,
            "lora_scale": arm.planned.recipe.lora.scale,
            "seed": arm.spec.seed,
            "budget_s": arm.budget_s,
            "planned_steps": arm.plan.steps,
            "step_s": arm.plan.step_s,
            "expected_s": arm.plan.total_s,
            "expected_usd": arm.plan.total_usd,
        }
        for arm in made.arms
    ]
