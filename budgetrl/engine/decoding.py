"""Completions token by token: `transformers.generate` without what it does in vain.

    drawn = decode(model, prompts, seeds, sampling, ends, should_stop)

A prompt that several rows share is read once, and its keys and values are given to each of them. A
row that has ended leaves the batch and its cache as soon as an eighth of the batch has ended. Both
are by counts alone, so the same requests give the same bits. Shapes: B rows, P unique prompts, L
longest prompt, T tokens of the longest completion.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from budgetrl.engine.base import SamplingSpec, StopCheck
from budgetrl.engine.sampling import SeededSampler
from budgetrl.errors import ModelError

LEAVE = 8
"""A batch shrinks when one of so many of its rows has ended: a cache is copied for it."""
_CACHES = ("past_key_values", "cache_params")
"""Names under which models take a cache."""


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
) -> Drawn:
    """One completion for each prompt (B), each from its own seed.

    Args:
        model: a causal language model in evaluation mode.
        prompts: token ids.
        seeds: one per prompt.
        sampling: how tokens are drawn.
        ends: tokens that end a completion.
        should_stop: asked after each token.

    Raises:
        ModelError: the model takes no cache of what it has read.
    """
    device = model.device
    rooms = torch.tensor([sampling.room(len(ids)) for ids in prompts], device=device)
    end_ids = torch.tensor(sorted(ends), device=device)
    sampler = SeededSampler(sampling, seeds, device)
    reader = _Reader(model, prompts)
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


class _Reader:
    """A model with the cache of what each row of a batch has read."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        takes = inspect.signature(model.forward).parameters
        cache = next((name for name in _CACHES if name in takes), None)
        if cache is None:
            raise ModelError(
                f"{type(model).__name__} takes no cache of what it has read.",
                hint="Take another model: the plain engine draws with a cache only.",
            )
        self._cache = DynamicCache(config=model.config)
        self._given = {cache: self._cache, "use_cache": True, "return_dict": True}
        if "logits_to_keep" in takes:
            self._given["logits_to_keep"] = 1
        self._takes_positions = "position_ids" in takes
        unique = {ids: place for place, ids in enumerate(dict.fromkeys(map(tuple, prompts)))}
        longest = max(map(len, unique))
        device = model.device
        self._prompts = torch.tensor([[0] * (longest - len(i)) + [*i] for i in unique]).to(device)
        self._mask = torch.tensor(
            [[0] * (longest - len(ids)) + [1] * len(ids) for ids in unique], device=device
        )
        self._which = torch.tensor([unique[tuple(ids)] for ids in prompts], device=device)
        self._positions = torch.empty(0)

    def read_prompts(self) -> torch.Tensor:
        """Logits after the prompt of each row (B, V)."""
        positions = (self._mask.cumsum(dim=-1) - 1).clamp(min=0)
        logits = self._forward(self._prompts, positions)
        self._positions = positions[:, -1:]
        if len(self._which) > len(self._prompts):
            logits = logits[self._which]
            self.keep(self._which)
        return logits

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits after one more token of each row (B, V)."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        self._positions = self._positions + 1
        return self._forward(tokens[:, None], self._positions)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some rows, by their places; one may become several."""
        self._cache.reorder_cache(rows)
        self._mask, self._positions = self._mask[rows], self._positions[rows]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        given = self._given | ({"position_ids": positions} if self._takes_positions else {})
        logits: torch.Tensor = self._model(input_ids=ids, attention_mask=self._mask, **given).logits
        return logits[:, -1]
