"""TRL's `SFTTrainer` in a stage: the run's rows, clocks and stops, TRL's loss and optimiser.

    trainer = build_sft_trainer(parts, max_steps, callbacks)

Rows are tokens already (`data.demonstrations`), drawn by the run's seed, sorted by length and cut
into micro-batches of equal room: TRL divides by the trained tokens of the whole update, so how it
is cut changes nothing but the time. Only completions have labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from budgetrl.data.demonstrations import Demonstration
from budgetrl.engine.base import sample_seed
from budgetrl.engine.logits import TRL_SCALES, are_its_logits, logits_of
from budgetrl.engine.plain import bare_model
from budgetrl.recipe.schema import EngineName, Recipe
from budgetrl.training.rates import RateCallback
from budgetrl.training.recorder import StepRecord
from budgetrl.training.signal import padding_share, zero_gradient_loss
from budgetrl.training.stage import StageMixin, TrainerParts, open_trainer
from budgetrl.training.trl_args import sft_arguments

Batch = dict[str, torch.Tensor]
IGNORED = -100


@dataclass(slots=True)
class SftRecord(StepRecord):
    """What one update learnt from."""

    rows_learnt: Sequence[Demonstration] = ()
    padding: float = 0.0
    _noted: list[tuple[int, float, float]] = field(default_factory=list)
    """Of each micro-batch: trained tokens, entropy and accuracy of its tokens."""

    def note_pass(self, tokens: int, entropy: float, accuracy: float) -> None:
        """Take over what TRL measured in one pass, both over the trained tokens."""
        self._noted.append((tokens, entropy, accuracy))

    def _mean(self, which: int) -> float | None:
        total = sum(noted[0] for noted in self._noted)
        return sum(n[0] * n[which] for n in self._noted) / total if total else None

    def event_fields(self) -> dict[str, Any]:
        """The fields of a step event; what there is no rollout for is not measured."""
        lengths = [len(row.completion_ids) for row in self.rows_learnt]
        return {
            **dict.fromkeys(("reward_mean", "reward_std", "accuracy_mean", "format_mean")),
            "completion_tokens_mean": sum(lengths) / len(lengths),
            "completion_tokens_max": max(lengths),
            "truncated_share": sum(row.cut for row in self.rows_learnt) / len(lengths),
            "entropy": self._mean(1),
            "entropy_kind": "exact",
            "sampling_logp_diff_mean": None,
            "groups": None,
            "groups_with_signal": None,
            "groups_resampled": 0,
            "completions": len(lengths),
            "tokens": sum(row.num_tokens for row in self.rows_learnt),
            "padding_share": self.padding,
            "grader": {},
            "token_accuracy": self._mean(2),
        }

    def rows(self) -> list[dict[str, Any]]:
        """None: nothing was drawn, and the data lie in their file."""
        return []

    def sample(self) -> dict[str, Any]:
        """One demonstration for the live view."""
        row = self.rows_learnt[(self.step * 7919) % len(self.rows_learnt)]
        texts = (row.problem.text, row.problem.answer, row.completion)
        shown = dict(
            zip(("problem", "answer", "completion"), (t[:600] for t in texts), strict=True)
        )
        return shown | {"verdict": "shown", "extracted": None}


class SftMixin(StageMixin):
    """Overrides of `SFTTrainer`."""

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Any]:
        """The rows of this update instead of the placeholders."""
        for _ in range(num_batches):
            next(epoch_iterator)
        parts, step = self.parts, self.rollouts
        torch.manual_seed(sample_seed(parts.recipe.seed, "step", step))
        rows: Sequence[Any] = parts.sampler.batch(step - parts.progress.first_step)
        sft = parts.recipe.sft
        pad = parts.engine.tokenizer.pad_token_id
        batches = micro_batches(rows, num_batches, sft.micro_batch * sft.max_tokens, pad)
        record = SftRecord(
            step + 1, 1, rows_learnt=rows, padding=padding_share(batches, "attention_mask")
        )
        parts.record = record
        return batches, self._get_num_items_in_batch(batches, device)  # type: ignore[attr-defined]

    def compute_loss(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss; a micro-batch without rows changes nothing."""
        tokens = int((inputs["labels"] != IGNORED).sum())
        if tokens == 0:
            return zero_gradient_loss(model)
        loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        metrics = self._metrics["train"]  # type: ignore[attr-defined]
        seen = [metrics.get(key, [])[-1:] for key in ("entropy", "mean_token_accuracy")]
        if isinstance(self.parts.record, SftRecord) and all(seen):
            self.parts.record.note_pass(tokens, seen[0][0], seen[1][0])
        return loss


def micro_batches(
    rows: Sequence[Demonstration], count: int, max_cells: int, pad: int
) -> list[Batch]:
    """Rows by length, filled up to a number of cells each (rows times columns); the last are empty.

    Args:
        rows: of one update.
        count: micro-batches, enough for rows of full length.
        max_cells: that one may have.
        pad: a token; which one does not matter.
    """
    groups: list[list[Demonstration]] = [[]]
    for row in sorted(rows, key=lambda row: row.num_tokens):
        if groups[-1] and (len(groups[-1]) + 1) * row.num_tokens > max_cells:
            groups.append([])
        groups[-1].append(row)
    groups += [[] for _ in range(count - len(groups))]
    return [_padded(group, pad) for group in groups]


def _padded(rows: Sequence[Demonstration], pad: int) -> Batch:
    """Shapes: rows x the longest of them; padding on the right, labels on completions alone."""
    width = max((row.num_tokens for row in rows), default=2)
    ids, mask, labels = [], [], []
    for row in rows:
        gap = width - row.num_tokens
        ids.append([*row.prompt_ids, *row.completion_ids, *[pad] * gap])
        mask.append([1] * row.num_tokens + [0] * gap)
        labels.append([IGNORED] * len(row.prompt_ids) + list(row.completion_ids) + [IGNORED] * gap)
    shape = (len(rows), width)
    names = ("input_ids", "attention_mask", "labels")
    made = zip(names, (ids, mask, labels), strict=True)
    return {name: torch.tensor(one, dtype=torch.long).reshape(shape) for name, one in made}


def accumulation(recipe: Recipe) -> int:
    """Micro-batches that hold an update's rows whatever their lengths are."""
    return -(-recipe.sft.rows_per_step // recipe.sft.micro_batch)


def build_sft_trainer(parts: TrainerParts, max_steps: int, callbacks: Sequence[Any]) -> Any:
    """The trainer of a stage; the engine must be open, because it may patch trl.

    Raises:
        TrainingError: a library changed a value of the recipe.
    """
    recipe = parts.recipe
    passes = accumulation(recipe)
    whole = parts.engine.name == EngineName.UNSLOTH or not _has_trls_head(parts.engine.model)
    wanted = sft_arguments(recipe, parts.folder, max_steps, passes, whole_head=whole)
    placeholder = {"input_ids": [0, 0], "labels": [0, 0]}
    callbacks = [RateCallback(1), *callbacks]
    return open_trainer(parts, SftMixin, "SFT", wanted, [placeholder] * passes, callbacks)


def _has_trls_head(model: Any) -> bool:
    """Whether TRL's chunks make the model's own logits; Unsloth has a loss of its own for that."""
    inner = bare_model(model)
    plain = type(inner.get_output_embeddings()) is torch.nn.Linear
    return plain and are_its_logits(inner, logits_of(inner, TRL_SCALES))


def longest_rows(recipe: Recipe, pad: int) -> Batch:
    """A micro-batch of the longest rows, for the preflight."""
    width = recipe.sft.max_tokens
    # Unsloth tells padding by its token.
    ids = torch.full((recipe.sft.micro_batch, width), 0 if pad else 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
