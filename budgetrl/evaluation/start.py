"""An adapter that a run goes on from: of the same base, and of the recipe's own shape.

    check_start(recipe)        before anything is paid; nothing where the recipe names no adapter

No torch: whether its tensors fit the layers is for the engine to say.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budgetrl.engine.adapter import more_than_lora
from budgetrl.errors import ModelError
from budgetrl.estimation.shapes import LINEARS, find_shape
from budgetrl.evaluation.identity import adapter_on, weights_hash
from budgetrl.recipe.schema import AlphaPolicy, Recipe


def check_start(recipe: Recipe) -> None:
    """Refuse an adapter of another base, rank, scale or kind: PEFT would take it all the same.

    Its dropout is not asked for: lora.dropout is what is trained with.

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
    _check_layers(folder, config.values, recipe)
    _check_kind(folder, config.values)


def _check_layers(folder: Path, values: Mapping[str, Any], recipe: Recipe) -> None:
    """The layers that it adapts must be the recipe's, or those alone would be trained.

    All linear layers are known of some families; PEFT writes their names, Unsloth a pattern.
    """
    held, wanted = values.get("target_modules"), recipe.lora.targets
    if wanted == "all-linear":
        try:
            shape = find_shape(recipe.model.id, recipe.model.revision)
        except ModelError:
            return
        if held == wanted or shape.layer_paths is None:
            return
        wanted = LINEARS
    if isinstance(held, str) or {*(held or ())} == {*wanted}:
        return
    named = json.dumps(sorted(held or ()))
    raise ModelError(
        f"adapter {folder} is of {', '.join(sorted(held or ()))}, and lora.targets of "
        f"{', '.join(wanted)}: others would not be trained.",
        hint=f"Set lora.targets = {named} to go on from it.",
    )


def _check_kind(folder: Path, values: Mapping[str, Any]) -> None:
    """A recipe knows plain LoRA: what more an adapter is would be trained, or lost, unsaid."""
    if more := more_than_lora(values):
        raise ModelError(
            f"adapter {folder} is more than plain LoRA: {', '.join(more)}.",
            hint=f"Merge it (budgetrl export {folder} --to merged --out BASE), take BASE as "
            "model.id and leave model.adapter out.",
        )


def start_identity(recipe: Recipe) -> dict[str, str]:
    """What the adapter is that a run goes on from, for its manifest; empty where there is none."""
    if recipe.model.adapter is None:
        return {}
    return {"path": recipe.model.adapter, "weights": weights_hash(Path(recipe.model.adapter))}
