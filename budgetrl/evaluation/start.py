"""An adapter that a run goes on from: of the same base, and of the recipe's own shape.

    check_start(recipe)        before anything is paid; nothing where the recipe names no adapter

No torch: whether its tensors fit the layers is for the engine to say.
"""

from pathlib import Path

from budgetrl.errors import ModelError
from budgetrl.evaluation.identity import adapter_on, weights_hash
from budgetrl.recipe.schema import AlphaPolicy, Recipe


def check_start(recipe: Recipe) -> None:
    """Refuse an adapter of another base, rank or scale: PEFT would take it all the same.

    Raises:
        ModelError: what is different, and the value to set.
    """
    if recipe.model.adapter is None:
        return
    folder = Path(recipe.model.adapter)
    config = adapter_on(folder, recipe.model.id, "adapter", "model.id")
    lora = recipe.lora
    held = {"rank": config.rank, "alpha": config.alpha, "rslora": config.rslora}
    wanted = {
        "rank": lora.rank,
        "alpha": lora.resolved_alpha,
        "rslora": lora.alpha_policy is AlphaPolicy.RSLORA,
    }
    for key, value in held.items():
        if value != wanted[key]:
            named = "alpha_policy" if key == "rslora" else key
            raise ModelError(
                f"adapter {folder} has {key} = {value}, and the recipe's lora.{named} gives "
                f"{wanted[key]}.",
                hint=f"Set lora.rank = {config.rank} and lora.alpha = {config.alpha:g} to go on "
                "from it.",
            )


def start_identity(recipe: Recipe) -> dict[str, str]:
    """What the adapter is that a run goes on from, for its manifest; empty where there is none."""
    if recipe.model.adapter is None:
        return {}
    return {"path": recipe.model.adapter, "weights": weights_hash(Path(recipe.model.adapter))}
