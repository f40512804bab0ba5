"""Values of verl that follow from several of a recipe's, or look other than they do there."""

import math
from typing import Any

from budgetrl.export.layout import Layout
from budgetrl.recipe.schema import AlphaPolicy, Eval, Recipe
from budgetrl.types import EvalWhen

HALF = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
LOSS = {"dapo": "token-mean", "grpo": "seq-mean-token-mean", "dr_grpo": "seq-mean-token-sum-norm"}


def verl_alpha(recipe: Recipe) -> float | int:
    """lora_alpha for a scale of alpha / r, all that verl has: an rsLoRA's is larger."""
    lora = recipe.lora
    alpha = lora.resolved_alpha
    if lora.alpha_policy is AlphaPolicy.RSLORA:
        alpha *= math.sqrt(lora.adapter_rank)
    return int(alpha) if alpha == int(alpha) else alpha


def validation(recipe: Recipe) -> Eval | None:
    """The evaluation whose protocol verl's validation has: it knows one for all suites."""
    during = [spec for spec in recipe.eval if EvalWhen.STEP in spec.when]
    return next(iter([*during, *recipe.eval]), None)


def validation_sampling(recipe: Recipe, layout: Layout) -> tuple[float, float, int, bool]:
    spec = validation(recipe) or Eval(suite="math500", samples=1)
    return spec.temperature, spec.top_p, spec.rounds.min, spec.temperature > 0


def test_freq(recipe: Recipe, layout: Layout) -> int:
    spec = validation(recipe)
    steps = recipe.schedule.stop_after_steps or 1
    if spec is None or EvalWhen.STEP not in spec.when:
        return -1
    if spec.every_steps is not None:
        return spec.every_steps
    return max(1, steps // (len(spec.at_fractions) + 1))


def save_freq(recipe: Recipe, layout: Layout) -> int:
    every, evals = recipe.checkpoint.every_steps, test_freq(recipe, layout)
    return every or (evals if evals > 0 else 25)


def logger(recipe: Recipe, layout: Layout) -> list[str]:
    kind = recipe.tracker.kind
    return ["console"] if kind == "none" else ["console", kind]


def longest(recipe: Recipe) -> int:
    return recipe.prompt.max_tokens + recipe.sampling.max_tokens


def precision(recipe: Recipe, layout: Layout) -> tuple[Any, ...]:
    half = HALF[recipe.model.dtype]
    mixed = {"param_dtype": half, "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    return "fp32", mixed, recipe.model.dtype


def optimizer(recipe: Recipe, layout: Layout) -> tuple[str, str]:
    if recipe.optimizer.name == "adamw_8bit":
        return "AdamW8bit", "bitsandbytes.optim"
    return "AdamW", "torch.optim"


def seeds(recipe: Recipe, layout: Layout) -> tuple[int, ...]:
    return (recipe.seed,) * 4
