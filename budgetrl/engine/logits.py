"""What a model's logits say of a completion: log-probabilities of its tokens, and exact entropy.

One row at a time; the head is applied to the hidden states in pieces, so that a vocabulary of 152k
at 3,584 tokens stays below 1 GiB beyond the model itself. Shapes: C completion tokens, H hidden
width, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

TRL_SCALES = ("logit_scale", "output_multiplier")
"""Which of them TRL heeds where it makes logits in pieces (1.14.2)."""
_SCALES = {**dict.fromkeys(TRL_SCALES, 1), "lm_head_multiplier": 1, "logits_scaling": -1}
"""Keys of config.json whose value multiplies logits, or (-1) divides them: of Cohere, Muse Glimmer,
Falcon-H1, Granite."""
_TRIED = 8
"""Tokens that a way to make logits is tried on."""
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


def logits_of(
    model: Any, scales: Sequence[str] = tuple(_SCALES)
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes float32 logits (N, V) of last hidden states (N, H).

    Args:
        model: a causal language model, without PEFT's wrapper.
        scales: keys of its config.json that are heeded.
    """
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    known = {name: getattr(config, name, None) for name in scales}
    scale = math.prod(value ** _SCALES[name] for name, value in known.items() if value is not None)
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma bounds its logits softly

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        made = head(hidden).float()
        made = made if scale == 1 else made * scale
        return made if cap is None else cap * torch.tanh(made / cap)

    return logits


def are_its_logits(model: Any, made: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether a model's own logits of a few tokens are those made of its last hidden states.

    Architectures scale logits by rules of their own, and a wrong scale raises no error anywhere.
    """
    own = few_logits(model)
    with scoring(model):
        found = made(model.base_model(input_ids=_few(model), use_cache=False)[0][0])
    tolerance = 1e-4 if model.dtype == torch.float32 else 3e-2
    return bool((own - found).abs().max() <= tolerance * own.abs().max())


def few_logits(model: Any) -> torch.Tensor:
    """A model's own float32 logits (8, V) of a few tokens."""
    with scoring(model):
        logits: torch.Tensor = model(input_ids=_few(model), use_cache=False).logits[0]
    return logits.float()


def are_of_another(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether logits (N, V) differ by more than rounding in a model of this type may make."""
    wanted = wanted.float()
    apart, size = found.float() - wanted, wanted - wanted.mean(-1, keepdim=True)
    return float(apart.norm()) > (0.01 if dtype == torch.float32 else 0.3) * float(size.norm())


def _few(model: Any) -> torch.Tensor:
    return torch.arange(_TRIED, device=model.device)[None]
