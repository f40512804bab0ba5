"""Proof that an adapter takes part: the model's next-token logits differ from its base's."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from budgetrl.engine.adapter import ADAPTER
from budgetrl.engine.base import Engine
from budgetrl.engine.logits import scoring
from budgetrl.engine.merging import lora_layers, merged
from budgetrl.errors import ModelError
from budgetrl.recipe.schema import EngineName

PROMPTS = 3
_MATRIX = re.compile(r"\.lora_(A|B|embedding_A|embedding_B)\.\w+(\.weight)?$")


def adapter_effect(engine: Engine, prompts: Sequence[Sequence[int]]) -> float:
    """The largest difference in next-token logits between policy and base, over the prompts.

    The policy's side is computed as completions are drawn: with the adapter merged (plain), or
    beside the weights (vLLM). So is its base's, of which an adapter of no effect leaves every bit:
    merged weights lie in another order, and products by them round otherwise.

    Raises:
        ModelError: the policy's logits are no numbers.
    """
    model = engine.model
    plain = engine.name == EngineName.PLAIN
    rows = [torch.tensor([list(ids)], device=model.device) for ids in prompts]

    def logits() -> torch.Tensor:
        return torch.stack([model(input_ids=row).logits[0, -1].float() for row in rows])

    with scoring(model):
        with _merged_without_effect(model) if plain else model.disable_adapter():
            base = logits()
        with merged(model) if plain else nullcontext():
            policy = logits()
    if bool(policy.isnan().any()):
        raise ModelError(
            "with the adapter the model's logits are not numbers (NaN).",
            hint="Its weights hold NaN or are far too large: take an earlier one.",
        )
    # A model may bar tokens by logits of minus infinity, on both sides.
    return float((policy - base).nan_to_num(nan=0.0).abs().max())


@contextmanager
def _merged_without_effect(model: Any) -> Iterator[None]:
    """As `merged`, with no part of the adapter."""
    scalings = [layer.scaling for layer in lora_layers(model)]
    kept = [scaling[ADAPTER] for scaling in scalings]
    try:
        for scaling in scalings:
            scaling[ADAPTER] = 0.0
        with merged(model):
            yield
    finally:
        for scaling, value in zip(scalings, kept, strict=True):
            scaling[ADAPTER] = value


def prove_applied(engine: Engine, prompts: Sequence[Sequence[int]]) -> bool:
    """Whether an adapter does anything; proven before it is evaluated.

    Args:
        engine: with the adapter loaded.
        prompts: token ids; the first three are tried.

    Returns:
        False if every B matrix is exactly zero and nothing else was trained, so that the policy is
        its base. True of weights that were trained as a whole: there is no base beside them.

    Raises:
        ModelError: the adapter is not zero, and yet the logits are those of the base; or no
            numbers.
    """
    if engine.model is None:
        return False
    if engine.adapter_is_zero():
        return _trains_besides(engine.model)
    if not hasattr(engine.model, "disable_adapter"):
        return True
    if adapter_effect(engine, prompts[:PROMPTS]) == 0.0:
        raise ModelError(
            f"the adapter is not zero, but the logits on {len(prompts[:PROMPTS])} prompts are "
            "exactly those of the base model: it is not applied.",
            hint="Its values may be too small for the model's dtype, or its names do not match.",
        )
    return True


def _trains_besides(model: Any) -> bool:
    """Whether an adapter has more than its matrices: whole modules, biases, DoRA's magnitudes."""
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    return not all(_MATRIX.search(name) for name in trained)
