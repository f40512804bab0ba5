"""What trainers of all kinds of stages have: the parts a mixin works with, and how they are opened.

    trainer = open_trainer(parts, SomeMixin, "GRPO", arguments, placeholders, callbacks)

The class is made from trl's, patched by an engine or not, so the engine must be open. What a kind
trains with is in `training.kinds`.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.sampler import ProblemSampler
from budgetrl.engine.base import ModelEngine, StopCheck
from budgetrl.engine.teacher import LoadedTeacher
from budgetrl.recipe.schema import EngineName, Recipe
from budgetrl.training.clock import PhaseClock
from budgetrl.training.progress import Progress
from budgetrl.training.rates import Rates
from budgetrl.training.recorder import RewardFunction, StepRecord
from budgetrl.training.rewind import Rewind
from budgetrl.training.schedule import learning_rate
from budgetrl.training.stopper import StepAborted
from budgetrl.training.trl_args import check_unchanged

RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
"""Variables by which a trainer takes itself for one of several. TRL sets them where vLLM generates,
for vLLM; a second trainer, after the preflight's halving, would be distributed by them."""


@dataclass(slots=True)
class TrainerParts:
    """What the mixin works with."""

    recipe: Recipe
    engine: ModelEngine
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
    budget_used: Callable[[], float] = lambda: 0.0
    """Share of the budget that is used now, over all attempts, for schedules by budget."""
    progress: Progress = field(default_factory=Progress)
    """Which stage this is, and what was made before it."""
    record: StepRecord | None = None
    """The newest rolled-out batch."""
    rewind: Rewind = field(default_factory=Rewind)
    teacher: LoadedTeacher | None = None
    """Of a distillation."""


class StageMixin:
    """Overrides of TRL's trainers that every kind of stage has; `parts` is set before training."""

    parts: TrainerParts

    @property
    def rollouts(self) -> int:
        """What everybody but TRL counts as steps: rollout batches trained on, in all stages."""
        own = int(self.state.global_step) // self.parts.recipe.optimizer_steps  # type: ignore[attr-defined]
        return self.parts.progress.first_step + own

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Rates:
        """The recipe's schedule; TRL's own is told to be constant."""
        parts = self.parts

        def rate() -> float:
            updates = parts.progress.updates_in_schedule(self.rollouts)
            return learning_rate(parts.recipe.schedule, updates, parts.budget_used())

        self.lr_scheduler = Rates(optimizer or self.optimizer, rate)  # type: ignore[attr-defined]
        return self.lr_scheduler

    def _clip_grad_norm(self, *args: Any) -> Any:
        with self.parts.clock.time("update"):
            return super()._clip_grad_norm(*args)  # type: ignore[misc]

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One micro-batch."""
        if self.parts.must_stop():
            self.parts.rewind.undo(self)
            raise StepAborted
        with self.parts.clock.time("update"):
            return super().training_step(*args, **kwargs)  # type: ignore[misc]


def import_trainers(recipe: Recipe) -> None:
    """Import TRL's trainers with all that they need, where no engine patches them as it opens."""
    if recipe.engine.name is not EngineName.UNSLOTH:
        import datasets  # noqa: F401
        import trl

        _ = trl.GRPOTrainer, trl.SFTTrainer  # TRL imports them when they are first asked for


def open_trainer(
    parts: TrainerParts,
    mixin: type[StageMixin],
    kind: Literal["GRPO", "SFT"],
    wanted: dict[str, Any],
    placeholders: Sequence[Any],
    callbacks: Sequence[Any],
    **own: Any,
) -> Any:
    """TRL's trainer of a kind under a mixin.

    Args:
        parts: of the stage.
        mixin: overrides the trainer.
        kind: how TRL names trainer and configuration.
        wanted: arguments of the configuration.
        placeholders: rows of a data set of the right length; the mixin puts others in their place.
        callbacks: of the trainer.
        own: what else the trainer takes.

    Raises:
        TrainingError: a library changed a value of the recipe.
    """
    import datasets
    import transformers
    import trl

    for name in RANKS:
        os.environ.pop(name, None)
    config = getattr(trl, f"{kind}Config")(**wanted)
    check_unchanged(wanted, config, f"trl.{kind}Config")
    trainer = type(f"Budget{kind}Trainer", (mixin, getattr(trl, f"{kind}Trainer")), {})(
        model=parts.engine.model,
        args=config,
        train_dataset=datasets.Dataset.from_list(placeholders),
        processing_class=parts.engine.tokenizer,
        callbacks=callbacks,
        **own,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.parts = parts
    check_unchanged(wanted, trainer.args, f"trl.{kind}Trainer")
    return trainer
