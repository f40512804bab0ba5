"""A recipe on a GPU, with everything that has to be assumed said aloud.

    scenario = make_scenario(recipe, gpu)
    memory_of(scenario)                    parts, peaks, verdict
    scenario.lengths(), .live_share        what phases are made from

Turns recipe keys into the work that `rollout`, `training_time` and `memory` know.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from budgetrl.errors import RecipeError
from budgetrl.estimation.lengths import Lengths
from budgetrl.estimation.memory import (
    MemoryEstimate,
    MemoryWork,
    Verdict,
    estimate_memory,
    weight_bytes,
)
from budgetrl.estimation.passes import Passes, passes_of
from budgetrl.estimation.shapes import LengthPrior, ModelShape, find_shape
from budgetrl.estimation.terms import Constants, load_constants
from budgetrl.estimation.workload import Precision, Trainer
from budgetrl.hardware import Gpu
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import EngineName, Eval, Recipe
from budgetrl.recipe.suites import SUITES
from budgetrl.recipe.window import check_window
from budgetrl.units import GIB

PROMPT_TOKENS = 150
"""Mean length of a rendered Open-RS prompt: system text, problem, template."""

_UNKNOWN_SUITE_PROBLEMS = 200

UNKNOWN_LENGTH = LengthPrior(
    value=0.53,
    low=0.25,
    high=0.75,
    source="nothing is published for this model: 53 % of the limit, as the paper's 300 updates in "
    "24 h imply; sampling.expected_tokens replaces it",
)
"""Mean over limit where nothing is published on a model."""

LIVE_GROUPS = 0.5
"""Groups with signal where those without are left out: between 22 % (R1-Distill-1.5B on Open-RS at
2,048 tokens) and 80 % (a policy in the middle of learning)."""

_PRIOR_LIMIT = 3584
"""Token limit at which the published lengths were seen."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is planned, where, and on which assumptions."""

    recipe: Recipe
    shape: ModelShape
    gpu: Gpu
    precision: Precision
    trained_params: int
    """Of the adapter; of the model where all weights are trained."""
    mean_tokens: LengthPrior
    """Mean completion length: expected, and the 80 % range."""
    prompt_tokens: float
    live_share: float
    """Share of the completions that the update trains on."""
    rollout_factor: float
    """Completions rolled out per completion trained on, resampling included."""
    constants: Constants
    download_bytes: float | None = None
    """What of the hub is not on this machine yet; None: not known, the weights."""

    @property
    def adapter_params(self) -> int | None:
        """Weights of the adapter; None where all weights are trained."""
        return None if self.recipe.lora.is_full else self.trained_params

    @property
    def whole_copies(self) -> int:
        """Models in float32 where all weights are trained, the reference of a KL term included."""
        return (1 + (self.recipe.grpo.beta > 0)) * self.recipe.lora.is_full

    @property
    def vllm(self) -> bool:
        """Whether vLLM generates."""
        return self.recipe.engine.name is EngineName.UNSLOTH

    @property
    def trainer(self) -> Trainer:
        """What makes the passes of an update."""
        return Trainer.UNSLOTH if self.vllm else Trainer.TRL

    def lengths(self, mean: float | None = None) -> Lengths:
        """Distribution of training completions."""
        limit = float(self.recipe.sampling.max_tokens)
        return Lengths.with_mean(min(mean or self.mean_tokens.value, limit), limit)

    def passes(self, mean: float | None = None) -> Passes:
        """What one update takes through the model, at a mean completion length."""
        row_tokens = self.prompt_tokens + self.lengths(mean).mean
        return passes_of(self.recipe, self.live_share, row_tokens)

    @property
    def teacher(self) -> ModelShape | None:
        """The shape of a distillation's teacher; None without one, and where a model is its own.

        Raises:
            ModelError: it is unknown.
        """
        spec = self.recipe.teacher
        return None if spec is None or spec.is_self else find_shape(spec.id, spec.revision)

    @property
    def teacher_bytes(self) -> float:
        """Weights of that teacher, as they are loaded."""
        spec, shape = self.recipe.teacher, self.teacher
        if spec is None or shape is None:
            return 0.0
        precision = Precision.INT4 if spec.load_in_4bit else Precision.BF16
        return weight_bytes(shape, precision, 4 if spec.dtype == "float32" else 2)

    def memory_work(self) -> MemoryWork:
        """What has to be held in memory."""
        recipe, engine = self.recipe, self.recipe.engine
        lengths = self.lengths()
        live = self.prompt_tokens + lengths.mean_square / (2 * lengths.mean)
        beside = recipe.teacher is not None and recipe.teacher.device == "model"
        return MemoryWork(
            shape=self.shape,
            precision=self.precision,
            adapter_params=self.adapter_params or 0,
            whole_copies=self.whole_copies,
            optimizer=recipe.optimizer.name,
            micro_batch=recipe.batch.micro_batch,
            sequence_tokens=recipe.prompt.max_tokens + recipe.sampling.max_tokens,
            sequences=recipe.completions_per_step,
            eval_sequences=max((suite_problems(e) * e.rounds.max for e in recipe.eval), default=0),
            window_tokens=recipe.sequence_tokens,
            reference=self.passes().no_grad_passes > 0,
            live_context=live,
            vllm=self.vllm,
            standby=engine.standby,
            utilization=engine.gpu_memory_utilization,
            max_sequences=engine.max_num_seqs if self.vllm else recipe.completions_per_step,
            logit_chunks=max(engine.logit_chunks, recipe.batch.micro_batch) if self.vllm else None,
            checkpointing=engine.gradient_checkpointing,
            offload=self.vllm,
            weight_bytes=4 if recipe.model.dtype == "float32" else 2,
            teacher=self.teacher_bytes if beside else 0.0,
            teacher_shape=self.teacher if beside else None,
        )


def make_scenario(
    recipe: Recipe,
    gpu: Gpu,
    constants: Constants | None = None,
    *,
    download_bytes: float | None = None,
    shape: ModelShape | None = None,
) -> Scenario:
    """Resolve what an estimate needs to know.

    Args:
        recipe: resolved.
        gpu: a row of the table.
        constants: instead of those that ship.
        shape: of the model, where it is known already.

    Raises:
        ModelError: the model's shape is unknown.
        RecipeError: prompt and completion do not fit the model's window, or the expected length is
            above the limit.
    """
    shape = shape or find_shape(recipe.model.id, recipe.model.revision)
    check_window(recipe, shape.window)
    prior = completion_prior(recipe, shape)
    targets = None if recipe.lora.targets == "all-linear" else recipe.lora.targets
    prompt = float(min(PROMPT_TOKENS, recipe.prompt.max_tokens))
    live_share, rollout_factor = signal_shares(recipe)
    return Scenario(
        recipe=recipe,
        shape=shape,
        gpu=gpu,
        precision=Precision.INT4 if recipe.model.load_in_4bit else Precision.BF16,
        trained_params=shape.params
        if recipe.lora.is_full
        else shape.lora_params(recipe.lora.adapter_rank, targets),
        mean_tokens=prior,
        prompt_tokens=prompt,
        live_share=live_share,
        rollout_factor=rollout_factor,
        constants=constants or load_constants(),
        download_bytes=download_bytes,
    )


def memory_of(scenario: Scenario) -> MemoryEstimate:
    """Memory by part, with the verdict; a GPU without the recipe's dtype is `no`."""
    estimate = estimate_memory(
        scenario.memory_work(), scenario.gpu.usable_gib * GIB, scenario.constants
    )
    if scenario.recipe.model.dtype == "bfloat16" and not scenario.gpu.bf16:
        reason = f'{scenario.gpu.name} has no bfloat16; model.dtype = "float16" is its way'
        return replace(estimate, verdict=Verdict.NO, reason=reason)
    return estimate


def completion_prior(recipe: Recipe, shape: ModelShape) -> LengthPrior:
    """Mean completion length: the recipe's, else published, else a share of the limit.

    Raises:
        RecipeError: the recipe expects more than its limit.
    """
    limit, expected = recipe.sampling.max_tokens, recipe.sampling.expected_tokens
    if expected is not None:
        if expected > limit:
            raise RecipeError(
                f"sampling.expected_tokens = {expected:g} is above sampling.max_tokens = {limit}.",
                hint="A mean cannot be above the limit.",
            )
        return LengthPrior(expected, expected, expected, "recipe: sampling.expected_tokens")
    published = shape.completion_tokens
    if published is None:
        prior = UNKNOWN_LENGTH
        return LengthPrior(prior.value * limit, prior.low * limit, prior.high * limit, prior.source)
    if limit == _PRIOR_LIMIT:
        return published
    return LengthPrior(
        _under_limit(published.value, limit),
        _under_limit(published.low, limit),
        _under_limit(published.high, limit),
        f"{published.source}; under a limit of {limit}",
    )


def suite_problems(spec: Eval) -> int:
    """Problems of a suite: known by name, counted in a local file, else assumed."""
    if spec.path is not None:
        path = Path(local_path(spec.path))
        if path.is_file():
            with path.open("rb") as lines:
                return sum(1 for line in lines if line.strip())
    known = SUITES.get(spec.suite)
    return known.problems if known is not None else _UNKNOWN_SUITE_PROBLEMS


def expected_samples(spec: Eval) -> int:
    """Of each problem, where as many are drawn as the interval needs."""
    return spec.rounds.expected(suite_problems(spec))


def planned_samples(recipe: Recipe) -> list[dict[str, Any]]:
    """Of each suite, the least, expected and most samples of a problem."""
    return [
        {
            "suite": spec.suite,
            "min": spec.rounds.min,
            "expected": expected_samples(spec),
            "max": spec.rounds.max,
            "until_width": spec.rounds.until_width,
        }
        for spec in recipe.eval
    ]


def _under_limit(mean: float, limit: int) -> float:
    """A mean seen under one limit, under another."""
    seen = Lengths.with_mean(mean, _PRIOR_LIMIT)
    return Lengths(seen.mu, seen.sigma, float(limit)).mean


def signal_shares(recipe: Recipe, groups: float = LIVE_GROUPS) -> tuple[float, float]:
    """Share of completions that are trained on, and rollouts per group kept.

    Args:
        recipe: resolved.
        groups: share of groups with signal.
    """
    rows = (recipe.signal.keep_rows or recipe.grpo.num_generations) / recipe.grpo.num_generations
    if recipe.signal.resample_rounds:
        return rows, 2.0 - groups
    return (1.0 if recipe.signal.skip == "off" else groups * rows), 1.0
