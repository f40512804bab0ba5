"""Look at this machine: can the quickstart run here, can the GPU path, and if not, why.

    checks = examine(Path("runs"), recipe)     versions, disk, memory, NVML, the hub
    can_run(checks, "gpu"), why_not(checks)

Imports no torch and downloads nothing; the hub is asked for what the recipe names, in seconds.
"""

from pathlib import Path

from budgetrl.doctor.check import Check, Level
from budgetrl.doctor.gpu import gpu_checks
from budgetrl.doctor.hub import hub_checks
from budgetrl.doctor.machine import (
    compiler_checks,
    disk_checks,
    machine_checks,
    package_checks,
)
from budgetrl.hardware import detect_gpu
from budgetrl.recipe.schema import Recipe

__all__ = ["Check", "Level", "can_run", "examine", "why_not"]


def examine(folder: Path, recipe: Recipe) -> list[Check]:
    """All checks.

    Args:
        folder: where runs would be written.
        recipe: the GPU recipe that the machine is wanted for.
    """
    gpu = detect_gpu()
    return [
        *machine_checks(folder),
        *gpu_checks(gpu, recipe),
        *package_checks("unsloth"),
        *compiler_checks(),
        *disk_checks(folder, recipe, gpu),
        *hub_checks(recipe),
    ]


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
    "note": set(),
}


def _failed(checks: list[Check], levels: set[Level]) -> list[Check]:
    return [check for check in checks if check.level in levels and not check.ok]
