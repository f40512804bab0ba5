"""Recipe tables about training: rewards, algorithm, batch, schedule, sampling, budget."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from budgetrl.recipe.base import (
    REWARD_PARAMETERS,
    Count,
    NonNegative,
    Positive,
    RewardName,
    Share,
    Table,
)

_OWN_FUNCTION = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


class Reward(Table):
    """One of [[rewards]]."""

    name: str = Field(min_length=1)
    weight: float = Field(default=1.0, allow_inf_nan=False)
    parameters: dict[str, Any] = Field(default_factory=dict)
    timeout_s: Annotated[float, Field(ge=0.1, le=600.0, allow_inf_nan=False)] = 3.0
    """Wall seconds that a function of your own may take for one completion."""

    @model_validator(mode="after")
    def _known_name_and_parameters(self) -> Self:
        if _OWN_FUNCTION.fullmatch(self.name):
            return self
        if self.name not in set(RewardName):
            known = ", ".join(RewardName)
            raise ValueError(f"unknown reward {self.name!r}; known: {known}, or module:function")
        if self.timeout_s != type(self).model_fields["timeout_s"].default:
            raise ValueError(f"timeout_s is for functions of your own, and {self.name} is none")
        allowed = REWARD_PARAMETERS[RewardName(self.name)]
        if unknown := sorted(set(self.parameters) - allowed):
            known = ", ".join(sorted(allowed)) or "none"
            raise ValueError(f"unknown parameters {', '.join(unknown)}; known: {known}")
        for key, value in self.parameters.items():
            least = 1 if key.endswith("_tokens") else -math.inf
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < least:
                wanted = "a number of tokens" if least == 1 else "a number"
                raise ValueError(f"{key} = {value!r} must be {wanted}")
        return self


class Grpo(Table):
    """[grpo]: the algorithm, with TRL's names."""

    num_generations: Annotated[int, Field(ge=2)] = 8
    """Completions per prompt: the group size."""
    loss_type: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "dapo"
    beta: NonNegative = 0.0
    """Weight of the KL term against the reference."""
    reference: Literal["base", "adapter"] = "base"
    """The base model, or that with `model.adapter`."""
    epsilon: Positive = 0.2
    epsilon_high: Positive = 0.2
    scale_rewards: Literal["group", "batch", "none"] = "group"
    num_iterations: Count = 1
    mask_truncated_completions: bool = False


class Batch(Table):
    """[batch]: how much goes into one step, which is one rollout batch."""

    prompts_per_step: Count = 32
    updates_per_rollout: Count = 1
    """Optimiser steps of one step, each on its share of the prompts; verl's train_batch_size over
    ppo_mini_batch_size. Above 1 the ratio to the policy that sampled is clipped."""
    micro_batch: Count = 8
    """Completions per forward and backward pass."""
    fill: Literal["rows", "tokens"] = "rows"
    """tokens: more completions per pass where they are short, never more tokens than micro_batch of
    full length have; fewer passes for the same update."""


class Schedule(Table):
    """[schedule]: learning rate and length of the training."""

    learning_rate: Annotated[Positive, Field(le=1.0)]
    """Of Adam: 1e-6 to 1e-3 is usual; above 1 it is a slip of the exponent."""
    shape: Literal["constant", "linear", "cosine"] = "constant"
    warmup_share: Share = 0.0
    """Share of the schedule in which the rate rises from 0."""
    min_share: Share = 0.0
    """Where linear and cosine end, as a share of learning_rate."""
    by: Literal["steps", "budget"] = "steps"
    """What the shape is a function of: steps done, or budget used when an update starts."""
    schedule_steps: Count | None = None
    """Length of the shape in steps; stop_after_steps where absent."""
    stop_after_steps: Count | None = None
    """None: as many updates as the budget buys."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        steps, stop = self.schedule_steps, self.stop_after_steps
        if steps is not None and stop is not None and stop > steps:
            raise ValueError(
                f"stop_after_steps = {stop} is above schedule_steps = {steps}; "
                "set stop_after_steps <= schedule_steps"
            )
        shaped = self.shape != "constant" or self.warmup_share > 0
        if shaped and self.by == "steps" and steps is None and stop is None:
            raise ValueError("a shape over steps needs schedule_steps or stop_after_steps")
        return self


OPTIMIZER_BYTES: Mapping[str, int] = {"adamw": 8, "adamw_8bit": 2}
"""Of state per trained parameter: two moments, in float32 or of one byte each."""


class Optimizer(Table):
    """[optimizer]: AdamW and its numbers."""

    name: Literal["adamw", "adamw_8bit"] = "adamw"
    beta1: Share = 0.9
    beta2: Share = 0.999
    epsilon: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0


class Sampling(Table):
    """[sampling]: how training completions are drawn."""

    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """0: off."""
    min_p: Share = 0.0
    max_tokens: Count = 3584
    expected_tokens: Positive | None = None
    """Mean completion length for plans; what is published on the model where absent."""
    stop: tuple[str, ...] = ()
    """Further texts that end a completion, besides the model's own end tokens."""


class Signal(Table):
    """[signal]: spend time on groups that can teach something."""

    skip: Literal["off", "exact", "accuracy"] = "off"
    """Leave groups without signal out of the update; exact: only if all advantages are zero."""
    keep_rows: Annotated[int, Field(ge=2)] | None = None
    """Train on so many rows of a group, those whose rewards have the largest variance (PODS); with
    the advantages of a group of these alone, so another algorithm. None: on all."""
    order: Literal["uniform", "difficulty"] = "uniform"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Weight of older results in a problem's running solve rate."""
    solve_rates: str | None = None
    """A table of solve rates to start from, from `budgetrl probe` (order = "difficulty")."""
    explore: Share = 0.2
    """Share of each batch drawn uniformly under order = "difficulty"."""
    resample_rounds: Annotated[int, Field(ge=0)] | None = None
    """How often groups without signal are replaced by fresh prompts within a step; None: never."""
    on_empty: Literal["stop", "continue"] = "stop"
    """After three steps in which no group had signal."""


class Checkpoint(Table):
    """[checkpoint]: when the run is saved; whichever interval comes first."""

    every_steps: Count | None = None
    every_minutes: Positive | None = None
    """None: the larger of 10 minutes and 3 % of the budget, or every_steps alone if given."""
    milestones: Annotated[int, Field(ge=0)] = 4
    """Adapter-only checkpoints kept besides the newest two and the best."""
    keep_completions: Literal["all", "sampled"] | Count = "all"
    """Training completions on disk: of all updates, of the newest N, or "sampled": of the first and
    the newest ten and every tenth (`budgetrl.retention`)."""
    mirror: str | None = None
    """A folder on another disk that gets a second copy of the run at each checkpoint."""


class BudgetTable(Table):
    """[budget]: what the run may cost; the sooner of hours and usd ends it."""

    hours: Positive | None = None
    usd: Positive | None = None
    gpu: str | None = None
    """Name of the GPU that the recipe is planned for."""
    usd_per_hour: NonNegative | None = None
    grace_s: Positive = 20.0
    """Seconds between SIGTERM and the end."""


class Tracker(Table):
    """[tracker]: forwards step events to an experiment tracker."""

    kind: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    project: str = "budgetrl"
