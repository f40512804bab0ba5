"""How the budget of a sweep is split over its trials, before a cent is spent.

    on each card:  baseline once per model | a share for every trial | the sweep's report

`time` gives every trial the same seconds, `steps` the same number of updates; under `asha` all
begin with few updates and the best go on. A trial pays for its own setup, updates, final
evaluation and report; only the first on each card pays for its model's baseline. Every card is
paid for as long as the sweep lasts: seconds are those of all cards together, wall seconds are not.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from budgetrl.budget import MIN_UPDATES, Budget, Limits, PhaseTimes, largest_affordable, plan
from budgetrl.errors import BudgetError, UsageError
from budgetrl.estimation.scenario import expected_samples, suite_problems
from budgetrl.evaluation.passk import detectable_difference, detectable_over_seeds
from budgetrl.plan import Planned, budget_of, make_plan, replanned
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.suites import SUITES
from budgetrl.study.asha import ETA, reaching, rungs_of
from budgetrl.study.specs import Asked, TrialSpec, baseline_key, check_protocols
from budgetrl.study.state import Share, Sweep, Trial
from budgetrl.units import duration, hours_option

REPORT_S = 10.0
"""Kept for the sweep's own report, and as much again per ten trials."""
SEED_SPREAD = 0.05
"""Standard deviation between seeds: the least of 5 to 15 points on AIME24 (arXiv 2504.07086)."""


def plan_sweep(
    asked: Asked,
    specs: Sequence[TrialSpec],
    limits: Limits,
    *,
    gpu: str | None = None,
    dry_run: bool = False,
    slots: int = 1,
) -> Sweep:
    """Split a budget over trials.

    Args:
        asked: what the trials are made from, and how the budget is split.
        specs: the trials, in order.
        limits: of the whole sweep, over all cards.
        gpu: name of the GPU to plan for.
        dry_run: plan only, so the GPU need not be here.
        slots: cards or cores that work at the same time.

    Raises:
        BudgetError: a trial would get fewer than `MIN_UPDATES`; says how many trials fit.
        UsageError, RefusedError, HardwareError: as `budgetrl.plan.make_plan`; or protocols differ.
    """
    points = {(spec.recipe, spec.sets): spec.load() for spec in specs}  # a seed changes no plan
    if asked.comparable:
        check_protocols(list(points.values()))
    made = {
        point: make_plan(loaded, limits, gpu=gpu, dry_run=dry_run)
        for point, loaded in points.items()
    }
    alone = [made[spec.recipe, spec.sets] for spec in specs]
    recipes, slots = [one.recipe for one in alone], min(slots, len(specs))
    keys = [baseline_key(recipe) for recipe in recipes]
    times = [
        one.times if keys[:i].count(keys[i]) < slots else replace(one.times, baseline_s=0.0)
        for i, one in enumerate(alone)
    ]
    budget = budget_of(recipes[0], limits, alone[0].card)
    report_s = REPORT_S * (1 + len(specs) / 10)
    share_s = budget.wall_s / slots - report_s
    rungs: tuple[int, ...] = ()
    if asked.split == "time":
        parts = _by_time(times, share_s, slots)
    else:
        rungs, parts = _by_steps(times, recipes, share_s, slots, asha=asked.split == "asha")
    trials = []
    for spec, one, own, (seconds, steps) in zip(specs, alone, times, parts, strict=True):
        if steps is not None:
            spec = replace(spec, sets=(*spec.sets, f"schedule.stop_after_steps={steps}"))
            one = replace(one, loaded=spec.load())
        own_budget = replace(budget, wall_s=seconds, usd=None)
        trials.append(Trial(spec, _share(replanned(one, own_budget, own))))
    least = min(trial.row.planned_steps for trial in trials)
    wanted = min(recipe.schedule.stop_after_steps or MIN_UPDATES for recipe in recipes)
    if least < min(MIN_UPDATES, wanted):
        raise _too_many(times, share_s * slots, least, budget)
    runs_s = _in_rungs(times, rungs) if rungs else [trial.row.expected_s for trial in trials]
    return Sweep(
        config=asked,
        budget=budget,
        arms=trials,
        report_s=report_s,
        detectable=_detectable(recipes[0], asked.seeds),
        detectable_over_seeds=detectable_over_seeds(asked.seeds, SEED_SPREAD),
        rungs=rungs,
        slots=slots,
        wall_s=_one_after_another(runs_s, slots) + report_s,
        source=alone[0].plan.source,
    )


def _share(planned: Planned) -> Share:
    recipe, made = planned.recipe, planned.plan
    lora = recipe.lora
    return Share(
        recipe=recipe.name,
        rank=lora.rank,
        lora_scale=lora.scale,
        budget_s=planned.budget.wall_s,
        planned_steps=made.steps,
        expected_s=made.total_s,
        expected_usd=made.total_usd,
        step_s=made.step_s,
        baseline_s=planned.times.baseline_s,
        alpha=None if lora.is_full else lora.resolved_alpha,
        alpha_policy=lora.alpha_policy.value,
    )


def _one_after_another(runs_s: Sequence[float], slots: int) -> float:
    """Wall seconds until the last card is done, each taking the next run when it is free."""
    ends = [0.0] * slots
    for seconds in runs_s:
        ends[ends.index(min(ends))] += seconds
    return max(ends)


def _detectable(recipe: Recipe, seeds: int) -> dict[str, float]:
    """By suite, where its size is known."""
    known = [(e, suite_problems(e)) for e in recipe.eval if e.path or e.suite in SUITES]
    return {
        e.suite: detectable_difference(n, expected_samples(e) * seeds) for e, n in known if n > 1
    }


Parts = list[tuple[float, int | None]]
"""Seconds and, where they are the same for all, updates of every trial."""


def _by_time(times: Sequence[PhaseTimes], share_s: float, slots: int) -> Parts:
    """Equal seconds besides the baselines."""
    longest = max(sum(own.baseline_s for own in times[i::slots]) for i in range(slots))
    each = (share_s - longest) / math.ceil(len(times) / slots)
    return [(max(0.0, each) + own.baseline_s, None) for own in times]


def _by_steps(
    times: Sequence[PhaseTimes],
    recipes: Sequence[Recipe],
    share_s: float,
    slots: int,
    *,
    asha: bool,
) -> tuple[tuple[int, ...], Parts]:
    """The largest number of updates that every trial can make, or the best of them under ASHA.

    What is over widens the budgets of trials that all run to their end.

    Raises:
        UsageError: ASHA could choose nothing early, or the learning rate follows the money.
    """
    if asha:
        _refuse_asha(recipes)
    wanted = [recipe.schedule.stop_after_steps or 10**6 for recipe in recipes]

    def rungs(steps: int) -> tuple[int, ...]:
        return rungs_of(steps, len(times)) if asha else (steps,)

    def wall_s(steps: int) -> float:
        return _one_after_another(_in_rungs(times, rungs(steps)), slots)

    steps = min(*wanted, largest_affordable(wall_s, share_s))
    chosen = rungs(max(1, steps))
    if asha and len(chosen) < 2:
        raise UsageError(
            f"--asha: {len(times)} trials of {steps} updates have nothing to choose from early.",
            hint=f"Give at least {ETA} trials of more than {2 * ETA} updates, or leave it out.",
        )
    widened = 1.0 if asha else max(1.0, share_s / wall_s(steps))
    whole = [sum(parts) for parts in zip(*_rung_costs(times, chosen), strict=True)]
    return chosen if asha else (), [(seconds * widened, steps) for seconds in whole]


def _refuse_asha(recipes: Sequence[Recipe]) -> None:
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


def _in_rungs(times: Sequence[PhaseTimes], rungs: Sequence[int]) -> list[float]:
    """Seconds of what is run one after another, were it the dearest trials that go on."""
    found: list[float] = []
    for level, of_rung in enumerate(_rung_costs(times, rungs)):
        by_cost = sorted(range(len(times)), key=of_rung.__getitem__)
        found += [of_rung[index] for index in sorted(by_cost[-reaching(len(times), level) :])]
    return found


def _rung_costs(times: Sequence[PhaseTimes], rungs: Sequence[int]) -> list[list[float]]:
    """Seconds of every trial's part of the way to each rung: it loads and is judged each time."""
    found = [[_cost_s(own, rungs[0]) for own in times]]
    for done, rung in pairwise(rungs):
        found.append([_cost_s(replace(own, baseline_s=0.0), rung - done) for own in times])
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
