"""What an adapter adds to a model's linear layers on a CPU, layer by layer as the engine decides.

    adapter = adapter_of(recipe)                 None where all weights are trained
    layers = LinearWork.of(shape, adapter, tokens)
    layers.forward, layers.backward              FLOPs of a micro-batch of so many tokens
    layers.traffic                               values that adapters beside their weights add

The head is not among them. A layer whose input needs no gradient (those that read embeddings)
counts as one that does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from budgetrl.engine.least_work import beside, is_less_work, summed
from budgetrl.estimation.shapes import ENDS, ModelShape
from budgetrl.recipe.schema import EngineName, Recipe


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA beside the weights of some layers."""

    rank: int
    targets: Sequence[str] | None = None
    """Names of layers; None: all linear ones of the blocks."""
    has_choice: bool = True
    """Whether a layer may add it to its weight first (`engine.one_product`)."""


def adapter_of(recipe: Recipe) -> Adapter | None:
    """The adapter that a recipe trains; None where all weights are trained."""
    lora, model = recipe.lora, recipe.model
    if lora.is_full:
        return None
    return Adapter(
        rank=lora.adapter_rank,
        targets=None if lora.targets == "all-linear" else lora.targets,
        has_choice=recipe.engine.name is EngineName.PLAIN
        and model.dtype == "float32"
        and not model.load_in_4bit
        and not lora.dropout,
    )


@dataclass(frozen=True, slots=True)
class LinearWork:
    """Of all linear layers of a model and their adapters, for one micro-batch."""

    forward: float = 0.0
    """FLOPs."""
    backward: float = 0.0
    traffic: float = 0.0
    """Values of activations that adapters add to the outputs of their layers."""

    @classmethod
    def of(cls, shape: ModelShape, adapter: Adapter | None, tokens: float) -> Self:
        """Count it.

        Args:
            shape: of the model.
            adapter: that is trained; None: all weights are.
            tokens: of the micro-batch, padding included.
        """
        if adapter is None:
            products = 2.0 * tokens * shape.linear_params
            return cls(products, 2 * products)
        forward = backward = traffic = 0.0
        targets = shape.linears if adapter.targets is None else adapter.targets
        for name, (inputs, outputs) in shape.linears.items():
            rank = adapter.rank if name in targets else 0
            layer = tokens, rank, inputs, outputs
            if adapter.has_choice and is_less_work(tokens, rank, outputs, inputs):
                work = summed(*layer)
            else:
                work = beside(*layer)
                traffic += tokens * outputs * bool(rank)
            forward += work.forward
            backward += work.backward
        ends = len({*targets} & {*ENDS}) * adapter.rank * (shape.hidden + shape.vocab)
        forward = shape.layers * forward + tokens * ends
        backward = shape.layers * backward + 2 * tokens * ends
        return cls(2 * forward, 2 * backward, shape.layers * traffic)
