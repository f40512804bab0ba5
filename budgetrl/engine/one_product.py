"""LoRA layers that train with one product of activations and weights, where that is less work.

    train_with_one_product(model)     once, when the adapter is there

PEFT computes x W + s (x A) B. An adapter whose rank is a good part of a layer's width costs more
than the layer itself; x (W + s A B) is the same function, and the gradients that autograd finds
for A and B are the same up to rounding. Which of the two a call takes depends on its shapes alone,
so a resumed run computes the same bits. Not for weights of fewer bits, which would round the
adapter away.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft.tuners import lora
from torch.nn.functional import linear

from budgetrl.engine.merging import lora_layers


def train_with_one_product(model: Any) -> None:
    """Give each adapted linear layer of a PEFT model the choice."""
    for layer in lora_layers(model):
        if isinstance(layer, lora.Linear) and type(layer.get_base_layer()) is torch.nn.Linear:
            layer.forward = partial(_forward, layer, layer.forward)


def is_less_work(tokens: int, rank: int, outputs: int, inputs: int) -> bool:
    """Whether one product takes fewer multiplications, forward and backward together.

    PEFT's way takes 2 io + 3 r (i + o) of a token, for W has no gradient; one product takes 3 io,
    and 3 rio for the sum of the weights, however many tokens there are.
    """
    weight = inputs * outputs
    return weight * (tokens + 3 * rank) < 3 * rank * (inputs + outputs) * tokens


def _forward(
    layer: Any, peft_forward: Callable[..., torch.Tensor], x: torch.Tensor, *args: Any, **named: Any
) -> torch.Tensor:
    name = None if args or named else _only_adapter(layer)
    if name is not None:
        base, tokens = layer.get_base_layer(), x.numel() // x.shape[-1]
        if is_less_work(tokens, layer.r[name], *base.weight.shape):
            return linear(x, base.weight + layer.get_delta_weight(name), base.bias)
    return peft_forward(x, *args, **named)


def _only_adapter(layer: Any) -> str | None:
    """The one that acts on a layer beside its weight; None where there is more to it than A and B.

    So far PEFT's other kinds (DoRA and the like), dropout, a bias, and fewer bits.
    """
    if layer.merged or layer.disable_adapters:
        return None
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    plain = len(names) == 1 and (
        names[0] not in layer.lora_variant
        and not layer.lora_bias[names[0]]
        and isinstance(layer.lora_dropout[names[0]], torch.nn.Identity)
        and layer.get_base_layer().weight.dtype == torch.float32
    )
    return names[0] if plain else None
