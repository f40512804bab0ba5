"""Proof that an adapter takes part: the model's next-token logits differ from its base's."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch

from budgetrl.engine.base import Engine
from budgetrl.engine.logits import scoring
from budgetrl.engine.merging import merged
from budgetrl.errors import ModelError
from budgetrl.recipe.schema import EngineName

PROMPTS = 3


def adapter_effect(engine: Engine, prompts: Sequence[Sequence[int]]) -> float:
    """The largest difference in next-token logits between policy and base, over the prompts.

    The policy's side is computed as completions are drawn: with the adapter merged (plain), or
    beside the weights (vLLM).

    Raises:
        ModelError: the policy's logits are no numbers.
    """
    model, largest = engine.model, 0.0
    with scoring(model):
        for ids in prompts:
            row = torch.tensor([list(ids)], device=model.device)
            with model.disable_adapter():
                base = model(input_ids=row).logits[0, -1].float()
            with merged(model) if engine.name == EngineName.PLAIN else nullcontext():
                policy = model(input_ids=row).logits[0, -1].float()
            if bool(policy.isnan().any()):
                raise ModelError(
                    "with the adapter the model's logits are not numbers (NaN).",
                    hint="Its weights hold NaN or are far too large: take an earlier one.",
                )
            # A model may bar tokens by logits of minus infinity, on both sides.
            largest = max(largest, float((policy - base).nan_to_num(nan=0.0).abs().max()))
    return largest


def prove_applied(engine: Engine, prompts: Sequence[Sequence[int]]) -> bool:
    """Whether an adapter does anything; proven before it is evaluated.

    Args:
        engine: with the adapter loaded.
        prompts: token ids; the first three are tried.

    Returns:
        False if every B matrix is exactly zero, so that the policy is its base. True of weights
        that were trained as a whole: there is no base beside them.

    Raises:
        ModelError: the adapter is not zero, and yet the logits are those of the base; or no
            numbers.
    """
    if engine.model is None or engine.adapter_is_zero():
        return False
    if not hasattr(engine.model, "disable_adapter"):
        return True
    if adapter_effect(engine, prompts[:PROMPTS]) == 0.0:
        raise ModelError(
            f"the adapter is not zero, but the logits on {len(prompts[:PROMPTS])} prompts are "
            "exactly those of the base model: it is not applied.",
            hint="Its values may be too small for the model's dtype, or its names do not match.",
        )
    return True
