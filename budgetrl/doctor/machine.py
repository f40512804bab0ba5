"""What doctor says of Python, packages, disk and memory."""

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from budgetrl.doctor.check import Check, Level
from budgetrl.engine.tested import installed_versions, nearest_set, version_sets
from budgetrl.errors import BudgetRLError
from budgetrl.estimation.request import Request, answer
from budgetrl.hardware import DetectedGpu
from budgetrl.pace import free_cores
from budgetrl.recipe.schema import Recipe
from budgetrl.units import GIB, gib

MIN_DISK_GIB = 1.0
"""A quickstart run with its checkpoints; the environment is installed already."""
MIN_RAM_GIB = 3.0
MIN_SHM_GIB = 1.0
"""Docker gives 64 MiB, too little for processes that hand each other tensors."""


def machine_checks(folder: Path) -> Iterator[Check]:
    """What every run needs; `folder` is where runs would be written."""
    yield _python()
    yield from package_checks("plain")
    yield disk_check("disk", folder, "quickstart", MIN_DISK_GIB)
    yield _memory()
    yield _cpu()
    yield _shared_memory()


def package_checks(engine: str) -> Iterator[Check]:
    """The packages of an engine against the sets that were tried; Unsloth's besides the plain's."""
    installed = installed_versions(engine)
    nearest = nearest_set(engine, installed)
    wrong = {difference.package for difference in nearest.differences(installed)}
    others = version_sets("plain")[0].versions if engine != "plain" else {}
    level: Level = "quickstart" if engine == "plain" else "gpu"
    fix = f"Run: {nearest.install}"
    for package, wanted in nearest.versions.items():
        if package not in others:
            found = installed[package] or "not installed"
            yield Check.of(package, package not in wrong, level, found, wanted, fix)
    if engine != "plain" and installed["torch"] is not None:
        yield torch_build()
    name, ran = f"tested set of {engine}", f"{nearest.name}: {nearest.ran}"
    yield Check.of(name, not wrong, "note", "another" if wrong else "this one", ran, fix)


def torch_build() -> Check:
    """Whether torch can use a GPU."""
    found = installed_versions("unsloth")
    torch, fix = found["torch"] or "not installed", f"Run: {nearest_set('unsloth', found).install}"
    ok = found["torch"] is not None and not torch.endswith("+cpu")
    return Check.of("torch build", ok, "gpu", torch, "the CUDA build", fix)


def compiler_checks() -> Iterator[Check]:
    """What Triton needs to build its launcher when the first kernel runs, minutes into a run."""
    named = os.environ.get("CC")
    compiler = shutil.which(named) if named else shutil.which("gcc") or shutil.which("clang")
    wanted = "gcc or clang, or the compiler that CC names"
    missing = f"CC = {named}, which is not there" if named else "none"
    fix = "On Debian and Ubuntu: apt install gcc; Triton builds with it at its first kernel."
    yield Check.of("C compiler", compiler is not None, "gpu", compiler or missing, wanted, fix)
    header = Path(sysconfig.get_path("include", "posix_prefix")) / "Python.h"
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
    found = str(header) if header.is_file() else f"no {header}"
    fix = f"On Debian and Ubuntu: apt install {package}; or make .venv with a Python that has them."
    yield Check.of("Python headers", header.is_file(), "gpu", found, "Python.h", fix)


def disk_checks(folder: Path, recipe: Recipe, gpu: DetectedGpu | None) -> Iterator[Check]:
    """Free space against the recipe's estimate, for each disk that something goes to."""
    try:
        planned = gpu.gpu.name if gpu is not None and gpu.gpu is not None else recipe.budget.gpu
        needs = answer(Request(recipe, gpu=planned)).disk
    except BudgetRLError as error:
        yield Check("disk for GPU runs", False, "note", "no estimate", "an estimate", str(error))
        return
    ready = not nearest_set("unsloth", found := installed_versions("unsloth")).differences(found)
    parts = {
        "runs": (folder, needs.checkpoints + needs.completions),
        "the model": (_hub_cache(), needs.model),
        "the environment": (Path(sys.prefix), 0.0 if ready else needs.environment),
    }
    disks: dict[int, list[str]] = {}
    for name, (place, _) in parts.items():
        disks.setdefault(_existing(place).stat().st_dev, []).append(name)
    for names in disks.values():
        total = sum(parts[name][1] for name in names)
        yield disk_check(f"disk for {', '.join(names)}", parts[names[0]][0], "gpu", total / GIB)


def _python() -> Check:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 12)
    fix = "Install Python 3.12 and make the environment anew with it."
    return Check.of("python", ok, "quickstart", platform.python_version(), "3.11 or 3.12", fix)


def disk_check(name: str, folder: Path, level: Level, wanted_gib: float) -> Check:
    """Free space where a folder is or would be, against what is wanted there."""
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    ok = free >= wanted_gib * GIB
    fix = f"Free some space on the disk of {place}, or write runs elsewhere with --out."
    return Check.of(name, ok, level, f"{gib(free)} free", gib(wanted_gib * GIB), fix)


def _existing(folder: Path) -> Path:
    place = folder.expanduser().absolute()
    while not os.path.exists(place):  # Path.exists raises where a folder may not be entered
        place = place.parent
    return place


def _hub_cache() -> Path:
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub"))


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    ok = total >= MIN_RAM_GIB * GIB
    fix = "Use a machine with more memory."
    return Check.of("memory", ok, "quickstart", gib(total), f"{MIN_RAM_GIB:.0f} GiB", fix)


def _cpu() -> Check:
    cores = free_cores()
    fix = "The quickstart is planned for 2 cores; it makes fewer updates here."
    return Check.of("cores", cores >= 2, "note", str(cores), "2 or more", fix)


def _shared_memory() -> Check:
    shm = Path("/dev/shm")
    total = shutil.disk_usage(shm).total if shm.is_dir() else 0
    fix = "Start the container with --shm-size=8g (or --ipc=host)."
    wanted = f"{MIN_SHM_GIB:.0f} GiB"
    return Check.of("/dev/shm", total >= MIN_SHM_GIB * GIB, "note", gib(total), wanted, fix)
