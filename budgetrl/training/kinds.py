"""What each kind of stage trains with: the one place to go to for a further kind.

A kind needs a member of `StageKind` (and perhaps a table in recipe/stage_tables.py), a trainer with
`StageMixin` whose update leaves a record for the step's event, and its cases here.
"""

from collections.abc import Sequence
from typing import Any

import torch

from budgetrl.recipe.schema import Recipe, StageKind
from budgetrl.training.distil import DistilMixin
from budgetrl.training.scoring import OLD, REFERENCE, keep_promises, promise
from budgetrl.training.sft import build_sft_trainer, longest_rows
from budgetrl.training.stage import TrainerParts
from budgetrl.training.trainer import build_trainer


def build(parts: TrainerParts, max_steps: int, callbacks: Sequence[Any]) -> Any:
    """The trainer of a stage.

    Raises:
        TrainingError: a library changed a value of the recipe.
    """
    match parts.progress.kind:
        case StageKind.GRPO:
            return build_trainer(parts, max_steps, callbacks)
        case StageKind.SFT:
            return build_sft_trainer(parts, max_steps, callbacks)
        case StageKind.DISTILL:
            return build_trainer(parts, max_steps, callbacks, DistilMixin)


def rows_per_pass(recipe: Recipe, kind: StageKind) -> int:
    """Rows of full length in one forward and backward pass."""
    return recipe.sft.micro_batch if kind is StageKind.SFT else recipe.batch.micro_batch


def with_fewer_rows(recipe: Recipe, kind: StageKind) -> Recipe | None:
    """The same updates in smaller passes; None where one has a single row."""
    if kind is StageKind.SFT:
        half = recipe.sft.micro_batch // 2
        return recipe.but({"sft.micro_batch": half}) if half else None
    smaller = recipe.smaller_micro_batch()
    return None if smaller is None else recipe.with_micro_batch(smaller)


def longest_pass(trainer: Any, recipe: Recipe, kind: StageKind) -> torch.Tensor:
    """The loss of one micro-batch of the longest rows."""
    if kind is StageKind.SFT:
        rows = longest_rows(recipe, trainer.parts.engine.tokenizer.pad_token_id)
        inputs = trainer._prepare_inputs(rows)
        count = inputs["labels"][..., 1:].numel()
        with trainer.accelerator.autocast():
            loss: torch.Tensor = trainer.compute_loss(
                trainer.model,
                inputs,
                num_items_in_batch=torch.tensor(count, device=inputs["labels"].device),
            )
        return loss
    inputs = _longest_completions(trainer, recipe)
    with trainer.accelerator.autocast():
        keep_promises(trainer, [inputs], lambda: False)
        loss = trainer.compute_loss(trainer.model, inputs)
    return loss


def _longest_completions(trainer: Any, recipe: Recipe) -> dict[str, torch.Tensor]:
    rows, device = recipe.batch.micro_batch, trainer.accelerator.device
    # Unsloth tells padding by its token.
    token = 0 if trainer.processing_class.pad_token_id else 1
    prompt = torch.full((rows, recipe.prompt.max_tokens), token, device=device)
    completion = torch.full((rows, recipe.sampling.max_tokens), token, device=device)
    inputs = {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": completion,
        "completion_mask": torch.ones_like(completion),
        "advantages": torch.ones(rows, device=device),
        "num_items_in_batch": torch.tensor(float(completion.numel()), device=device),
    }
    wanted = {REFERENCE: recipe.grpo.beta > 0, OLD: recipe.optimizer_steps > 1}
    passes = [key for key, needed in wanted.items() if needed]
    return inputs | {key: promise(prompt, completion.shape[1])[0] for key in passes}
