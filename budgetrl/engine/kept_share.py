"""How much of an adapter is left when it is added to weights of few bits.

Adding a delta d to a bfloat16 weight loses whatever lies below half a step of that weight. After an
update the weight has changed by f, and p = sum(f d) / sum(d d) is the projection of f on d: 1 where
all of it arrived, and near 0 where most of it was rounded away. In a training that is the rule for
long: random weights of deviation 0.03, every element of B drifting by 3e-6 an update, rank 256 at a
scale of 0.5 have p = 0.07 after 10 updates, 0.59 after 100 and 0.96 after 300.
"""

import torch

LEAST = 0.98
"""Below it folded weights would sample another policy than the one that is trained."""


def kept_share(before: torch.Tensor, after: torch.Tensor, delta: torch.Tensor) -> float:
    """The projection p of what changed on what was added; 1 where nothing was.

    Args:
        before: a layer's weight.
        after: the same, with the delta added and rounded.
        delta: what was added, in float32.
    """
    with torch.no_grad():
        total = delta.square().sum()
        if not bool(total):
            return 1.0
        return float(((after.float() - before.float()) * delta).sum() / total)
