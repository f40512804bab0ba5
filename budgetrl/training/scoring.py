"""Log-probabilities that a loss compares with: the reference's, and those of the old policy.

    promise(input_ids, width)            what TRL gets instead while it rolls out
    keep_promises(trainer, batches, ..)  the numbers, once rewards are known and rows left out

TRL asks for them before the rewards and for all rows at once; Unsloth even scores all of these in
one forward pass. Here each micro-batch is scored in the shape in which it is trained on, so no pass
needs more memory than that of the gradients, and a run that has to stop stops between two.

Shapes: B rows, C completion columns. Unsloth's results have the left padding of their rows besides,
which its loss reads from their width.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from budgetrl.engine.base import StopCheck
from budgetrl.engine.logits import scoring
from budgetrl.engine.plain import bare_model
from budgetrl.errors import ModelError
from budgetrl.training.signal import Batch
from budgetrl.training.stopper import StepAborted

REFERENCE_ADAPTER = "ref"
"""TRL's name of it, kept where the recipe's reference is the adapter that the run began with."""
OLD, REFERENCE = "old_per_token_logps", "ref_per_token_logps"
"""Keys under which TRL's loss finds them."""
_TRIED = 8
"""Tokens that both ways to log-probabilities are tried on."""


def promise(input_ids: torch.Tensor, width: int) -> tuple[torch.Tensor, None, None]:
    """In the place of log-probabilities (B, C), entropies and auxiliary loss."""
    return torch.zeros(input_ids.shape[0], width, device=input_ids.device), None, None


def keep_promises(trainer: Any, batches: Sequence[Batch], must_stop: StopCheck) -> None:
    """Score every micro-batch that has rows, for each key that TRL promised the loss.

    Raises:
        StepAborted: somebody wants the run to end.
    """
    from trl.models.utils import disable_gradient_checkpointing

    model, kwargs = trainer.model, trainer.args.gradient_checkpointing_kwargs
    for key in (OLD, REFERENCE):
        promised = [batch for batch in batches if key in batch and len(batch[key])]
        if not promised:
            continue
        with (
            torch.no_grad(),
            disable_gradient_checkpointing(model, kwargs),
            _policy(trainer, key),
        ):
            for batch in promised:
                if must_stop():
                    raise StepAborted
                batch[key] = logps(trainer, batch, key)


def logps(trainer: Any, batch: Batch, key: str = OLD) -> torch.Tensor:
    """Log-probabilities of one micro-batch's completions, in one forward pass."""
    # TRL has a model for the reference where there is no adapter to leave out.
    model = trainer.ref_model if key == REFERENCE and trainer.ref_model else trainer.model
    pairs = (("prompt_ids", "completion_ids"), ("prompt_mask", "completion_mask"))
    input_ids, mask = (torch.cat([batch[name] for name in pair], dim=1) for pair in pairs)
    width = batch["completion_ids"].shape[1]
    found: torch.Tensor = trainer._get_per_token_logps_and_entropies(model, input_ids, mask, width)[
        0
    ]
    return found


def refuse_counted_padding(trainer: Any) -> None:
    """Refuse a model for which a prompt says something else behind padding.

    TRL pads prompts on the left and gives no positions; GPT-2, BioGPT and others then count padding
    too, so that log-probabilities would be of other places than completions are drawn at.

    Raises:
        ModelError: it does.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    row = torch.arange(_TRIED, device=model.device)[None]
    pad = torch.nn.functional.pad
    with scoring(model):
        alone, behind = (
            trainer._full_logits_logps(
                model, pad(row, (gap, 0)), pad(torch.ones_like(row), (gap, 0)), _TRIED // 2
            )[0]
            for gap in (0, _TRIED)
        )
    most = (1e-3 if bare_model(model).dtype == torch.float32 else 0.1) * alone.abs().max()
    if bool((alone - behind).abs().max() > most):
        raise ModelError(
            f"{type(bare_model(model)).__name__} counts padding as positions, so the trainer would "
            "not see the prompts that answers are drawn from.",
            hint="Take a model with relative positions, such as a Llama or a Qwen.",
        )


def works_by_pieces(trainer: Any) -> bool:
    """Whether a model's logits are what TRL makes of last hidden states and head, in pieces.

    Not where a head has an adapter, or a model scales its logits by a rule that TRL does not know.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    inner = bare_model(model)
    if type(inner.get_output_embeddings()) is not torch.nn.Linear:
        return False
    row = torch.arange(_TRIED, device=model.device)[None]
    asked = (model, row, torch.ones_like(row), _TRIED // 2)
    with scoring(model):
        whole: torch.Tensor = trainer._full_logits_logps(*asked)[0]
        pieces: torch.Tensor = trainer._chunked_logps(*asked)[0]
    exact = inner.dtype == torch.float32
    return bool((whole - pieces).abs().max() < (1e-4 if exact else 3e-2))


def _policy(trainer: Any, key: str) -> AbstractContextManager[None]:
    """The reference is the base model without an adapter, or with that of the start."""
    if key == OLD or trainer.ref_model is not None:
        return nullcontext()
    model = trainer.accelerator.unwrap_model(trainer.model)
    if REFERENCE_ADAPTER in getattr(model, "peft_config", {}):
        return _with_adapter(model, REFERENCE_ADAPTER)
    without: AbstractContextManager[None] = model.disable_adapter()
    return without


@contextmanager
def _with_adapter(model: Any, name: str) -> Iterator[None]:
    """Another adapter than the trained one, which keeps its gradients."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    active = model.active_adapter
    model.set_adapter(name)
    try:
        yield
    finally:
        model.set_adapter(active)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
