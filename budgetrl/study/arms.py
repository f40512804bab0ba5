"""What `replicate` compares: the paper's families of recipes or any one recipe, by rank and alpha.

    arms_of(family_of("qwen3"), ranks=(8, 64, 256), seeds=2, alphas=("fixed",)) -> [TrialSpec]

An arm is a trial whose values are a rank and a rule for alpha.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from budgetrl.errors import RecipeError, UsageError, did_you_mean
from budgetrl.recipe.base import AlphaPolicy, EngineName, Rank
from budgetrl.recipe.load import find_recipe, list_recipes, load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.study.specs import TrialSpec, lasting_name

PAPER_RANKS = (8, 64, 256)
FULL_RATE = 10.0
"""Learning rate of an adapter over that of all weights."""
TINY_RANKS = (8, 32, 128)
"""The embedded models are 128 wide: rank 128 is as free as any higher one."""


@dataclass(frozen=True, slots=True)
class Family:
    """Recipes that differ in the base model, or one of them."""

    name: str
    recipes: tuple[str, ...]
    """One recipe per model; the paper's ranks have recipes of their own, `<recipe>_r<rank>`."""
    ranks: tuple[int, ...] = PAPER_RANKS
    budget: str | None = "24h"
    """Time limit where none is given; None: the recipe's own."""
    alpha: AlphaPolicy = AlphaPolicy.FIXED
    """The recipes' own rule."""


_OF_THE_PAPER = ("deepscaler", "qwen2.5_instruct", "llama3.2", "qwen2.5_math", "qwen3")
_STARTS = ("miniature/generalist", "miniature/cold", "miniature/specialist")
FAMILIES: Mapping[str, Family] = {name: Family(name, (name,)) for name in _OF_THE_PAPER} | {
    "quickstart": Family("quickstart", ("quickstart",), TINY_RANKS, "9m"),
    "miniature": Family("miniature", _STARTS, TINY_RANKS, "40m"),
}


def family_of(name: str) -> Family:
    """A family by its name, or one recipe by its name or path.

    Raises:
        UsageError: there is neither; names the nearest.
        RecipeError: the recipe is not valid.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    try:
        path = find_recipe(name)
    except RecipeError:
        raise UsageError(
            f"{name!r} is no family, and no recipe file or bundled recipe.",
            hint=f"{did_you_mean(name, FAMILIES)}Families: {', '.join(FAMILIES)}. "
            "`budgetrl recipes list` shows recipes.",
        ) from None
    recipe = load_recipe(path).recipe
    on_gpu = recipe.engine.device == "cuda"
    return Family(
        recipe.name,
        (lasting_name(path),),
        PAPER_RANKS if on_gpu else TINY_RANKS,
        budget=None,
        alpha=recipe.lora.alpha_policy,
    )


def arms_of(
    family: Family, ranks: Sequence[Rank], seeds: int, alphas: Sequence[AlphaPolicy]
) -> list[TrialSpec]:
    """The arms of a study, in the order in which they run.

    Seeds come last, so that a study that is cut short has every arm once before any arm twice.
    """
    return [
        _arm(family, recipe, rank, alpha, seed)
        for seed in range(1, seeds + 1)
        for recipe in family.recipes
        for alpha in alphas
        for rank in ranks
        if rank != "full" or alpha is alphas[0]  # which has no alpha
    ]


def _arm(family: Family, recipe: str, rank: Rank, alpha: AlphaPolicy, seed: int) -> TrialSpec:
    own = f"{recipe}_r{rank}"
    known = list_recipes()
    sets = [] if own in known else [f"lora.rank={rank}"]
    if rank != "full" and alpha is not family.alpha:
        sets.append(f'lora.alpha_policy="{alpha.value}"')
    base = next((name for name in (own, recipe, f"{recipe}_r64") if name in known), recipe)
    values: dict[str, Any] = {"lora.rank": rank}
    if rank == "full":
        further = _for_all_weights(load_recipe(base).recipe)
        sets += [f"{key}={json.dumps(value)}" for key, value in further.items()]
        values |= further
    elif alpha is not AlphaPolicy.FIXED:
        values["lora.alpha_policy"] = alpha.value
    return TrialSpec(base, tuple(sets), seed, values)


def _for_all_weights(recipe: Recipe) -> dict[str, Any]:
    """What else the arm of all weights has to set; its label names it.

    The best rate for an adapter is about ten times that for all weights (Thinking Machines, "LoRA
    Without Regret", 2025). Unsloth trains none of them beside its vLLM, and the plain engine holds
    the logits of a whole pass.
    """
    further: dict[str, Any] = {
        "schedule.learning_rate": float(f"{recipe.schedule.learning_rate / FULL_RATE:.3g}")
    }
    if recipe.engine.name is EngineName.UNSLOTH:
        further |= {"engine.name": EngineName.PLAIN.value, "batch.micro_batch": 1}
    return further
