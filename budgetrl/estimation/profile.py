"""What a real run took over what was predicted for it, by phase: a correction for other plans.

    measured = from_run("runs/deepscaler_r8--...")        factors of one run
    estimate(recipe, gpu, budget, measured=measured)      other ranks, lengths, GPUs

    store_gpu_profile(run, user_cache_dir())              kept for every later estimate on that GPU

A factor compares the run with a prediction *at the lengths it really had*, so it says something
about machine and software, not about the answers. The same file format, under
assets/profiles/gpu-*.json, carries profiles measured on real GPUs.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from budgetrl.budget import PhaseTimes
from budgetrl.errors import BudgetRLError, RunDirError, UsageError
from budgetrl.estimation.estimate import PROFILE_SCHEMA_VERSION, Measured, gpu_profile_path
from budgetrl.estimation.phases import Phases, make_phases
from budgetrl.estimation.scenario import make_scenario, memory_of
from budgetrl.estimation.shapes import LengthPrior
from budgetrl.files import write_json
from budgetrl.hardware import Gpu, find_gpu
from budgetrl.history import History, measured_times, only_stages, read_history
from budgetrl.phases import MEASURED_ONCE, UPDATE_PHASES
from budgetrl.recipe.schema import Recipe, StageKind
from budgetrl.run_files import read_manifest, written_recipe
from budgetrl.rundir import RunDir, open_run

_PHASES = (*UPDATE_PHASES, *MEASURED_ONCE, "step_eval", "save")
_LEAST_S = 0.05
"""Phases shorter than this carry no information about speed."""


def from_run(path: str | Path) -> tuple[Recipe, PhaseTimes, History]:
    """The recipe and the measured times of a run.

    Raises:
        RunDirError: no run there, or one that has made no update yet.
    """
    run = open_run(path)
    history = read_history(run)
    recipe = written_recipe(run)
    learnt = {stage.name for stage in recipe.stages if stage.kind is StageKind.GRPO}
    steps = only_stages(history, learnt) if recipe.stages else history
    times = measured_times(steps, report_s=3.0, source=f"run {run.name}")
    if times is None:
        raise RunDirError(
            f"{path}: this run has not measured enough: it needs an update of GRPO and a final "
            "evaluation.",
            hint="Finish it with `budgetrl resume`, or give a finished run as --from-run.",
        )
    return recipe, times, steps


def run_factors(path: str | Path) -> Measured:
    """Measured over predicted, by phase, of a GPU run.

    Raises:
        RunDirError: no such run, not far enough, or its GPU is unknown.
    """
    recipe, times, history = from_run(path)
    gpu = _gpu_of_run(open_run(path), recipe)
    tokens = [step.completion_tokens_mean for step in history.steps if step.completion_tokens_mean]
    mean = sum(tokens) / len(tokens) if tokens else None
    predicted = predicted_phases(recipe, gpu, mean)
    factors = phase_factors(times, predicted)
    return Measured(factors, f"{times.source} on {gpu.name}: measured over predicted, by phase")


def predicted_phases(recipe: Recipe, gpu: Gpu, mean_tokens: float | None) -> Phases:
    """What would have been predicted, had the lengths been known."""
    scenario = make_scenario(recipe, gpu)
    if mean_tokens is not None:
        mean = min(mean_tokens, float(recipe.sampling.max_tokens))
        scenario = replace(scenario, mean_tokens=LengthPrior(mean, mean, mean, "measured"))
    return make_phases(scenario, memory_of(scenario))


def phase_factors(times: PhaseTimes, predicted: Phases) -> dict[str, float]:
    """Measured over predicted seconds, for phases that took any time in both."""
    factors = {}
    for name in _PHASES:
        seconds, expected = getattr(times, f"{name}_s"), predicted.seconds[name]
        if seconds > _LEAST_S and expected > _LEAST_S:
            factors[name] = seconds / expected
    return factors


def profile_document(
    recipe: Recipe, gpu: Gpu, factors: Mapping[str, float], measured: str
) -> dict[str, Any]:
    """The content of a `gpu-*.json` profile."""
    return {
        "schema_version": PROFILE_SCHEMA_VERSION,
        "gpu": gpu.name,
        "recipe": recipe.name,
        "measured": measured,
        "factors": {name: round(factor, 3) for name, factor in factors.items()},
    }


def store_gpu_profile(run: RunDir, cache_dir: Path) -> Path:
    """Keep what a run on a GPU measured for the next estimate and plan there.

    Raises:
        RunDirError: it has not measured enough.
        OSError: the folder cannot be written.
    """
    recipe, gpu = written_recipe(run), _gpu_of_run(run, written_recipe(run))
    today = datetime.now(UTC).date().isoformat()
    document = profile_document(recipe, gpu, run_factors(run.path).factors, today)
    document["versions"] = read_manifest(run).versions
    path = gpu_profile_path(gpu, recipe.name, cache_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)
    return path


def _gpu_of_run(run: RunDir, recipe: Recipe) -> Gpu:
    """The GPU that a run was made on, from its manifest or its recipe."""
    if (made_on := read_manifest(run).gpu) is not None:
        return find_gpu(str(made_on["name"]))
    if recipe.budget.gpu is None:
        raise UsageError(
            f"{run.path}: nothing says which GPU this run was made on.",
            hint="Runs on a GPU note it in manifest.json as gpu.name.",
        )
    try:
        return find_gpu(recipe.budget.gpu)
    except BudgetRLError as error:
        raise RunDirError(f"{run.path}: {error.message}", hint=error.hint) from None
