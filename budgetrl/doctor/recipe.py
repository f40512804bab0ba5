"""What doctor says of one recipe: its files, its layers, and on a CPU its memory and disk."""

from collections.abc import Iterator
from pathlib import Path

from budgetrl.doctor.check import Check, level_of
from budgetrl.doctor.machine import disk_check
from budgetrl.engine.unsloth_settings import refuse_unkept
from budgetrl.errors import BudgetRLError
from budgetrl.estimation.request import Request, answer
from budgetrl.recipe.schema import EngineName, Recipe
from budgetrl.units import GIB, gib
from budgetrl.usable_recipe import check_known_layers, check_local_files


def recipe_checks(folder: Path, recipe: Recipe) -> Iterator[Check]:
    """What a run of the recipe would be refused for.

    Args:
        folder: where runs would be written.
        recipe: the one that the machine is wanted for.
    """
    yield _files(recipe)
    if recipe.engine.device == "cuda":
        return  # whose memory and disk are looked at with the GPU
    name = f"memory for {recipe.name}"
    try:
        made = answer(Request(recipe))
    except BudgetRLError as error:
        yield Check(name, False, "note", "no estimate", "an estimate", str(error))
        return
    usable = made.scenario.gpu.usable_gib * GIB
    found, wanted = f"{gib(usable)} usable", f"about {gib(made.memory.peak)}"
    fix = "Its `budgetrl estimate` says what to change."
    yield Check.of(name, made.fits, "recipe", found, wanted, fix)
    needs = made.disk
    total = needs.checkpoints + needs.completions
    yield disk_check(f"disk for {recipe.name}", folder, "recipe", total / GIB)


def _files(recipe: Recipe) -> Check:
    name, wanted = f"files of {recipe.name}", "model, problems and settings that go together"
    try:
        if recipe.engine.name is EngineName.UNSLOTH:
            refuse_unkept(recipe)
        check_local_files(recipe)
        check_known_layers(recipe)
    except BudgetRLError as error:
        return Check(name, False, level_of(recipe), error.message.rstrip("."), wanted, error.hint)
    return Check(name, True, level_of(recipe), "as they should be", wanted, "")
