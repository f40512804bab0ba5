"""On-policy distillation in a stage: GRPO's rollouts, and a divergence in the place of its loss.

    trainer = build_trainer(parts, max_steps, callbacks, DistilMixin)

The student answers, the teacher scores each token, and the loss is the mean over the update's
tokens of KL(student || teacher), with `distill.reward_weight` times GRPO's loss beside it. Budget,
stops, rewards, records and resumption are those of GRPO (docs/decisions has why).
"""

from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from typing import Any

import torch

from budgetrl.data.prompts import PromptRenderer
from budgetrl.engine.divergence import reverse_kl, side_of
from budgetrl.engine.teacher import LoadedTeacher
from budgetrl.errors import ModelError
from budgetrl.recipe.schema import Prompt
from budgetrl.training.recorder import StepRecord
from budgetrl.training.signal import Batch, zero_gradient_loss
from budgetrl.training.trainer import BudgetMixin
from budgetrl.types import Problem

PROBE = Problem("probe", "What is 1 + 1?", "2")


@dataclass(slots=True)
class DistilRecord(StepRecord):
    """What one update rolled out, and how far the teacher was."""

    divergence_sum: float = 0.0
    student_entropy_sum: float = 0.0
    agreements: float = 0.0
    scored: int = 0
    """Tokens that the teacher saw."""

    def event_fields(self) -> dict[str, Any]:
        """The fields of a step event."""
        seen = max(1, self.scored)
        return StepRecord.event_fields(self) | {
            "entropy": self.student_entropy_sum / seen,
            "entropy_kind": "exact",
            "kl_teacher": self.divergence_sum / seen,
            "top1_agreement": self.agreements / seen,
        }


class DistilMixin(BudgetMixin):
    """Overrides of `GRPOTrainer`."""

    record_class = DistilRecord

    def _roll_out(self, problems: Any) -> Batch:
        """The teacher is told what is asked."""
        parts = self.parts
        assert parts.teacher is not None and parts.recipe.teacher is not None
        if parts.teacher.itself:
            ids, hint = parts.renderer.ids, parts.recipe.teacher.hint
            parts.teacher.prompts = {
                tuple(ids(one)): tuple(ids(_with_answer(one, hint))) for one in problems
            }
        return super()._roll_out(problems)

    def compute_loss(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """The divergence of one micro-batch's tokens over all tokens of the update."""
        parts = self.parts
        tokens = int(inputs["completion_mask"].sum())
        if tokens == 0:
            return zero_gradient_loss(model)
        prompt = inputs["prompt_ids"], inputs["prompt_mask"]
        completion = inputs["completion_ids"], inputs["completion_mask"]
        assert parts.teacher is not None
        seen = parts.teacher.side(prompt, completion)
        found = reverse_kl(
            side_of(model, prompt, completion), seen, parts.recipe.sampling.temperature
        )
        record = parts.record
        if isinstance(record, DistilRecord) and model.training:
            record.divergence_sum += float(found.divergence.detach())
            record.student_entropy_sum += float(found.entropy)
            record.agreements += float(found.agreements)
            record.scored += tokens
        loss = found.divergence / self._tokens_of_update(inputs)
        weight = parts.recipe.distill.reward_weight
        if weight:
            # In its advantages: Unsloth's loss ignores what gradients are multiplied by behind it.
            inputs = inputs | {"advantages": weight * inputs["advantages"]}
            loss = loss + super().compute_loss(model, inputs, *args, **kwargs)
        return loss

    @property
    def kl_weight(self) -> float:
        """As GRPO's whole loss, times the weight of rewards."""
        return self.parts.recipe.distill.reward_weight * super().kl_weight

    def _tokens_of_update(self, inputs: Batch) -> torch.Tensor:
        """Trained tokens of one optimiser step, as TRL counts them for its token-mean losses."""
        total: torch.Tensor = inputs["num_items_in_batch"].clamp(min=1.0)
        windows = self.args.steps_per_generation / self.current_gradient_accumulation_steps  # type: ignore[attr-defined]
        return total / windows


def check_prompts(
    teacher: LoadedTeacher, ours: str, prompt: Prompt, moment: datetime | None
) -> None:
    """Refuse a teacher whose own template renders another prompt than the student reads.

    Args:
        teacher: at hand.
        ours: what the student reads of `PROBE`.
        prompt: the recipe's.
        moment: the day for templates that print one.

    Raises:
        ModelError: says where they part.
    """
    if teacher.itself:
        return
    theirs = PromptRenderer(teacher.tokenizer, prompt, moment).text(PROBE)
    if ours == theirs:
        return
    pairs = zip(ours, theirs, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    raise ModelError(
        f"the teacher's template renders another prompt than the model's: {ours[same:][:40]!r} "
        f"against {theirs[same:][:40]!r}; what it says of tokens behind a prompt that it was never "
        "trained on teaches nothing.",
        hint="Distil from a model of the same family and kind.",
    )


def _with_answer(problem: Problem, hint: str) -> Problem:
    """What a model reads that teaches itself."""
    return replace(problem, text=problem.text + hint.replace("{answer}", problem.answer))
