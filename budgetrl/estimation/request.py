"""From names and flags to an estimate: which GPU, which price, which budget, which profile.

answer(Request(recipe, gpu="A40", limits=Limits(wall_s)))     one Estimate
answer_all(Request(recipe, limits=Limits(wall_s)))            one per GPU of the table
"""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from budgetrl.budget import Budget, Limits
from budgetrl.errors import UsageError
from budgetrl.estimation.cpu_profile import phases_by_run, planned_phases
from budgetrl.estimation.estimate import (
    Estimate,
    Measured,
    estimate,
    estimate_cpu,
    known_factors,
)
from budgetrl.estimation.machine import user_cache_dir
from budgetrl.estimation.stages import in_stages, stages_on
from budgetrl.hardware import Gpu, Price, detect_gpu, find_gpu, gpu_table
from budgetrl.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for; None: not said."""

    recipe: Recipe
    gpu: str | None = None
    """Name, alias, or path of a .json file."""
    limits: Limits = field(default_factory=Limits)
    steps: int | None = None
    from_run: str | None = None


def answer(request: Request) -> Estimate:
    """The estimate for one GPU, or for this machine's processor.

    Raises:
        UsageError: unknown GPU, no GPU named, dollars without a price, nothing to plan for.
        ModelError, RecipeError, RunDirError: see `estimate` and `profile`.
    """
    recipe = request.recipe
    if recipe.engine.device == "cpu" and request.gpu is None:
        return _answer_cpu(request)
    return _answer_gpu(_on_gpu(request), choose_gpu(recipe, request.gpu))


def answer_all(request: Request) -> list[Estimate]:
    """Estimates for all GPUs of the table, in its order.

    Raises:
        UsageError: a limit in dollars without --price where a GPU has no price.
    """
    on_gpu = _on_gpu(request)
    priced = [
        gpu
        for gpu in gpu_table().values()
        if request.limits.usd is None
        or price_of(on_gpu.recipe, gpu, request.limits.price) is not None
    ]
    return [_answer_gpu(on_gpu, gpu) for gpu in priced]


def choose_gpu(recipe: Recipe, name: str | None) -> Gpu:
    """The GPU that was named, else the recipe's, else the one in this machine.

    Raises:
        UsageError: unknown, or nothing says which.
    """
    wanted = name if name is not None else recipe.budget.gpu
    if wanted is not None:
        return find_gpu(wanted)
    found = detect_gpu()
    if found is not None and found.gpu is not None:
        return found.gpu
    raise UsageError(
        f"recipe {recipe.name} names no GPU, and none of this machine is known.",
        hint="Name one with --gpu A40, or compare all with --all-gpus.",
    )


def price_of(recipe: Recipe, gpu: Gpu | None, override: float | None = None) -> Price | None:
    """The price of an hour: the flag's, the recipe's for its own GPU, else a published one.

    Of a CPU (no GPU) it is the flag's or the recipe's.
    """
    if override is not None:
        return Price(override, "command line", "")
    stated = recipe.budget.usd_per_hour
    if stated is not None and (gpu is None or _is_planned_gpu(recipe, gpu)):
        return Price(stated, f"recipe {recipe.name}", "")
    return None if gpu is None else gpu.price()


def _on_gpu(request: Request) -> Request:
    """A CPU recipe for which a GPU is named is planned as it would run there."""
    if request.recipe.engine.device == "cpu":
        return replace(request, recipe=request.recipe.but({"engine.device": "cuda"}))
    return request


def _answer_gpu(request: Request, gpu: Gpu) -> Estimate:
    price = price_of(request.recipe, gpu, request.limits.price)
    budget = _budget_of(request, price)
    measured = _measured(request, gpu)
    made = estimate(
        request.recipe, gpu, budget, steps=request.steps, price=price, measured=measured
    )
    if request.steps:
        return made
    by_run = None
    if request.from_run is not None:
        by_run = partial(estimate, gpu=gpu, measured=measured)
    return in_stages(made, stages_on(request.recipe, gpu, by_run))


def _answer_cpu(request: Request) -> Estimate:
    recipe = request.recipe
    price = price_of(recipe, None, request.limits.price)
    budget = _budget_of(request, price)
    phases_of = partial(planned_phases, cache_dir=user_cache_dir())
    if request.from_run is not None:
        from budgetrl.estimation.profile import from_run

        other, times, _ = from_run(request.from_run)
        if other.engine.device != "cpu":
            raise UsageError(
                f"--from-run {request.from_run}: a run on a GPU says nothing about a CPU.",
                hint="Name the GPU with --gpu, or give a run on this CPU.",
            )
        phases_of = partial(phases_by_run, other=other, times=times)
    made = estimate_cpu(phases_of(recipe), budget, steps=request.steps, price=price)
    if request.steps:
        return made
    return in_stages(made, stages_on(recipe, None, lambda part: estimate_cpu(phases_of(part))))


def _measured(request: Request, gpu: Gpu) -> Measured | None:
    if request.from_run is None:
        return known_factors(request.recipe, gpu, user_cache_dir())
    # Not at the top: reading runs brings all event models, and most estimates read none.
    from budgetrl.estimation.profile import run_factors

    return run_factors(request.from_run)


def _budget_of(request: Request, price: Price | None) -> Budget | None:
    """The budget asked for, else the recipe's; None where updates are counted instead.

    Raises:
        UsageError: dollars without a price, or nothing to plan for.
    """
    budget = request.limits.budget_for(request.recipe, price.usd_per_hour if price else None)
    steps = request.steps
    if steps is not None and steps < 1:
        raise UsageError(f"--steps {steps}: must be at least 1.")
    stop = request.recipe.schedule.stop_after_steps
    if budget is None and steps is None and stop is None:
        raise UsageError(
            f"recipe {request.recipe.name} has neither a budget nor a number of updates.",
            hint="Say what to plan for: --hours 24, --usd 7, or --steps 300.",
        )
    return budget


def _is_planned_gpu(recipe: Recipe, gpu: Gpu) -> bool:
    planned = recipe.budget.gpu
    with suppress(UsageError):
        return planned is None or find_gpu(planned).name == gpu.name
    return False
