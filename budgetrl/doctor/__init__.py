"""Look at this machine: can the quickstart run here, can the GPU path, and if not, why.

    checks = examine(Path("runs"), recipe)     versions, disk, memory, NVML, the hub, the recipe
    can_run(checks, level_of(recipe)), why_not(checks, level_of(recipe))

Imports no torch and downloads nothing; the hub is asked for what the recipe names, in seconds.
"""

from collections.abc import Iterator
from pathlib import Path

from budgetrl.doctor.check import Check, Level, level_of
from budgetrl.doctor.gpu import gpu_checks
from budgetrl.doctor.hub import hub_checks
from budgetrl.doctor.machine import (
    compiler_checks,
    disk_checks,
    machine_checks,
    package_checks,
    torch_build,
)
from budgetrl.doctor.recipe import recipe_checks
from budgetrl.hardware import detect_gpu
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import EngineName, Recipe

__all__ = ["GPU_RECIPE", "Check", "Level", "can_run", "examine", "level_of", "why_not"]

GPU_RECIPE = "deepscaler_r256"
"""Stands for the GPU path where no recipe is named."""


def examine(folder: Path, recipe: Recipe) -> list[Check]:
    """All checks.

    Args:
        folder: where runs would be written.
        recipe: the one that the machine is wanted for; the GPU path is that of `GPU_RECIPE` where
            this one runs on a CPU.
    """
    gpu = detect_gpu()
    on_gpu = recipe if recipe.engine.device == "cuda" else load_recipe(GPU_RECIPE).recipe
    return [
        *machine_checks(folder),
        *gpu_checks(gpu, on_gpu),
        *_engine_checks(on_gpu.engine.name),
        *disk_checks(folder, on_gpu, gpu),
        *recipe_checks(folder, recipe),
        *hub_checks(recipe),
    ]


def _engine_checks(engine: EngineName) -> Iterator[Check]:
    """Packages of a GPU recipe's engine."""
    if engine is EngineName.UNSLOTH:
        yield from package_checks("unsloth")
        yield from compiler_checks()
    else:
        yield torch_build()


def can_run(checks: list[Check], level: Level) -> bool:
    """Whether everything that a level needs is well; the GPU path needs the quickstart's too."""
    return not _failed(checks, _NEEDED[level])


def why_not(checks: list[Check], level: Level = "gpu") -> list[str]:
    """What stands in the way of a level, with what to do; empty if it can run.

    For "note": what else is not as it should be.
    """
    lines: dict[str, list[str]] = {}
    for check in _failed(checks, {level} if level == "note" else _NEEDED[level]):
        lines.setdefault(check.fix, []).append(f"{check.name}: {check.found}")
    return [f"{', '.join(found)}. {fix}" for fix, found in lines.items()]


_NEEDED: dict[Level, set[Level]] = {
    "quickstart": {"quickstart"},
    "gpu": {"quickstart", "gpu"},
    "recipe": {"quickstart", "recipe"},
    "note": set(),
}


def _failed(checks: list[Check], levels: set[Level]) -> list[Check]:
    return [check for check in checks if check.level in levels and not check.ok]
