"""Reverse KL of a student to a teacher, token by token: exact over the vocabulary, in pieces.

    scored = reverse_kl(student, teacher, temperature)

Logits of both exist for a piece of the tokens at a time and are made again in the backward pass, so
a vocabulary of 152k, of which a piece is 64 tokens, costs no more than that. Shapes: N tokens, H
hidden width (each its own), V vocabulary, the same of both.

    KL(student || teacher) = sum over v of p_v (log p_v - log q_v),  p = softmax(logits / T)

Agarwal et al. 2024 (arXiv 2306.13649), Gu et al. 2024 (arXiv 2306.08543). TRL 1.14.2's
`DistillationTrainer` computes the same with `beta = 1.0`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from budgetrl.engine.logits import logits_of
from budgetrl.engine.plain import bare_model

LOGITS = 64 * 152_000
"""At a time, of each model: with what is made of them, some eight times as many float32 values."""


class Side(NamedTuple):
    """Last hidden states (N, H) of some tokens, and what makes logits (N, V) of them."""

    hidden: torch.Tensor
    head: Callable[[torch.Tensor], torch.Tensor]


class Scored(NamedTuple):
    """Sums over N tokens."""

    divergence: torch.Tensor
    """In nats; has a gradient."""
    entropy: torch.Tensor
    """Of the student's tempered distribution, in nats."""
    agreements: torch.Tensor
    """Tokens at which both have the same most likely one."""


def reverse_kl(student: Side, teacher: Side, temperature: float) -> Scored:
    """Divergence of the student from the teacher, summed over the tokens.

    Args:
        student: with gradients.
        teacher: without.
        temperature: of both distributions, above zero.
    """
    device = student.hidden.device
    sums = [torch.zeros((), device=device) for _ in range(3)]
    size = _piece_size(student)
    for first in range(0, len(student.hidden), size):
        piece = slice(first, first + size)
        found = checkpoint(
            _piece,
            student.hidden[piece],
            teacher.hidden[piece],
            student.head,
            teacher.head,
            temperature,
            use_reentrant=False,
        )
        sums = [total + part for total, part in zip(sums, found, strict=True)]
    return Scored(*sums)


def _piece_size(side: Side) -> int:
    """Tokens of a piece: as many as its vocabulary leaves room for."""
    with torch.no_grad():
        vocabulary = side.head(side.hidden[:1]).shape[-1]
    return max(1, LOGITS // int(vocabulary))


def _piece(
    student: torch.Tensor,
    teacher: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    teacher_head: Callable[[torch.Tensor], torch.Tensor],
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = head(student)
    with torch.no_grad():
        wanted = teacher_head(teacher).to(logits.device)
    # Heads of one family are padded to different widths, with tokens that no text has.
    shared = min(logits.shape[-1], wanted.shape[-1])
    log_p = torch.log_softmax(logits[:, :shared] / temperature, dim=-1)
    log_q = torch.log_softmax(wanted[:, :shared] / temperature, dim=-1)
    p = log_p.exp()
    divergence = (p * (log_p - log_q)).sum()
    with torch.no_grad():
        entropy = -(p * log_p).sum()
        agreements = (log_p.argmax(-1) == log_q.argmax(-1)).sum()
    return divergence, entropy, agreements.to(divergence.dtype)


def side_of(
    model: Any, prompt: tuple[torch.Tensor, torch.Tensor], completion: tuple[torch.Tensor, ...]
) -> Side:
    """One model's view of the completion tokens of some rows.

    Args:
        model: whose parameters' gradients are wanted or off.
        prompt: ids and mask (B, P), padding on the left.
        completion: ids and mask (B, C), padding on the right; N tokens have a mask of 1.
    """
    inner = bare_model(model)
    device = inner.get_input_embeddings().weight.device
    ids = torch.cat([prompt[0], completion[0]], dim=1).to(device)
    mask = torch.cat([prompt[1], completion[1]], dim=1).to(device)
    # The position before a token predicts it.
    predicts = torch.cat([torch.zeros_like(prompt[1])[:, 1:], completion[1]], dim=1).to(device)
    # Unsloth's forward ignores the mask in training: padding has to be on the right, unseen.
    width = int(mask.sum(dim=1).max())
    order = torch.argsort(mask, dim=1, descending=True, stable=True)[:, :width]
    ids, mask = ids.gather(1, order), mask.gather(1, order)
    hidden = inner.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    kept = hidden[nn.functional.pad(predicts, (0, 1)).gather(1, order).bool()]
    return Side(kept, logits_of(inner))
