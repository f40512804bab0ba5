"""A model that reads prompts and tokens, with the cache of what each row of a batch has read.

    reader = Reader(model, prompts, stems)
    logits = reader.read_prompts()          then reader.read(tokens), reader.keep(rows)

A prompt that several rows share is read once, and its keys and values are given to each of them. So
is the stem of a prompt, which is how a longer one begins: what the longer one has more is masked,
and the rest of the prompt is read after it. Shapes: B rows, P prompts that are read whole, V
vocabulary.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from budgetrl.engine.logits import are_of_another, scoring
from budgetrl.errors import ModelError, first_line, is_out_of_memory

_RECURRENT = "cache_params"
_CACHES = ("past_key_values", _RECURRENT)
"""Names under which models take a cache; the second of those that have a state in its place."""
_TRIED = ((1, 2, 3, 4, 5), (1, 2, 3, 4, 6), (4, 5, 6))
"""Tokens that reading is tried on: of two rows with one prompt, and of a shorter one."""


class Reader:
    """Reads the prompts of a batch, and then a token of each row at a time.

    Args:
        model: a causal language model in evaluation mode.
        prompts: token ids of B rows.
        stems: of each, as in `Request`; none: of no prompt.

    Raises:
        ModelError: the model takes no cache of what it has read.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], stems: Sequence[int] = ()
    ) -> None:
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
        self._sees_past = cache != _RECURRENT
        # Only where a cache holds all that was read can a part of it be masked.
        layers = self._cache.layers
        maskable = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
        rows = list(map(tuple, prompts))
        asked = stems if stems and maskable and self._takes_positions else [0] * len(rows)
        self._stems = _found(rows, asked)
        whole, self._which = _read_whole(rows, self._stems)
        self._rests = [ids[n:] if n else () for ids, n in zip(rows, self._stems, strict=True)]
        longest = max(map(len, whole))
        self._prompts = self._tensor([[0] * (longest - len(ids)) + [*ids] for ids in whole])
        self._mask = self._tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in whole])
        self._positions = torch.empty(0)

    def read_prompts(self) -> torch.Tensor:
        """Logits after the prompt of each row (B, V)."""
        positions = (self._mask.cumsum(dim=-1) - 1).clamp(min=0)
        logits = self._forward(self._prompts, positions)
        self._positions = positions[:, -1:]
        if len(self._which) > len(self._prompts):
            which = self._tensor(self._which)
            logits = logits[which]
            self.keep(which)
        return self._read_rests(logits) if any(self._stems) else logits

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits after one more token of each row (B, V)."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        self._positions = self._positions + 1
        return self._forward(tokens[:, None], self._positions)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some rows, by their places; one may become several."""
        self._cache.reorder_cache(rows)
        self._mask, self._positions = self._mask[rows], self._positions[rows]

    def _read_rests(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits after the rest of each prompt, or those given where there is none (B, V)."""
        longest = max(map(len, self._rests))
        rests = self._tensor([[0] * (longest - len(ids)) + [*ids] for ids in self._rests])
        read = self._tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in self._rests])
        stems = self._tensor(self._stems)[:, None]
        stemmed = stems > 0
        self._mask *= ~stemmed | (self._mask.cumsum(dim=-1) <= stems)
        self._mask = torch.cat([self._mask, read], dim=-1)
        positions = (stems + read.cumsum(dim=-1) - 1).clamp(min=0)
        found = self._forward(rests, positions)
        self._positions = torch.where(stemmed, positions[:, -1:], self._positions)
        return torch.where(stemmed, found, logits)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        given = self._given | ({"position_ids": positions} if self._takes_positions else {})
        # Mamba multiplies what it reads by the mask, which may only be of the tokens that it reads.
        mask = self._mask if self._sees_past else self._mask[:, -ids.shape[1] :]
        logits: torch.Tensor = self._model(input_ids=ids, attention_mask=mask, **given).logits
        return logits[:, -1]

    def _tensor(self, values: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(values, device=self._model.device)


def check_reading(model: Any) -> None:
    """Refuse a model that says something else with a cache, beside other rows, than alone.

    Raises:
        ModelError: it would be another model that draws, without any error.
    """
    name = type(model).__name__
    with scoring(model):
        try:
            reader = Reader(model, [row[:-1] for row in _TRIED])
            reader.read_prompts()
            found = reader.read(torch.tensor([row[-1] for row in _TRIED], device=model.device))
            rows = [torch.tensor([row], device=model.device) for row in _TRIED]
            alone = torch.cat([model(input_ids=row).logits[:, -1] for row in rows])
        except (LookupError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(
                f"{name} cannot read with a cache and padding: {first_line(error)}.",
                hint="Take another model: the plain engine draws so alone.",
            ) from None
    if are_of_another(found, alone, model.dtype):
        raise ModelError(
            f"{name} says something else with a cache and padding than of one row alone.",
            hint="Take another model, one that is causal: the plain engine draws so alone.",
        )


def _found(rows: Sequence[tuple[int, ...]], stems: Sequence[int]) -> list[int]:
    """Stems with which a prompt begins that is read whole; 0 for others."""
    whole = {ids for ids, stem in zip(rows, stems, strict=True) if not stem}
    begin = {n: {ids[:n] for ids in whole} for n in {*stems}}
    return [n if ids[:n] in begin[n] else 0 for ids, n in zip(rows, stems, strict=True)]


def _read_whole(
    rows: Sequence[tuple[int, ...]], stems: Sequence[int]
) -> tuple[list[tuple[int, ...]], list[int]]:
    """The prompts that are read whole, and which of them each row begins with."""
    whole = dict.fromkeys(ids for ids, stem in zip(rows, stems, strict=True) if not stem)
    begin = {n: {ids[: n or None]: i for i, ids in enumerate(whole)} for n in {*stems}}
    which = [begin[n][ids[: n or None]] for ids, n in zip(rows, stems, strict=True)]
    return list(whole), which
