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
    """One of [[rewards]]: a completion is given the sum of them, each times its weight."""

    name: str = Field(min_length=1)
    """One that budgetrl brings, or module:function for one of your own."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Its factor in the sum; 0: it is only recorded."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Numbers by name. "cosine" takes max_tokens, min_correct, max_correct, min_wrong and
    max_wrong, "soft_overlong" max_tokens and cache_tokens; a function of your own takes any."""
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
    """What the loss is a mean over: the tokens of each completion, then completions ("grpo"), all
    tokens of the batch ("dapo"), those of a micro-batch ("bnpo"), or sampling.max_tokens for each
    completion ("dr_grpo")."""
    beta: NonNegative = 0.0
    """Weight of the KL divergence from the reference; 0: no reference is computed."""
    reference: Literal["base", "adapter"] = "base"
    """What that is: the base model alone, or with `model.adapter`."""
    epsilon: Positive = 0.2
    """The ratio to the policy that sampled is clipped at 1 - epsilon."""
    epsilon_high: Positive = 0.2
    """And at 1 + epsilon_high; larger than epsilon is DAPO's clip-higher."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Advantages are divided by the standard deviation of rewards in their group, in the batch, or
    not at all."""
    num_iterations: Count = 1
    """How often each rollout batch is trained on."""
    mask_truncated_completions: bool = False
    """Leave completions that ran into sampling.max_tokens out of the loss."""


class Batch(Table):
    """[batch]: how much goes into one step, which is one rollout batch."""

    prompts_per_step: Count = 32
    """Prompts of one step; each is answered grpo.num_generations times."""
    updates_per_rollout: Count = 1
    """Optimiser steps of one step, each on its share of the prompts; verl's train_batch_size over
    ppo_mini_batch_size. Above 1 the ratio to the policy that sampled is clipped."""
    micro_batch: Count = 8
    """Completions per forward and backward pass."""
    fill: Literal["rows", "tokens"] = "rows"
    """With "tokens" more completions per pass where they are short, never more tokens than
    micro_batch of full length have; fewer passes for the same update."""


class Schedule(Table):
    """[schedule]: learning rate and length of the training."""

    learning_rate: Annotated[Positive, Field(le=1.0)]
    """Of AdamW, at its highest: 1e-6 to 1e-3 is usual; above 1 it is a slip of the exponent."""
    shape: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate goes on after the warm-up: as it is, down a line, or down half a cosine."""
    warmup_share: Share = 0.0
    """Share of the schedule in which the rate rises from 0."""
    min_share: Share = 0.0
    """Where linear and cosine end, as a share of learning_rate."""
    by: Literal["steps", "budget"] = "steps"
    """What the shape is a function of: steps done, or budget used when an update starts."""
    schedule_steps: Count | None = None
    """Length of the shape in steps; left out: stop_after_steps."""
    stop_after_steps: Count | None = None
    """The training ends after so many steps; left out: after as many as the budget buys."""

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
    """The two moments of each trained parameter in float32, or of 8 bits each (bitsandbytes)."""
    beta1: Share = 0.9
    """Decay of the mean of gradients."""
    beta2: Share = 0.999
    """Decay of the mean of their squares."""
    epsilon: Positive = 1e-8
    """Added to the root of that mean before it divides."""
    weight_decay: NonNegative = 0.0
    """Share of the weights, times the learning rate, that each update takes away."""
    max_grad_norm: Positive = 1.0
    """A gradient whose norm is larger is scaled down to it."""


class Sampling(Table):
    """[sampling]: how training completions are drawn."""

    temperature: Positive = 1.0
    """Divides the logits: above 1 more even, below 1 more certain."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the likeliest tokens that together have this probability; 1: off."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Draw from so many of the likeliest tokens; 0: off."""
    min_p: Share = 0.0
    """Leave out tokens with less than this share of the likeliest one's probability; 0: off."""
    max_tokens: Count = 3584
    """The longest completion, in tokens."""
    expected_tokens: Positive | None = None
    """Mean length of a completion in tokens, for plans; left out: what is published on the
    model."""
    stop: tuple[str, ...] = ()
    """Further texts that end a completion, besides the model's own end tokens."""


class Signal(Table):
    """[signal]: spend time on groups that can teach something."""

    skip: Literal["off", "exact", "accuracy"] = "off"
    """Leave groups without signal out of the update: never, only if all their advantages are zero
    ("exact"), or if their answers are all right or all wrong ("accuracy")."""
    keep_rows: Annotated[int, Field(ge=2)] | None = None
    """Train on so many rows of a group, those whose rewards have the largest variance (PODS); with
    the advantages of a group of these alone, so another algorithm. Left out: on all."""
    order: Literal["uniform", "difficulty"] = "uniform"
    """Problems in random order; "difficulty": rather those whose groups are likely to have right
    and wrong answers."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Weight of older results in a problem's running solve rate."""
    solve_rates: str | None = None
    """A table of solve rates to start from, from `budgetrl probe` (order = "difficulty")."""
    explore: Share = 0.2
    """Share of each batch drawn uniformly under order = "difficulty"."""
    resample_rounds: Annotated[int, Field(ge=0)] | None = None
    """How often groups without signal are replaced by fresh prompts within a step; left out:
    never."""
    on_empty: Literal["stop", "continue"] = "stop"
    """What happens after three steps in which no group had signal."""


class Checkpoint(Table):
    """[checkpoint]: when the run is saved; whichever interval comes first."""

    every_steps: Count | None = None
    """Steps between two checkpoints."""
    every_minutes: Positive | None = None
    """Minutes between two checkpoints; left out: the larger of 10 and 3 % of the budget, or
    every_steps alone if given."""
    milestones: Annotated[int, Field(ge=0)] = 4
    """Adapter-only checkpoints kept besides the newest two and the best."""
    keep_completions: Literal["all", "sampled"] | Count = "all"
    """Training completions on disk: of all updates, of the newest N, or "sampled": of the first and
    the newest ten and every tenth."""
    mirror: str | None = None
    """A folder on another disk that gets a second copy of the run at each checkpoint."""


class BudgetTable(Table):
    """[budget]: what the run may cost; the sooner of hours and usd ends it."""

    hours: Positive | None = None
    """Hours of wall time."""
    usd: Positive | None = None
    """Dollars; needs a price."""
    gpu: str | None = None
    """Name of the GPU that the recipe is planned for."""
    usd_per_hour: NonNegative | None = None
    """Price of the machine, in dollars an hour; left out: what is known of the GPU."""
    grace_s: Positive = 20.0
    """Seconds between SIGTERM and the end."""


class Tracker(Table):
    """[tracker]: forwards step events to an experiment tracker."""

    kind: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    """The tracker; its package is installed beside."""
    project: str = "budgetrl"
    """Its project that the run is shown in."""
