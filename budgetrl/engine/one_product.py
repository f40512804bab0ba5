"""LoRA layers that train with one product of activations and weights, where that is less work.

    train_with_one_product(model)     once, when the adapter is there

PEFT computes x W + s (x A) B. An adapter whose rank is a good part of a layer's width costs more
than the layer itself; x (W + s A B) is the same function, and the gradients that autograd finds
for A and B are the same up to rounding. Which of the two a call takes depends on its shapes alone,
so a resumed run computes the same bits. Not for weights of fewer bits, which would round the
adapter away.
"""

from typing import Any

import torch
from peft.tuners import lora
from torch.nn.functional import linear

from budgetrl.engine.least_work import is_less_work
from budgetrl.engine.merging import is_plain, lora_layers


def train_with_one_product(model: Any) -> None:
    """Give each adapted linear layer of a PEFT model the choice."""
    for layer in lora_layers(model):
        if type(layer) is lora.Linear and type(layer.get_base_layer()) is torch.nn.Linear:
            layer.__class__ = OneProduct


class OneProduct(lora.Linear):
    """PEFT's layer, which an adapted one becomes in place: parameters and their names stay."""

    def forward(self, x: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        """The layer's output for activations (..., inputs)."""
        base = self.base_layer
        if self.merged and not (args or named or self.disable_adapters):
            return linear(x, base.weight, base.bias)
        name = None if args or named else self._only_adapter()
        if name is not None:
            tokens = x.numel() // x.shape[-1]
            if is_less_work(tokens, self.r[name], *base.weight.shape):
                return linear(x, base.weight + self.get_delta_weight(name), base.bias)
        usual: torch.Tensor = super().forward(x, *args, **named)
        return usual

    def _only_adapter(self) -> str | None:
        """The one that acts beside the weight; None with dropout, or weights of fewer bits."""
        if self.merged or self.disable_adapters:
            return None
        names = [name for name in self.active_adapters if name in self.lora_A]
        plain = len(names) == 1 and (
            is_plain(self, names[0])
            and isinstance(self.lora_dropout[names[0]], torch.nn.Identity)
            and self.base_layer.weight.dtype == torch.float32
        )
        return names[0] if plain else None
