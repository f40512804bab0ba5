"""Completions token by token: `transformers.generate` without what it does in vain.

    drawn = decode(model, prompts, seeds, sampling, ends, should_stop)

What several prompts share is read once (`engine.reading`). A row that has ended leaves the batch
and its cache as soon as an eighth of the batch has ended. Both are by counts alone, so the same
requests give the same bits. Shapes: B rows, T tokens of the longest completion.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from budgetrl.engine.base import SamplingSpec, StopCheck
from budgetrl.engine.reading import Reader
from budgetrl.engine.sampling import SeededSampler

LEAVE = 8
"""A batch shrinks when one of so many of its rows has ended: a cache is copied for it."""


class Drawn(NamedTuple):
    """Completions as token ids, and what was seen while drawing them."""

    ids: list[list[int]]
    """Per row, the end token included where the model wrote one."""
    logps: list[list[float]]
    """Per row, of each of its tokens, after temperature."""
    entropy_sum: list[float]
    """Per row, exact entropy summed over its tokens, in nats."""
    finished: list[bool]
    """False for rows that were cut off by a stop, not by the token limit."""
    kept_share: float | None = None
    """As in `Rollout`."""


@torch.no_grad()
def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: SamplingSpec,
    ends: Iterable[int],
    should_stop: StopCheck,
    stems: Sequence[int] = (),
) -> Drawn:
    """One completion for each prompt (B), each from its own seed.

    Args:
        model: a causal language model in evaluation mode.
        prompts: token ids.
        seeds: one per prompt.
        sampling: how tokens are drawn.
        ends: tokens that end a completion.
        should_stop: asked after each token.
        stems: of each prompt, as in `Request`; none: of no prompt.

    Raises:
        ModelError: the model takes no cache of what it has read.
    """
    device = model.device
    rooms = torch.tensor([sampling.room(len(ids)) for ids in prompts], device=device)
    end_ids = torch.tensor(sorted(ends), device=device)
    sampler = SeededSampler(sampling, seeds, device)
    reader = Reader(model, prompts, stems)
    rows = torch.arange(len(prompts), device=device)
    """Where the rows of the batch are among the prompts."""
    shape = (len(prompts), max(1, int(rooms.max())))
    ids = torch.zeros(shape, dtype=torch.long, device=device)
    logps, entropies = (torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(2))
    lengths = torch.zeros_like(rooms)
    running = torch.ones_like(rows, dtype=torch.bool)
    logits = reader.read_prompts()
    for step in range(shape[1]):
        token = sampler.draw(logits)
        for store, value in ((ids, token.id), (logps, token.logp), (entropies, token.entropy)):
            store[rows, step] = value.to(store.dtype)
        lengths[rows] += running
        running &= ~torch.isin(token.id, end_ids) & (rooms[rows] > step + 1)
        going = int(running.sum())
        if should_stop() or not going:
            break
        tokens = token.id
        if going <= len(rows) - max(1, len(rows) // LEAVE):
            kept = running.nonzero()[:, 0]
            rows, running, tokens = rows[kept], running[kept], tokens[kept]
            sampler.keep(kept)
            reader.keep(kept)
        logits = reader.read(tokens)
    counts = lengths.tolist()
    unfinished = set(rows[running].tolist())
    return Drawn(
        ids=[row[:count] for row, count in zip(ids.tolist(), counts, strict=True)],
        logps=[row[:count] for row, count in zip(logps.tolist(), counts, strict=True)],
        entropy_sum=[
            float(row[:count].sum()) for row, count in zip(entropies, counts, strict=True)
        ],
        finished=[row not in unfinished for row in range(len(prompts))],
    )
