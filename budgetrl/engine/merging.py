"""The adapter inside the weights while a model draws, and the same bits afterwards.

    with merged(model) as share:      every adapted layer is W + scaling * B A, where that is exact

Unmerged LoRA layers cost about half of the forward time of a small model. Of a model whose weights
a sampler shares see `engine.folding`.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners import lora
from peft.tuners.lora import LoraLayer, ParamWrapper

from budgetrl.engine.adapter import ADAPTER
from budgetrl.engine.kept_share import LEAST, kept_share


@contextmanager
def merged(model: Any, rollout: bool = False) -> Iterator[float | None]:
    """A model that draws, with the adapter folded into its weights; the same bits after it.

    Float32 weights take it always. Those of fewer bits do so for a rollout alone, and only where
    `LEAST` of every layer's adapter is left; else it stays beside them, and the share of the first
    layer that loses more is given. Quantised weights never take it.

    PEFT's own unmerge subtracts what it added, which leaves rounding errors behind; so layers get
    weights of their own for a while. Their own: a tied head is one tensor with the embedding, and
    an adapter of one of them must not reach the other.
    """
    was_training = model.training
    layers = _mergeable(model)
    kept = [layer.get_base_layer().weight for layer in layers]
    checkpointing = bool(getattr(model, "is_gradient_checkpointing", False))

    def put_back() -> None:
        for layer, weight in zip(layers, kept, strict=True):
            layer.get_base_layer().weight = weight
            layer.merged_adapters.clear()

    try:
        model.eval()
        if checkpointing:
            model.gradient_checkpointing_disable()
        share = _merge(layers, rollout)
        if share is not None:
            put_back()
        yield share
    finally:
        put_back()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train(was_training)


def merge_for_good(model: Any) -> None:
    """The adapter of a model that is only read, inside its weights if these are all float32."""
    _merge(_mergeable(model), rollout=False)


def _mergeable(model: Any) -> list[LoraLayer]:
    """All layers with an adapter; none where one has it elsewhere too than in one weight.

    PEFT adapts experts of a mixture as parameters of one module, and adds `lora_bias` to the base's
    own bias: neither would be put back afterwards, so such an adapter stays beside the weights.
    """
    layers = list(lora_layers(model))
    elsewhere = any(isinstance(layer, ParamWrapper) or layer.lora_bias[ADAPTER] for layer in layers)
    return [] if elsewhere else layers


@torch.no_grad()
def sums(layer: LoraLayer) -> dict[str, torch.Tensor]:
    """Parameters of a layer's base with the adapter in them, in float32; the base stays as it is.

    PEFT's own rule for the kind of adapter (DoRA, a bias, experts), whatever the base's type is.

    Raises:
        RuntimeError: there is no such sum, as of a bias where the base has none.
    """
    base = layer.get_base_layer()
    kept = dict(base.named_parameters(recurse=False))
    try:
        for name, weight in kept.items():
            setattr(base, name, torch.nn.Parameter(weight.float().clone(), requires_grad=False))
        layer.merge(adapter_names=[ADAPTER])
        return {name: getattr(base, name).detach() for name in kept}
    finally:
        for name, weight in kept.items():
            setattr(base, name, weight)
        layer.merged_adapters.clear()


def _merge(layers: Sequence[LoraLayer], rollout: bool) -> float | None:
    """Merge every layer, or none; the share of the first that would keep too little."""
    dtypes = {layer.get_base_layer().weight.dtype for layer in layers}
    exact = dtypes <= {torch.float32}
    if not exact and not (rollout and all(dtype.is_floating_point for dtype in dtypes)):
        return None
    for layer in layers:
        weight = layer.get_base_layer().weight
        layer.get_base_layer().weight = own = copy.copy(weight)
        if exact and is_plain(layer, ADAPTER):
            own.data = _sum_by_columns(layer, weight.data)
            layer.merged_adapters.append(ADAPTER)
            continue
        own.data = weight.data.clone()
        layer.merge(adapter_names=[ADAPTER])
        if not exact:
            share = kept_share(
                weight.detach(), own.detach(), layer.get_delta_weight(ADAPTER).float()
            )
            if share < LEAST:
                return share
    return None


def is_plain(layer: Any, name: str) -> bool:
    """Whether a layer is a linear one whose adapter adds s B A to its weight and nothing else.

    Not PEFT's other kinds (DoRA and the like), nor one with a bias.
    """
    return (
        isinstance(layer, lora.Linear)
        and type(layer.get_base_layer()) is torch.nn.Linear
        and name not in layer.lora_variant
        and not layer.lora_bias[name]
    )


@torch.no_grad()
def _sum_by_columns(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """W + s B A (outputs, inputs), with the outputs of an input side by side in memory.

    Products with few rows of activations are up to half as fast again so.
    """
    a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    return torch.addmm(weight.t(), a.t(), b.t(), alpha=layer.scaling[ADAPTER]).t()


@contextmanager
def drawing_in(model: Any, dtype: torch.dtype | None) -> Iterator[None]:
    """A model whose float32 weights are of another type while it draws; the same bits after it.

    Autocast would make that type of every weight anew for each token.

    Args:
        model: trained as a whole.
        dtype: of its passes; None: as they are.
    """
    weights = [] if dtype is None else list(model.parameters())
    kept = [weight.data for weight in weights]
    try:
        for weight in weights:
            weight.data = weight.data.to(dtype)
        yield
    finally:
        for weight, data in zip(weights, kept, strict=True):
            weight.data = data


def lora_layers(model: Any) -> Iterator[LoraLayer]:
    """Layers of a PEFT model that an adapter is part of."""
    return (module for module in model.modules() if isinstance(module, LoraLayer))
