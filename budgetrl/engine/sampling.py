"""Draw tokens so that each row depends on its own seed, not on the batch it is in.

    sampler = SeededSampler(sampling, seeds, device)
    token, logp, entropy = sampler.draw(logits)       one token for each row
    sampler.keep(rows)                                the others have ended

Categorical sampling by the inverse of the cumulative distribution: one uniform number a token, from
the row's own generator. One pass over the vocabulary gives the weights exp(logit - max); what is
wanted besides (the log-probability, the exact entropy before top-p and top-k cut it) comes of the
same weights. Shapes: B rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import LogitsProcessor, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from budgetrl.engine.base import SamplingSpec

_AHEAD = 64
"""Uniform numbers that a row draws at a time; any other number would change none of them."""
_BLOCK = 256
"""Neighbouring tokens whose weights are summed first: a token is found by its block."""


class Token(NamedTuple):
    """One drawn token of each row (B)."""

    id: torch.Tensor
    logp: torch.Tensor
    """Log-probability at the temperature, before cuts."""
    entropy: torch.Tensor
    """Of the tempered distribution before cuts, in nats."""


class SeededSampler:
    """Draws from logits, each row with its own random numbers.

    Args:
        sampling: temperature (0 is greedy), top_p, top_k, min_p.
        seeds: one per row.
        device: where the logits are.
    """

    def __init__(self, sampling: SamplingSpec, seeds: Sequence[int], device: torch.device) -> None:
        self._temperature = sampling.temperature
        self._cuts: list[LogitsProcessor] = []
        if sampling.top_k > 0:
            self._cuts.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            self._cuts.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p > 0.0:
            self._cuts.append(MinPLogitsWarper(sampling.min_p))
        self._device = device
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._uniforms = torch.empty(0)
        self._position = 0

    def draw(self, logits: torch.Tensor) -> Token:
        """One token for each row of logits (B, V)."""
        scores = logits.float()
        if self._temperature not in (0.0, 1.0):
            scores = scores / self._temperature
        # At most 0 each; -inf stays, where a model bars a token.
        scores = scores - scores.amax(dim=-1, keepdim=True)
        weights = _weights(scores)
        sums = weights.sum(dim=-1)
        total = sums.sum(dim=-1, dtype=torch.float64)
        if self._temperature == 0.0:
            chosen = scores.argmax(dim=-1)
        elif self._cuts:
            cut = scores
            for warper in self._cuts:
                cut = warper(None, cut)
            kept = _weights(cut)
            chosen = inverse_cdf(kept, kept.sum(dim=-1), self._uniform())
        else:
            chosen = inverse_cdf(weights, sums, self._uniform())
        log_total = total.log()
        logp = scores.gather(1, chosen[:, None])[:, 0] - log_total
        return Token(chosen, logp, log_total - _mean(weights, scores) / total)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the rows, by their places in the batch as it is now."""
        self._generators = [self._generators[row] for row in rows.tolist()]
        if len(self._uniforms):
            self._uniforms = self._uniforms[rows]

    def _uniform(self) -> torch.Tensor:
        """The next uniform number of each row, in [0, 1), float64 (B)."""
        place = self._position % _AHEAD
        if place == 0:
            drawn = [
                torch.rand(_AHEAD, generator=generator, dtype=torch.float64, device=self._device)
                for generator in self._generators
            ]
            self._uniforms = torch.stack(drawn)
        self._position += 1
        return self._uniforms[:, place]


def inverse_cdf(weights: torch.Tensor, sums: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first token (B) at which the running sum of weights exceeds uniform * sum.

    Args:
        weights: of the tokens, not negative, in blocks (B, blocks, block).
        sums: of each block (B, blocks).
        uniform: in [0, 1) (B).
    """
    up_to = sums.double().cumsum(dim=-1)
    target = (uniform * up_to[:, -1])[:, None]
    block = _first_above(up_to, target)
    before = (up_to - sums.double()).gather(1, block)
    inside = weights[torch.arange(len(weights), device=weights.device), block[:, 0]]
    token = _first_above(inside.double().cumsum(dim=-1), target - before)
    return (block * weights.shape[-1] + token)[:, 0]


def _first_above(running: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Where a running sum (B, n) exceeds a target (B, 1) first; its last increase if it never does.

    It may not by rounding, because the sum of a block is rounded elsewhere than its running sum.
    """
    above = (running <= target).sum(dim=-1, keepdim=True)
    last = (running < running[:, -1:]).sum(dim=-1, keepdim=True)
    return torch.minimum(above, last)


def _weights(scores: torch.Tensor) -> torch.Tensor:
    """exp of scores (B, V) in whole blocks (B, blocks, block), with zeros after the last token."""
    rows, vocabulary = scores.shape
    blocks = -(-vocabulary // _BLOCK)
    weights = torch.empty(rows, blocks * _BLOCK, device=scores.device)
    torch.exp(scores, out=weights[:, :vocabulary])
    weights[:, vocabulary:] = 0.0
    return weights.view(rows, blocks, _BLOCK)


def _mean(weights: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Sum of weight * score over the vocabulary (B); a barred token adds nothing."""
    flat = weights.flatten(1)[:, : scores.shape[1]]
    mean = torch.einsum("bv,bv->b", flat, scores)
    if bool(mean.isnan().any()):
        mean = torch.einsum("bv,bv->b", flat, scores.clamp(min=torch.finfo(torch.float32).min))
    return mean
