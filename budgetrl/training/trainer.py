"""TRL's `GRPOTrainer` with budgetrl's rows, clocks and stops: one mixin for every engine.

    trainer = build_trainer(parts, max_steps)    the class is made from trl's, patched or not
    trainer.train()                              TRL's own loop, loss and optimiser

The mixin swaps in the sampler's problems, hands generation to the engine, times the phases, and
raises `StepAborted` between micro-batches when the run has to stop. It changes no loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.sampler import ProblemSampler
from budgetrl.engine.base import SamplingSpec, StopCheck, TrainableEngine, sample_seed
from budgetrl.recipe.schema import Recipe
from budgetrl.training.clock import PhaseClock
from budgetrl.training.recorder import RewardFunction, StepRecord
from budgetrl.training.schedule import rate_factor, step_progress
from budgetrl.training.stopper import StepAborted
from budgetrl.training.trl_args import check_unchanged, grpo_arguments
from budgetrl.types import Completion


@dataclass(slots=True)
class TrainerParts:
    """What the mixin works with."""

    recipe: Recipe
    engine: TrainableEngine
    sampler: ProblemSampler
    renderer: PromptRenderer
    reward: RewardFunction
    clock: PhaseClock
    folder: Path
    """Where libraries may write."""
    must_stop: StopCheck
    """Asked between micro-batches."""
    rollout_over: StopCheck
    """Asked between tokens: a stop, or the time limit of this rollout."""
    budget_used: float = 0.0
    """Share of the budget that is used, for schedules by budget."""
    record: StepRecord | None = None
    """The newest rolled-out batch."""


class BudgetMixin:
    """Overrides of `GRPOTrainer`; `parts` is set before training starts."""

    parts: TrainerParts

    def _generate_and_score_completions(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """Replaces the placeholder rows by the sampler's problems of this step."""
        parts, step = self.parts, self.state.global_step  # type: ignore[attr-defined]
        torch.manual_seed(sample_seed(parts.recipe.seed, "step", step))
        problems = parts.sampler.batch(step)
        size = parts.recipe.grpo.num_generations
        parts.record = StepRecord(step + 1, problems, [], [], None, [], size)
        rows = [
            {"prompt": parts.renderer.messages(problem.text)}
            for problem in problems
            for _ in range(size)
        ]
        with parts.clock.time("logprob"):
            output: dict[str, Any] = super()._generate_and_score_completions(rows)  # type: ignore[misc]
        parts.record.advantages = output["advantages"].tolist()
        mask = output["completion_mask"]
        parts.record.padding_share = 1.0 - float(mask.sum()) / mask.numel()
        return output

    def _generate_single_turn(
        self, prompt_ids: Sequence[Sequence[int]], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        parts, step = self.parts, self.state.global_step  # type: ignore[attr-defined]
        inner = partial(super()._generate_single_turn, prompt_ids, *args, **kwargs)  # type: ignore[misc]
        seeds = [
            sample_seed(parts.recipe.seed, f"rollout {step}", row) for row in range(len(prompt_ids))
        ]
        with parts.clock.time("rollout"):
            rollout = parts.engine.rollout(
                prompt_ids, seeds, training_sampling(parts.recipe), parts.rollout_over, inner
            )
        if rollout is None:
            raise StepAborted
        assert parts.record is not None
        parts.record.entropy_sum = rollout.entropy_sum
        return rollout.ids, rollout.logps

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self.parts.clock.time("reward"):
            return super()._calculate_rewards(*args, **kwargs)  # type: ignore[misc]

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One micro-batch."""
        if self.parts.must_stop():
            raise StepAborted
        with self.parts.clock.time("update"):
            return super().training_step(*args, **kwargs)  # type: ignore[misc]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """The recipe's schedule; TRL's own is told to be constant."""
        schedule = self.parts.recipe.schedule

        def factor(step: int) -> float:
            by_budget = schedule.by == "budget"
            progress = self.parts.budget_used if by_budget else step_progress(schedule, step)
            return rate_factor(schedule, progress)

        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)  # type: ignore[attr-defined]
        return self.lr_scheduler


def score(parts: TrainerParts, completion_ids: Sequence[Sequence[int]]) -> list[float | None]:
    """The one reward that TRL sees: the recipe's weighted sum; None for a faulty row."""
    record, ends = parts.record, parts.engine.end_ids
    assert record is not None
    record.completions = [
        Completion(parts.engine.decode(ids), len(ids), not ids or ids[-1] not in ends)
        for ids in completion_ids
    ]
    golds = [problem.answer for problem in record.problems for _ in range(record.group_size)]
    record.breakdowns = list(
        parts.reward(
            [completion.text for completion in record.completions],
            golds,
            [completion.num_tokens for completion in record.completions],
        )
    )
    return [breakdown.total for breakdown in record.breakdowns]


def training_sampling(recipe: Recipe) -> SamplingSpec:
    """How a recipe draws its training completions."""
    sampling = recipe.sampling
    return SamplingSpec(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        stop=sampling.stop,
    )


def build_trainer(parts: TrainerParts, max_steps: int, callbacks: Sequence[Any]) -> Any:
    """The trainer of a run; the engine must be open, because it may patch trl.

    Raises:
        TrainingError: a library changed a value of the recipe.
    """
    import datasets
    import trl

    wanted = grpo_arguments(parts.recipe, parts.folder, max_steps)
    config = trl.GRPOConfig(**wanted)
    check_unchanged(wanted, config, "trl.GRPOConfig")

    def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float | None]:
        return score(parts, completion_ids)

    placeholders = [{"prompt": [{"role": "user", "content": ""}]}] * parts.sampler.prompts_per_step
    trainer_class = type("BudgetTrainer", (BudgetMixin, trl.GRPOTrainer), {})
    trainer = trainer_class(
        model=parts.engine.model,
        reward_funcs=[reward],
        args=config,
        train_dataset=datasets.Dataset.from_list(placeholders),
        processing_class=parts.engine.tokenizer,
        callbacks=list(callbacks),
    )
    trainer.parts = parts
    check_unchanged(wanted, trainer.args, "trl.GRPOTrainer")
    return trainer
