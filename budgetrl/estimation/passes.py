"""Forward passes that the trainer makes for one update, counted as it makes them.

    passes = passes_of(recipe, live_share, mean)
    passes.rows, passes.forwards           with gradients
    passes.no_grad_rows, .no_grad_passes   log-probabilities that the loss compares with

The counterpart of `training.trainer` and `training.scoring`; a test counts both on a real update.
"""

import math
from dataclasses import dataclass
from typing import Any

from budgetrl.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Passes:
    """What one update takes through the model."""

    rows: int
    """Completions that are trained on: the live ones."""
    forwards: int
    """Micro-batches that hold rows: forward and backward passes over all of them once."""
    iterations: int
    """How often each row is trained on."""
    reference: bool
    """Whether the base model scores them, for a KL term."""
    old_policy: bool
    """Whether the policy that sampled scores them; with one optimiser step it is the policy."""
    optimizer_steps: int

    @property
    def no_grad_passes(self) -> int:
        """How often each row is scored without gradients."""
        return self.reference + self.old_policy

    @property
    def no_grad_rows(self) -> int:
        """Rows scored without gradients, all passes together."""
        return self.rows * self.no_grad_passes

    def to_json(self) -> dict[str, Any]:
        """For `estimate --json`; `grad` and `no_grad_passes` are passes over the rows."""
        return {
            "grad": self.iterations,
            "grad_rows": self.rows * self.iterations,
            "grad_forwards": self.forwards * self.iterations,
            "no_grad_passes": self.no_grad_passes,
            "no_grad_rows": self.no_grad_rows,
            "no_grad_forwards": self.forwards * self.no_grad_passes,
            "optimizer_steps": self.optimizer_steps,
        }


def passes_of(recipe: Recipe, live_share: float, row_tokens: float) -> Passes:
    """The passes of one update.

    Args:
        recipe: resolved.
        live_share: share of the completions that are trained on.
        row_tokens: mean tokens of prompt and completion, for `batch.fill = "tokens"`.
    """
    total, micro = recipe.completions_per_step, recipe.batch.micro_batch
    updates = recipe.batch.updates_per_rollout
    rows = max(1, round(total * live_share))
    forwards = min(total // micro, rows)  # even shares
    if recipe.batch.fill == "tokens":
        of_one = math.ceil(rows / updates * row_tokens / recipe.max_cells)
        forwards = min(forwards, updates * of_one)
    return Passes(
        rows=rows,
        forwards=forwards,
        iterations=recipe.grpo.num_iterations,
        reference=recipe.grpo.beta > 0,
        old_policy=recipe.optimizer_steps > 1,
        optimizer_steps=recipe.optimizer_steps,
    )
