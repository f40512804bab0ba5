"""The machine that a CPU recipe is planned for: this one."""

import os
from functools import cache
from pathlib import Path

from budgetrl.estimation.cpu_time import Machine
from budgetrl.hardware import Gpu
from budgetrl.pace import free_cores
from budgetrl.processor import cpu_model, cpu_speed
from budgetrl.recipe.schema import Recipe
from budgetrl.units import GIB

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def this_cpu() -> Gpu:
    """This machine's processor as a row of the GPU table: its name and its memory."""
    gib = memory_bytes() / GIB
    return Gpu(cpu_model(), gib, 1.0, 1.0, bf16=True, usable_gib_reported=gib)


def this_machine(recipe: Recipe) -> Machine:
    """Its speed, and what the recipe uses of it."""
    return Machine(gflops(), recipe.engine.threads or 1, free_cores())


@cache
def gflops() -> float:
    """Of one thread; measured once, in 0.2 s, so that all plans of a sweep rest on one figure."""
    return round(cpu_speed(), 2)


def memory_bytes() -> float:
    """Memory of this machine, or what a container may use of it."""
    try:
        found = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        found = 8.0 * GIB
    for file in _CGROUP_LIMITS:
        try:
            found = min(found, float(file.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return found


def user_cache_dir() -> Path:
    """$XDG_CACHE_HOME/budgetrl, or ~/.cache/budgetrl."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "budgetrl"
