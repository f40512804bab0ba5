"""Whether the layers that lora.targets names are in the model, before it is trained without them.

PEFT matches a target with the end of a layer's path, takes what it finds and says nothing of the
rest: of two names, one with a slip of the pen, the other would be trained alone.
"""

from collections.abc import Collection

from budgetrl.errors import RecipeError, did_you_mean
from budgetrl.recipe.schema import Recipe


def check_targets(recipe: Recipe, layers: Collection[str]) -> None:
    """Refuse targets that no layer answers to.

    Args:
        recipe: its [lora] says which.
        layers: paths of all layers that an adapter can be added to.

    Raises:
        RecipeError: names each of them, and those that exist.
    """
    if recipe.lora.targets == "all-linear":
        return
    missing = [
        target
        for target in recipe.lora.targets
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers)
    ]
    if not missing:
        return
    names = list(dict.fromkeys(layer.rpartition(".")[2] for layer in layers))
    raise RecipeError(
        f"lora.targets: {recipe.model.id} has no layer {' and no '.join(missing)}.",
        hint=f"{did_you_mean(missing[0], names)}It has {', '.join(names[:40])}.",
    )
