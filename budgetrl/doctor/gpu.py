"""What doctor says of a GPU: pure functions of what NVML told (`hardware.detect_gpu`)."""

from collections.abc import Iterator

from budgetrl.doctor.check import Check
from budgetrl.errors import BudgetRLError
from budgetrl.estimation.estimate import estimate
from budgetrl.hardware import DetectedGpu
from budgetrl.recipe.schema import Recipe
from budgetrl.units import GIB

MIN_DRIVER = 580
"""CUDA 13 wheels need an R580 driver or newer."""
MAX_USED_GIB = 1.0
"""A screen takes less than this, a program that computes takes more."""
MIN_CAPABILITY = (7, 5)
"""Turing: CUDA 13 has dropped what came before."""
BF16_CAPABILITY = (8, 0)


def gpu_checks(found: DetectedGpu | None, recipe: Recipe) -> Iterator[Check]:
    """Everything about the GPU itself; one failed check where there is none."""
    if found is None:
        yield Check(
            "gpu",
            False,
            "gpu",
            "no NVIDIA GPU, or no driver",
            "one NVIDIA GPU",
            "The quickstart needs none. For the paper's recipes rent one; "
            "`budgetrl estimate RECIPE --all-gpus` says which, docs/rent.md how.",
        )
        return
    yield Check("gpu", True, "gpu", f"{found.name}, {found.total_gib:.0f} GiB", "one GPU", "")
    yield _driver(found)
    yield _capability(found, recipe)
    yield _mig(found)
    yield _others(found)
    yield from _fit(found, recipe)


def _driver(found: DetectedGpu) -> Check:
    major = found.driver.split(".")[0]
    ok = major.isdigit() and int(major) >= MIN_DRIVER
    runs = f" (CUDA {found.cuda} at most)" if found.cuda is not None else ""
    fix = f"Rent a machine with a newer driver: CUDA 13 wheels need R{MIN_DRIVER}."
    return Check.of("driver", ok, "gpu", f"{found.driver}{runs}", f"{MIN_DRIVER} or newer", fix)


def _capability(found: DetectedGpu, recipe: Recipe) -> Check:
    needs_bf16 = recipe.model.dtype == "bfloat16"
    least = BF16_CAPABILITY if needs_bf16 else MIN_CAPABILITY
    wanted = "{}.{} or newer".format(*least) + (" for bfloat16" if needs_bf16 else "")
    capability = found.compute_capability
    if capability is None:
        return Check("compute capability", True, "gpu", "not told by NVML", wanted, "")
    fix = "Take a newer GPU: the CUDA 13 wheels have no code for this one."
    if MIN_CAPABILITY <= capability < BF16_CAPABILITY:
        fix = 'This GPU has no bfloat16: run with --set model.dtype="float16", or take another.'
    shown = "{}.{}".format(*capability)
    return Check.of("compute capability", capability >= least, "gpu", shown, wanted, fix)


def _mig(found: DetectedGpu) -> Check:
    fix = "A run would get a slice: rent the whole GPU, or `sudo nvidia-smi -mig 0`."
    return Check.of("mig", not found.mig, "gpu", "on" if found.mig else "off", "off", fix)


def _others(found: DetectedGpu) -> Check:
    """Containers hide other programs, so used memory tells more than the list of processes."""
    count = found.other_processes
    listed = "processes not told" if count is None else f"{count} processes listed"
    hidden = " (a container hides others)" if not count and found.used_gib > MAX_USED_GIB else ""
    return Check.of(
        "gpu in use",
        found.used_gib <= MAX_USED_GIB,
        "gpu",
        f"{found.used_gib:.1f} GiB used, {listed}{hidden}",
        f"less than {MAX_USED_GIB:.0f} GiB used",
        "Something else uses this GPU: see nvidia-smi and `budgetrl runs`; end it, or take another "
        "machine.",
    )


def _fit(found: DetectedGpu, recipe: Recipe) -> Iterator[Check]:
    """Whether the recipe fits what is free, by the estimate."""
    name = f"memory for {recipe.name}"
    if found.gpu is None:
        why = f"{found.name} is not in the table: give its row to `budgetrl estimate --gpu FILE`."
        yield Check(name, False, "note", "no estimate", "an estimate", why)
        return
    try:
        made = estimate(recipe, found.gpu)
    except BudgetRLError as error:
        yield Check(name, False, "note", "no estimate", "an estimate", str(error))
        return
    needs = made.memory.peak / GIB
    fix = "Its `budgetrl estimate` says what to change, with --all-gpus which GPUs fit."
    yield Check.of(
        name,
        made.fits,
        "gpu",
        f"{found.gpu.usable_gib:.1f} GiB usable",
        f"about {needs:.0f} GiB",
        fix,
    )
