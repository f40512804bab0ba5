"""Whether a recipe's prompts and completions fit in the model's window together."""

import json
from pathlib import Path

from budgetrl.errors import ModelError, RecipeError
from budgetrl.recipe.schema import Recipe


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
    wanted |= {f"eval.{e.suite}.max_tokens": recipe.eval_max_tokens(e) for e in recipe.eval}
    room = window - recipe.prompt.max_tokens
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


def window_of(config: Path) -> int | None:
    """max_position_embeddings of a model's config.json; None where it is not in the usual place.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        window = json.loads(config.read_text(encoding="utf-8")).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{config}: cannot be read: {error}.", hint="Download the model again."
        ) from None
    return window if isinstance(window, int) else None
