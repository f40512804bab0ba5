"""A new adapter on a base: on every layer that the recipe names, or on none.

    fresh = fresh_adapter(base, recipe, source)     a PEFT model, and what "all-linear" leaves out

Some layers take an adapter and never use it: Jamba reads the weights of `dt_proj` past the layer,
so nothing there would be trained, and a merged adapter would be another model. Of others PEFT knows
as much (`out_proj` of Mamba and Falcon-H1). Layers that are named are refused; "all-linear" goes
without them, and that is told.
"""

from typing import Any, NamedTuple

import peft
import torch
import transformers
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba

from budgetrl.errors import RecipeError, first_line
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.targets import check_targets

_TRIED = 8
"""Tokens that an adapter is tried on."""


class Fresh(NamedTuple):
    """A base with a new adapter."""

    model: Any
    left_out: tuple[str, ...]
    """Names of linear layers that "all-linear" means, and that can have no adapter."""


def fresh_adapter(base: Any, recipe: Recipe, source: str) -> Fresh:
    """Add the recipe's adapter to a base; its first values come from the recipe's seed.

    Raises:
        RecipeError: a target is no layer, or none that an adapter works on.
    """
    check_targets(recipe, layer_paths(base))
    named = {"task_type": "CAUSAL_LM", "base_model_name_or_path": source}
    config = peft.LoraConfig(**recipe.lora.peft_arguments, **named)
    left_out = {_leaf(path) for path in layer_paths(base) if not _takes(base, config, _leaf(path))}
    if recipe.lora.targets == "all-linear":
        linear = {_leaf(p) for p, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
        left_out &= linear
    else:
        left_out &= {_leaf(target) for target in recipe.lora.targets}
    model = None
    if not left_out:
        model = _with(base, config, recipe)
        left_out = unreached(model)
    if not left_out:
        return Fresh(model, ())
    if recipe.lora.targets != "all-linear":
        hint = "Leave it out: the model reads its weights in another way than as a layer."
        raise _unused(base, left_out, hint)
    base = base if model is None else model.unload()
    config = peft.LoraConfig(
        **recipe.lora.peft_arguments, **named, exclude_modules=sorted(left_out)
    )
    model = _with(base, config, recipe)
    if more := unreached(model):
        raise _unused(base, more, "Name the layers: lora.targets = [..].")
    return Fresh(model, tuple(sorted(left_out)))


def unreached(model: Any) -> set[str]:
    """Names of layers with an adapter that no output of a PEFT model depends on."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    trained = {name: _weights(layer) for name, layer in layers.items()}
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            row = torch.arange(_TRIED, device=model.device)[None]
            made = model(input_ids=row, use_cache=False).logits.float().logsumexp(-1).sum()
            flat = [weight for weights in trained.values() for weight in weights]
            found = iter(torch.autograd.grad(made, flat, allow_unused=True))
    finally:
        model.train(was_training)
    used = {name: [next(found) is not None for _ in weights] for name, weights in trained.items()}
    return {_leaf(name) for name, each in used.items() if not any(each)}


def layer_paths(model: Any) -> list[str]:
    """Paths of the layers that an adapter can be added to."""
    modules = model.named_modules()
    return [name for name, module in modules if _dimensions(module) > 1]


def _unused(base: Any, names: set[str], hint: str) -> RecipeError:
    layers = " or ".join(sorted(names))
    wrong = f"lora.targets: {type(base).__name__} would not use an adapter of {layers}."
    return RecipeError(wrong, hint=hint)


def _with(base: Any, config: Any, recipe: Recipe) -> Any:
    transformers.set_seed(recipe.seed)
    try:
        return peft.get_peft_model(base, config)
    except ValueError as error:
        raise RecipeError(
            f"lora.targets: PEFT adds no such adapter to {type(base).__name__}: "
            f"{first_line(error).rstrip('.')}.",
            hint="Name other layers.",
        ) from None


def _takes(base: Any, config: Any, name: str) -> bool:
    """Whether PEFT adds an adapter to layers of this name; asked before it adds the first."""
    try:
        _check_lora_target_modules_mamba(config, base, name)
    except ValueError:
        return False
    return True


def _weights(layer: Any) -> list[torch.Tensor]:
    """Those of an adapter, of one layer."""
    return [weight for name, weight in layer.named_parameters()
            if weight.requires_grad and "base_layer" not in name]  # fmt: skip


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def _dimensions(module: Any) -> int:
    weight = getattr(module, "weight", None)
    return weight.ndim if isinstance(weight, torch.Tensor) else 0
