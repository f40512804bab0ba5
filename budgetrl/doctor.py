"""Look at this machine and say what can run here: the quickstart, the GPU path, or neither.

Reads installed versions, disk, memory and NVML; imports no torch and downloads nothing.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from budgetrl.hardware import DetectedGpu, detect_gpu
from budgetrl.units import GIB, gib

Level = Literal["quickstart", "gpu", "note"]
"""What a check is needed for."""

MIN_DISK_GIB = 1.0
"""A quickstart run with its checkpoints; the environment is installed already."""
MIN_RAM_GIB = 3.0
GPU_DISK_GIB = 40.0
"""A 1.5B model, checkpoints at rank 256, completions and compiled kernels."""
MIN_DRIVER = 580
"""CUDA 13 wheels need an R580 driver or newer."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    level: Level
    found: str
    wanted: str
    fix: str
    """What to do; empty when all is well."""


def examine(folder: Path) -> list[Check]:
    """All checks; `folder` is where runs would be written."""
    return [
        _python(),
        *_packages("train", "quickstart", "bash scripts/install.sh train"),
        _disk(folder, "disk", "quickstart", MIN_DISK_GIB),
        _memory(),
        _cpu(),
        *_gpu(),
        *_packages("gpu", "gpu", "bash scripts/install.sh gpu", without="train"),
        _disk(folder, "disk for GPU runs", "gpu", GPU_DISK_GIB),
    ]


def can_run(checks: list[Check], level: Level) -> bool:
    """Whether everything that a level needs is well; the GPU path needs the quickstart's too."""
    needed = {"quickstart", "gpu"} if level == "gpu" else {"quickstart"}
    return all(check.ok for check in checks if check.level in needed)


def _python() -> Check:
    found = sys.version_info[:2]
    ok = (3, 11) <= found <= (3, 12)
    fix = "" if ok else "Install Python 3.12 and run scripts/install.sh again."
    return Check("python", ok, "quickstart", platform.python_version(), "3.11 or 3.12", fix)


def _packages(extra: str, level: Level, command: str, without: str = "") -> Iterator[Check]:
    """The packages of an extra against their pins, less those of another extra."""
    elsewhere = {requirement.name for requirement in _requirements(without)}
    for requirement in _requirements(extra):
        if requirement.name in elsewhere:
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        ok = found != "not installed" and requirement.specifier.contains(found, prereleases=True)
        fix = "" if ok else f"Run: {command}"
        yield Check(requirement.name, ok, level, found, str(requirement.specifier), fix)


def _requirements(extra: str) -> list[Requirement]:
    """What an extra of budgetrl installs; none for an empty name."""
    lines = importlib.metadata.requires("budgetrl") or []
    marked = re.compile(rf"extra\s*==\s*['\"]{extra}['\"]")
    found = [Requirement(line) for line in lines if extra and marked.search(line)]
    return [requirement for requirement in found if requirement.name != "budgetrl"]


def _disk(folder: Path, name: str, level: Level, wanted_gib: float) -> Check:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    ok = free >= wanted_gib * GIB
    fix = "" if ok else f"Free some space, or write runs elsewhere with --out (now {place})."
    return Check(name, ok, level, f"{gib(free)} free", f"{wanted_gib:.0f} GiB", fix)


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    ok = total >= MIN_RAM_GIB * GIB
    fix = "" if ok else "Use a machine with more memory."
    return Check("memory", ok, "quickstart", gib(total), f"{MIN_RAM_GIB:.0f} GiB", fix)


def _cpu() -> Check:
    cores = len(os.sched_getaffinity(0))
    ok = cores >= 2
    fix = "" if ok else "The quickstart is planned for 2 cores; it makes fewer updates here."
    return Check("cores", ok, "note", str(cores), "2 or more", fix)


def _gpu() -> Iterator[Check]:
    found = detect_gpu()
    if found is None:
        yield Check(
            "gpu",
            False,
            "gpu",
            "no NVIDIA GPU, or no driver",
            "one NVIDIA GPU",
            "The quickstart needs none. For the paper's recipes rent one; "
            "`budgetrl estimate RECIPE --all-gpus` says which.",
        )
        return
    yield Check("gpu", True, "gpu", f"{found.name}, {found.total_gib:.0f} GiB", "one GPU", "")
    yield _driver(found)
    yield _free_memory(found)


def _driver(found: DetectedGpu) -> Check:
    ok = int(found.driver.split(".")[0]) >= MIN_DRIVER
    fix = "" if ok else "Rent a machine with a newer driver: CUDA 13 wheels need R580."
    return Check("driver", ok, "gpu", found.driver, f"{MIN_DRIVER} or newer", fix)


def _free_memory(found: DetectedGpu) -> Check:
    """Containers hide other processes, so used memory tells more than a process list."""
    ok = found.free_gib > 0.95 * found.total_gib
    fix = "" if ok else "Another process uses this GPU; end it, or take another machine."
    return Check(
        "gpu memory", ok, "gpu", f"{found.free_gib:.1f} GiB free", "nearly all of it free", fix
    )
