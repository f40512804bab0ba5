"""GRPO written out plainly in float64: what the real trainer has to agree with.

    advantages(rewards, scale)      P groups of G rewards -> P groups of G numbers
    loss(rows, settings)            a scalar; its gradient is the update

There are no batches, no padding and no masks here: every completion is a row of its own length.
Sources: GRPO, arXiv 2402.03300, Eq. 3 (objective) and Eq. 4 (KL, the k3 estimator); DAPO,
2503.14476, Eq. 8 (token mean over the batch, two clip bounds); Dr. GRPO, 2503.20783 (a constant
length instead of each row's own).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, pvariance, stdev

import torch
from torch import Tensor


@dataclass(frozen=True)
class Settings:
    kind: str
    """grpo, dapo or dr_grpo: what the sum over tokens is divided by."""
    beta: float
    max_tokens: int
    epsilon: float = 0.2
    epsilon_high: float = 0.2


@dataclass(frozen=True)
class Row:
    """One completion of T tokens; all tensors are float64 of shape (T,)."""

    logps: Tensor
    old_logps: Tensor
    ref_logps: Tensor
    advantage: float
    counted: bool = True
    """False for a truncated row that is masked: a row without tokens."""
    kept: bool = True
    """False for a row that is left out by the recipe: in every divisor, but without a loss."""


def advantages(rewards: Sequence[Sequence[float | None]], scale: str) -> list[list[float]]:
    """(r - group mean) / (std + 1e-4); a row without reward has 0 and is in no mean and no std."""
    everything = [reward for group in rewards for reward in group if reward is not None]
    result = []
    for group in rewards:
        known = [reward for reward in group if reward is not None]
        pool = everything if scale == "batch" else known
        # The deviation of one reward is unknown, so nothing can be learnt from it.
        alone = scale != "none" and len(pool) < 2
        divisor = 1.0 if scale == "none" or alone else stdev(pool) + 1e-4
        result.append([0.0 if r is None or alone else (r - fmean(known)) / divisor for r in group])
    return result


def down_sampled(
    rewards: Sequence[Sequence[float | None]], count: int, scale: str
) -> tuple[list[list[float]], list[list[bool]]]:
    """Advantages and rows of PODS (2504.13818): the first, higher subset of largest variance."""
    kept = []
    for group in rewards:
        known = [row for row, reward in enumerate(group) if reward is not None]
        subsets = list(combinations(known, min(count, len(known))))
        rewards_of = [[reward for row in s if (reward := group[row]) is not None] for s in subsets]
        spread = [
            (round(pvariance(r), 9), round(sum(r), 9)) if r else (0.0, 0.0) for r in rewards_of
        ]
        best = subsets[spread.index(max(spread))]
        kept.append([row in best for row in range(len(group))])
    masked = [
        [r if keep else None for r, keep in zip(g, keeps, strict=True)]
        for g, keeps in zip(rewards, kept, strict=True)
    ]
    return advantages(masked, scale), kept


def token_losses(row: Row, settings: Settings) -> Tensor:
    """Clipped surrogate with its sign turned, plus beta times the k3 estimate of the KL."""
    ratio = (row.logps - row.old_logps).exp()
    clipped = ratio.clamp(1 - settings.epsilon, 1 + settings.epsilon_high)
    surrogate = torch.minimum(ratio * row.advantage, clipped * row.advantage)
    gap = row.ref_logps - row.logps
    return -surrogate + settings.beta * (gap.exp() - gap - 1)


def loss(rows: Sequence[Row], settings: Settings) -> Tensor:
    """The loss of one update."""
    counted = [row for row in rows if row.counted]
    sums = [row.kept * token_losses(row, settings).sum() for row in counted]
    lengths = [len(row.logps) for row in counted]
    if settings.kind == "grpo":  # mean over the tokens of a row, then over rows
        return sum(s / n for s, n in zip(sums, lengths, strict=True)) / len(rows)
    if settings.kind == "dapo":  # mean over all tokens
        return sum(sums) / sum(lengths)
    assert settings.kind == "dr_grpo"  # every row counts as max_tokens long
    return sum(sums) / (len(rows) * settings.max_tokens)
