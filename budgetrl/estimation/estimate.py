"""`estimate`: a recipe and a GPU in, everything worth knowing before paying out.

    e = estimate(recipe, find_gpu("A40"), Budget(24 * 3600, 0.30))
    e.memory.verdict, e.affordable_steps, e.usd, e.total_band

Pure and fast (about a millisecond); no torch, no network, no GPU. Every total has a band: 80 % of
the seeded draws of the constants' ranges lie in it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

from budgetrl.budget import Budget, PhaseTimes, Plan, plan, usd_of
from budgetrl.estimation.cpu_memory import cpu_memory
from budgetrl.estimation.disk import Disk, disk_of
from budgetrl.estimation.memory import MemoryEstimate, Verdict
from budgetrl.estimation.phases import Phases, make_phases, with_measured
from budgetrl.estimation.scenario import Scenario, make_scenario, memory_of
from budgetrl.estimation.terms import BAND, DRAWS, Band, quantiles
from budgetrl.files import parse_json
from budgetrl.hardware import Gpu, Price
from budgetrl.phases import ONCE
from budgetrl.recipe.schema import Recipe

PROFILE_SCHEMA_VERSION = 1

_NO_LIMIT_S = 1e15
"""Stands for "as long as it takes" where only a number of updates is asked for."""


_LEAST_FACTOR = 1e-3
"""A measured time is not further from its prediction than a factor of a thousand."""


class Measured(NamedTuple):
    """What a real run took over what was predicted for it, by phase."""

    factors: Mapping[str, float]
    source: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a recipe needs on one GPU, and what a budget buys there."""

    scenario: Scenario
    memory: MemoryEstimate
    disk: Disk
    phases: Phases
    times: PhaseTimes
    plan: Plan
    """For the budget; without one, for the requested updates."""
    budget: Budget | None
    price: Price | None
    requested_steps: int | None
    """`steps` of the caller, else stop_after_steps."""
    affordable_steps: int | None
    """What the budget buys, not capped; None without a budget."""
    affordable_band: Band | None
    step_band: Band
    """Seconds of one update."""
    total_band: Band
    """Seconds of the run."""

    @property
    def fits(self) -> bool:
        """Whether the GPU can run the recipe."""
        return self.memory.verdict is not Verdict.NO

    @property
    def usd(self) -> float | None:
        """Expected bill."""
        return self.usd_of(self.plan.total_s)

    def usd_of(self, seconds: float) -> float | None:
        """What seconds cost here, if a price is known."""
        return usd_of(seconds, self.price.usd_per_hour if self.price else None)

    @property
    def steps(self) -> int:
        """Updates that the totals are for."""
        return self.plan.steps

    @property
    def steps_per_usd(self) -> float | None:
        """Updates that a dollar buys, setup and evaluations included."""
        return self.steps / self.usd if self.usd else None

    @property
    def tokens_per_step(self) -> float:
        """Tokens generated for one update."""
        scenario = self.scenario
        count = scenario.recipe.completions_per_step * scenario.rollout_factor
        return count * scenario.lengths().mean

    @property
    def evaluation_s(self) -> float:
        """All evaluations of the run together."""
        return self.plan.baseline_s + self.plan.step_evals_s + self.times.final_s


def estimate(
    recipe: Recipe,
    gpu: Gpu,
    budget: Budget | None = None,
    *,
    steps: int | None = None,
    price: Price | None = None,
    measured: Measured | None = None,
    download_bytes: float | None = None,
) -> Estimate:
    """What a recipe needs on a GPU and what a budget buys there.

    Args:
        recipe: resolved.
        gpu: a row of the table.
        budget: wall seconds; None: only the time and price of the updates.
        steps: plan for this many updates, whatever the budget.
        price: of an hour.
        measured: factors of a real run, see `profile.measured_factors`.
        download_bytes: what of the hub is not on this machine yet; None: as much as the weights.

    Raises:
        ModelError: the model's shape is unknown.
        RecipeError: prompt and completion do not fit the model's window.
    """
    scenario = make_scenario(recipe, gpu, download_bytes=download_bytes)
    memory = memory_of(scenario)
    phases = make_phases(scenario, memory)
    if measured is not None:
        phases = with_measured(phases, measured.factors, measured.source)
    return _assemble(phases, memory, budget, steps, price)


def estimate_cpu(
    phases: Phases,
    budget: Budget | None = None,
    *,
    steps: int | None = None,
    price: Price | None = None,
) -> Estimate:
    """The same for a CPU recipe, from its phases (`cpu_profile.planned_phases`)."""
    return _assemble(phases, cpu_memory(phases.scenario), budget, steps, price)


def known_factors(recipe: Recipe, gpu: Gpu, cache_dir: Path) -> Measured | None:
    """What was measured on this GPU: by the user (this recipe first), else what ships; or None."""
    own = gpu_profile_path(gpu, recipe.name, cache_dir)
    try:
        others = own.parent.glob(gpu_profile_path(gpu, "*", cache_dir).name)
        found = [file for file in others if file.is_file()]
        newest_first = sorted(found, key=lambda file: -file.stat().st_mtime)
    except OSError:  # a cache that cannot be read is as good as none
        newest_first = []
    for file in [own, *newest_first]:
        factors = _read_factors(file, gpu, "`budgetrl bench`")
        if factors is not None:
            return factors
    return bundled_factors(gpu)


def gpu_profile_path(gpu: Gpu, recipe: str, cache_dir: Path) -> Path:
    """Where the profile that a user measured is kept."""
    words = [re.sub(r"[^A-Za-z0-9.*]+", "-", text) for text in (gpu.name, recipe)]
    return cache_dir / "profiles" / f"gpu-{'--'.join(words)}.json"


@cache
def bundled_factors(gpu: Gpu) -> Measured | None:
    """Factors that were measured on this GPU and ship with budgetrl; None where none are."""
    folder = resources.files("budgetrl").joinpath("assets/profiles")
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith("gpu-") and entry.name.endswith(".json"):
            factors = _read_factors(entry, gpu, "bundled profile")
            if factors is not None:
                return factors
    return None


def _read_factors(file: Traversable, gpu: Gpu, whose: str) -> Measured | None:
    """The factors of a profile; None if it is of another GPU or version, cut short or absurd."""
    try:
        profile = parse_json(file.read_text(encoding="utf-8"))
        if profile["schema_version"] != PROFILE_SCHEMA_VERSION or profile["gpu"] != gpu.name:
            return None
        what = f"{profile['recipe']} on {gpu.name}, {profile['measured']}"
        factors = {phase: float(factor) for phase, factor in profile["factors"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    if not all(_LEAST_FACTOR <= factor <= 1 / _LEAST_FACTOR for factor in factors.values()):
        return None
    return Measured(factors, f"{whose} of {what}")


def _assemble(
    phases: Phases,
    memory: MemoryEstimate,
    budget: Budget | None,
    steps: int | None,
    price: Price | None,
) -> Estimate:
    scenario = phases.scenario
    requested = steps if steps is not None else scenario.recipe.schedule.stop_after_steps
    free = steps is not None or budget is None
    within = Budget(_NO_LIMIT_S) if free or budget is None else budget
    if free and requested is None:
        requested = 0
    limit = budget.wall_s if budget is not None else None
    times = _times(phases, limit, requested)
    made = plan(times, within, requested)
    cheap, costly = _ends(phases, requested)
    ends = [phases.times(limit, requested, draw) for draw in (cheap, costly)]
    totals = [plan(end, within, requested).total_s for end in ends]
    affordable = None
    band = None
    if budget is not None:
        affordable = plan(times, budget).affordable_steps
        counts = [plan(end, budget).affordable_steps for end in ends]
        band = Band(min(*counts, affordable), max(*counts, affordable))
    return Estimate(
        scenario=scenario,
        memory=memory,
        disk=disk_of(scenario, phases, made.steps),
        phases=phases,
        times=times,
        plan=made,
        budget=budget,
        price=price,
        requested_steps=requested,
        affordable_steps=affordable,
        affordable_band=band,
        step_band=quantiles(phases.step_draws),
        total_band=Band(min(*totals, made.total_s), max(*totals, made.total_s)),
    )


def _times(phases: Phases, budget_s: float | None, steps: int | None) -> PhaseTimes:
    """Phase times; the interval of evaluations at fractions follows from what is affordable."""
    expected = steps or phases.scenario.recipe.schedule.stop_after_steps
    if expected is None and budget_s is not None:
        rough = phases.times(budget_s)
        expected = plan(rough, Budget(budget_s)).affordable_steps
    return phases.times(budget_s, expected or None)


def _ends(phases: Phases, steps: int | None) -> tuple[int, int]:
    """The draws at the cheap and the costly end of the band, by the cost of the whole run."""
    count = steps or 100
    pairs = zip(phases.summed(ONCE), phases.step_draws, strict=True)
    costs = [once + count * step for once, step in pairs]
    order = sorted(range(DRAWS), key=costs.__getitem__)
    tail = round((1 - BAND) / 2 * (DRAWS - 1))
    return order[tail], order[DRAWS - 1 - tail]
