"""Spend the update on rows that can teach: leave rows out, sort by length, swap groups.

Works on the tensors that TRL passes from rollout to loss. Shapes: B rows, P prompt columns
(left-padded), C completion columns (right-padded), V values per row.

What is left out has advantage 0, so its gradient is 0 (beta 0, no entropy bonus), but a loss that
divides by rows must not notice: `repack` scales the advantages of what stays.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

LIVE = "live"
"""Key of the row tensor (B,) that marks rows to keep."""
WINDOW = "window"
"""Key of the row tensor (B,) with the optimiser step of each row, counted from 0."""

_PROMPT = ("prompt_ids", "prompt_mask")
_SCALARS = ("num_items_in_batch",)

Batch = dict[str, Any]
"""What TRL hands from the rollout to the loss, whole (B rows) or as a micro-batch.

    prompt_ids, prompt_mask            (B, P) int64
    completion_ids, completion_mask    (B, C) int64
    advantages                         (B,) float32, 0 where a group teaches nothing
    num_items_in_batch                 () completion tokens of the update, for losses that divide so
    old_per_token_logps                (B, C) float32, with several optimiser steps on a rollout
    ref_per_token_logps                (B, C) float32, with beta > 0
    sampling_per_token_logps, importance_sampling_ratio    where vLLM samples
    live, window                       (B,) ours: taken out by `repack`
"""


def repack(
    batches: Sequence[Batch], *, loss_type: str, trim: bool, max_cells: int | None = None
) -> list[Batch]:
    """The same number of micro-batches with only the live rows, by length, and less padding.

    Args:
        batches: micro-batches of one rollout batch, of equal numbers of rows; without the key
            `live` all rows are kept, without `window` there is one optimiser step.
        loss_type: grpo and dr_grpo divide by the rows of a micro-batch; dapo by the tokens of
            the whole update, which stay counted in `num_items_in_batch`.
        trim: cut columns that are only padding.
        max_cells: rows times columns that a micro-batch may have; they are filled up to it, and the
            last ones are empty. None: even shares.
    """
    full_rows = batches[0]["completion_ids"].shape[0]
    rows = _joined(batches)
    live = rows.pop(LIVE) if LIVE in rows else torch.ones(_rows(rows))
    windows = rows.pop(WINDOW) if WINDOW in rows else torch.zeros_like(live, dtype=torch.long)
    updates = int(windows.max()) + 1
    lengths = rows["completion_mask"].sum(dim=1).to("cpu")
    packed = []
    for update in range(updates):
        inside = windows == update
        if updates > 1:  # of this update alone; TRL divides by the number of updates
            rows["num_items_in_batch"] = updates * rows["completion_mask"][inside].sum()
        # An index on the CPU fits tensors on any device, as one on a GPU does not.
        keep = (live.bool() & inside).nonzero()[:, 0].to("cpu")
        if trim or max_cells is not None:
            keep = keep[lengths[keep].argsort(stable=True)]
        parts = _split(keep, len(batches) // updates)
        if max_cells is not None:
            parts = _filled(keep, lengths + rows["prompt_ids"].shape[1], len(parts), max_cells)
        for part in parts:
            batch = {k: v if k in _SCALARS else v[part] for k, v in rows.items()}
            batch["advantages"] = batch["advantages"] * row_share(loss_type, len(part), full_rows)
            packed.append(_trimmed(batch) if trim and len(part) else batch)
    return packed


def row_share(loss_type: str, rows: int, full_rows: int) -> float:
    """By what a micro-batch of `rows` is scaled, so that each row weighs as in a full one."""
    return rows / full_rows if loss_type in ("grpo", "dr_grpo") else 1.0


def padding_share(batches: Sequence[Batch], mask: str = "completion_mask") -> float:
    """Padding among the tokens of a mask that an update computes; 0 without rows."""
    cells = sum(batch[mask].numel() for batch in batches)
    filled = sum(float(batch[mask].sum()) for batch in batches)
    return 1.0 - filled / cells if cells else 0.0


def zero_gradient_loss(model: torch.nn.Module) -> torch.Tensor:
    """The loss of a micro-batch without rows: 0, with zero gradients where there are none yet.

    Zero and not None, so that Adam's momentum goes on as for any update.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return torch.zeros((), device=next(model.parameters()).device, requires_grad=True)


def swap_groups(batch: Batch, fresh: Batch, into: Sequence[int], out_of: Sequence[int]) -> Batch:
    """A batch in which rows `into` are replaced by rows `out_of` of a fresh one.

    Both are re-padded to common widths, and the token count of the update is made anew.
    """
    merged: Batch = {}
    for key, value in batch.items():
        other = fresh[key]
        if key in _SCALARS:
            continue
        if value.dim() == 2 and value.shape[1] != other.shape[1]:
            value, other = _same_width(value, other, left=key in _PROMPT)
        merged[key] = value.clone()
        merged[key][list(into)] = other[list(out_of)]
    merged["num_items_in_batch"] = merged["completion_mask"].sum()
    return merged


def _joined(batches: Sequence[Batch]) -> Batch:
    first = batches[0]
    return {
        key: value if key in _SCALARS else torch.cat([batch[key] for batch in batches])
        for key, value in first.items()
        if torch.is_tensor(value) or key in _SCALARS
    }


def _rows(batch: Mapping[str, Any]) -> int:
    return int(batch["completion_ids"].shape[0])


def _split(keep: torch.Tensor, parts: int) -> list[torch.Tensor]:
    """Even shares; the longest rows are in the smallest shares."""
    return list(torch.tensor_split(keep, parts))


def _filled(
    keep: torch.Tensor, lengths: torch.Tensor, parts: int, max_cells: int
) -> list[torch.Tensor]:
    """As few shares as hold the rows, the longest first, and empty ones after them.

    They suffice: a share takes at least as many rows as an even one of the longest rows would.
    """
    shares: list[list[int]] = []
    for row in reversed(keep.tolist()):
        if not shares or (len(shares[-1]) + 1) * int(lengths[shares[-1][0]]) > max_cells:
            shares.append([])
        shares[-1].append(row)
    assert len(shares) <= parts
    return [torch.tensor(share, dtype=torch.long) for share in [*shares, *[[]] * parts][:parts]]


def _trimmed(batch: Batch) -> Batch:
    """Without columns that are padding in every row."""
    completion = int(batch["completion_mask"].sum(dim=1).max())
    prompt = int(batch["prompt_mask"].sum(dim=1).max())
    width = batch["completion_ids"].shape[1]
    trimmed = {}
    for key, value in batch.items():
        if key in _PROMPT:
            trimmed[key] = value[:, value.shape[1] - prompt :]
        elif torch.is_tensor(value) and value.dim() == 2 and value.shape[1] == width:
            trimmed[key] = value[:, : max(1, completion)]
        else:
            trimmed[key] = value
    return trimmed


def _same_width(a: torch.Tensor, b: torch.Tensor, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(a.shape[1], b.shape[1])

    def widened(tensor: torch.Tensor) -> torch.Tensor:
        missing = width - tensor.shape[1]
        return torch.nn.functional.pad(tensor, (missing, 0) if left else (0, missing))

    return widened(a), widened(b)
