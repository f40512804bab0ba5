"""Whether a recipe's prompts and completions fit in the model's window together."""

from budgetrl.errors import RecipeError
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
