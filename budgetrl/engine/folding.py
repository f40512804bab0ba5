"""An adapter folded into the base weights that a sampler shares, and taken out bit for bit.

    folding = Folding(model)
    with folding.folded() as share:
        share is None       every weight is W + scaling * B A, in the storage that it always had
        else                of some layer's adapter only this share would be left: nothing is folded

Where it is folded the sampler draws without an adapter. Subtracting what was added would leave
rounding errors behind, so the original weights are kept in the host's memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from budgetrl.engine.adapter import ADAPTER
from budgetrl.engine.kept_share import LEAST, kept_share
from budgetrl.engine.merging import lora_layers


class Folding:
    """Folds and unfolds the current adapter of one model; not for quantised weights."""

    def __init__(self, model: Any) -> None:
        self._layers = list(lora_layers(model))
        self._kept = [_on_host(layer.get_base_layer().weight) for layer in self._layers]

    @contextmanager
    def folded(self) -> Iterator[float | None]:
        """The adapter in the weights; or the share of it that would be left, if that is too small.

        The share is that of the first layer of which less than `LEAST` is left.
        """
        share = self._fold()
        if share is not None:
            self._unfold()
        try:
            yield share
        finally:
            if share is None:
                self._unfold()

    @torch.no_grad()
    def _fold(self) -> float | None:
        for layer in self._layers:
            weight, delta = layer.get_base_layer().weight, layer.get_delta_weight(ADAPTER).float()
            folded = (weight.float() + delta).to(weight.dtype)  # one rounding, of the sum
            share = kept_share(weight, folded, delta)
            if share < LEAST:
                return share
            weight.copy_(folded)
        return None

    @torch.no_grad()
    def _unfold(self) -> None:
        for layer, kept in zip(self._layers, self._kept, strict=True):
            layer.get_base_layer().weight.copy_(kept)


def _on_host(weight: torch.Tensor) -> torch.Tensor:
    kept = torch.empty(weight.shape, dtype=weight.dtype, pin_memory=weight.is_cuda)
    return kept.copy_(weight.detach())
