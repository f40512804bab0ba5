"""Whether a recipe's prompts and completions fit in the model's window together."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budgetrl.errors import ModelError, RecipeError
from budgetrl.recipe.schema import Eval, Recipe, StageKind

WINDOW_KEYS = ("max_position_embeddings", "original_max_position_embeddings", "rope_parameters")
"""Of a config.json, which say how much a model reads; older ones have `rope_scaling`."""


def check_window(recipe: Recipe, window: int | None) -> None:
    """Refuse completions beyond the window: transformers would go on there silently.

    Args:
        recipe: what is asked for.
        window: tokens of prompt and completion together; None if unlimited.

    Raises:
        RecipeError: a limit is too large; names the largest that fits.
    """
    if window is None:
        return
    wanted = {"sampling.max_tokens": recipe.sampling.max_tokens}
    room = window - recipe.prompt.max_tokens
    for spec in recipe.eval:
        name = "max_tokens" if spec.think is None else "think (thinking and answer)"
        wanted[f"eval.{spec.suite}.{name}"] = recipe.eval_tokens(spec) - recipe.prompt.max_tokens
    for stage in recipe.stages:
        part = recipe.for_stage(stage)
        wanted[f"stages.{stage.name}.sampling.max_tokens"] = part.sampling.max_tokens
        if stage.kind is StageKind.SFT and part.sft.max_tokens > window:
            raise RecipeError(
                f"stages.{stage.name}.sft.max_tokens = {part.sft.max_tokens}: the window of "
                f"{recipe.model.id} is {window}.",
                hint=f"Set stages.{stage.name}.sft.max_tokens <= {window}.",
            )
    for key, limit in wanted.items():
        if limit > room:
            raise RecipeError(
                f"{key} = {limit}: with prompt.max_tokens = {recipe.prompt.max_tokens} that is "
                f"{limit + recipe.prompt.max_tokens} tokens, and the window of {recipe.model.id} "
                f"is {window}.",
                hint=f"Set {key} <= {room}."
                if room > 0
                else f"Set prompt.max_tokens below {window}.",
            )


def fit_answers(recipe: Recipe, window: int | None) -> Recipe:
    """Answers after limited thinking get what the window leaves, where nobody said how much.

    Args:
        recipe: what is asked for.
        window: tokens of prompt and completion together; None if unlimited.
    """
    if window is None or all(spec.think is None for spec in recipe.eval):
        return recipe
    room = window - recipe.prompt.max_tokens
    return recipe.but({"eval": tuple(_fitted(recipe, spec, room) for spec in recipe.eval)})


def _fitted(recipe: Recipe, spec: Eval, room: int) -> Eval:
    think = spec.think
    if think is None or think.answer_tokens is not None:
        return spec
    left = min(recipe.answer_tokens(spec), room - think.max_tokens - think.appended)
    if left < 1:
        return spec
    return spec.but({"think.answer_tokens": left})


def window_in_config(values: Mapping[str, Any]) -> int | None:
    """Tokens that a model reads, by its config.json; None where that is not in the usual place.

    Of LongRoPE (Phi-3 and Phi-4-mini of 128k) those up to which it reads as it was first trained:
    one longer row in a batch turns the positions of all rows into others.
    """
    window = values.get("max_position_embeddings")
    if not isinstance(window, int):
        return None
    scaling = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        return window
    if scaling.get("rope_type", scaling.get("type")) not in ("longrope", "su"):
        return window
    key = "original_max_position_embeddings"
    return min(window, scaling.get(key) or values.get(key) or window)


def window_of(config: Path) -> int | None:
    """The same of a config.json.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        return window_in_config(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{config}: cannot be read: {error}.", hint="Download the model again."
        ) from None
