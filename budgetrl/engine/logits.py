"""What a model's logits say of a completion: log-probabilities of its tokens, and exact entropy.

One row at a time; the head is applied to the hidden states in pieces, so that a vocabulary of 152k
at 3,584 tokens stays below 1 GiB beyond the model itself. Shapes: C completion tokens, H hidden
width, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

PIECE = 256
"""Positions whose logits exist at a time: 148 MiB in float32 at V = 152k, a few times over."""


def logps_of(
    model: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int], temperature: float
) -> list[float]:
    """Log-probability of each completion token at a temperature."""
    found: list[float] = []
    for log_p, ids in _pieces(model, prompt_ids, completion_ids, temperature):
        found += log_p.gather(1, ids[:, None])[:, 0].tolist()
    return found


def entropy_of(
    model: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int], temperature: float
) -> float:
    """Entropy of the tempered distribution, summed over a completion, in nats (paper Eq. 1)."""
    total = 0.0
    for log_p, _ in _pieces(model, prompt_ids, completion_ids, temperature):
        total += float(-(log_p.exp() * log_p).nan_to_num(0.0).sum(dtype=torch.float64))
    return total


def _pieces(
    model: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int], temperature: float
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Log-probabilities (piece, V) and the tokens there (piece,), along a completion."""
    if not completion_ids:
        return
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    logits_at = logits_of(inner)
    row = torch.tensor([[*prompt_ids, *completion_ids]], device=model.device)
    count = len(completion_ids)
    with scoring(model):
        # The position before a token predicts it; the last one predicts what comes after.
        hidden = inner.base_model(input_ids=row)[0][0, -count - 1 : -1]
        for first in range(0, count, PIECE):
            logits = logits_at(hidden[first : first + PIECE]) / (temperature or 1.0)
            ids = row[0, len(prompt_ids) + first :][:PIECE]
            yield torch.log_softmax(logits, dim=-1), ids


@contextmanager
def scoring(model: Any) -> Iterator[None]:
    """A model that only reads: no dropout and no gradients; trained on afterwards as before."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def logits_of(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes float32 logits (N, V) of last hidden states (N, H)."""
    head, cap = model.get_output_embeddings(), _softcap(model)
    return lambda hidden: cap(head(hidden).float())


def _softcap(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Gemma bounds its logits softly; other models leave them as they are."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return (lambda logits: logits) if cap is None else lambda logits: cap * torch.tanh(logits / cap)
