"""An adapter folded into the base weights that a sampler shares, and taken out bit for bit.

    folding = Folding(model)
    with folding:        every weight is W + scaling * B A, in the storage that it always had

The sampler then draws without an adapter. Subtracting what was added would leave rounding errors
behind, so the original weights are kept in the host's memory.
"""

from typing import Any, Self

import torch

from budgetrl.engine.plain import ADAPTER, lora_layers


class Folding:
    """Folds and unfolds the current adapter of one model; not for quantised weights."""

    def __init__(self, model: Any) -> None:
        self._layers = list(lora_layers(model))
        self._kept = [_on_host(layer.get_base_layer().weight) for layer in self._layers]

    def __enter__(self) -> Self:
        with torch.no_grad():
            for layer in self._layers:
                weight = layer.get_base_layer().weight
                # One rounding, of the sum.
                weight.copy_(weight.float() + layer.get_delta_weight(ADAPTER).float())
        return self

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for layer, kept in zip(self._layers, self._kept, strict=True):
                layer.get_base_layer().weight.copy_(kept)


def _on_host(weight: torch.Tensor) -> torch.Tensor:
    kept = torch.empty(weight.shape, dtype=weight.dtype, pin_memory=weight.is_cuda)
    return kept.copy_(weight.detach())
