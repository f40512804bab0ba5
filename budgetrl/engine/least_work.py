"""Multiplications of an adapted linear layer, and which of the two ways to compute it has fewer.

    beside(tokens, rank, inputs, outputs)      x W + s (x A) B, as PEFT does
    summed(tokens, rank, inputs, outputs)      x (W + s A B)

The weight W (inputs x outputs) is frozen; A (inputs x rank) and B (rank x outputs) are trained. The
engine asks which way to go (`engine.one_product`), the estimate how long it takes. No torch.
"""

from typing import NamedTuple


class Work(NamedTuple):
    """Multiplications of one micro-batch."""

    forward: float
    backward: float


def beside(tokens: float, rank: int, inputs: int, outputs: int) -> Work:
    """Activations times the weight, and times the adapter; W has no gradient."""
    weight, adapter = inputs * outputs, rank * (inputs + outputs)
    return Work(tokens * (weight + adapter), tokens * (weight + 2 * adapter))


def summed(tokens: float, rank: int, inputs: int, outputs: int) -> Work:
    """A B once for all tokens, then one product; the gradients of A and B come from the sum's."""
    products = inputs * outputs * (tokens + rank)
    return Work(products, 2 * products)


def is_less_work(tokens: float, rank: int, outputs: int, inputs: int) -> bool:
    """Whether the sum takes fewer multiplications, forward and backward together."""
    layer = tokens, rank, inputs, outputs
    return sum(summed(*layer)) < sum(beside(*layer))
