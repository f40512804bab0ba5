"""Which tokens end a completion."""

from typing import Any

from budgetrl.errors import RecipeError
from budgetrl.recipe.schema import Recipe


def end_ids(model: Any, tokenizer: Any, recipe: Recipe) -> frozenset[int]:
    """The model's and the tokenizer's own end tokens, and those of sampling.stop.

    Raises:
        RecipeError: a stop text is not a token of its own; others may hide inside a longer token.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    many = configured if isinstance(configured, list) else [configured]
    own = {i for i in [*many, tokenizer.eos_token_id] if i is not None}
    added = tokenizer.get_added_vocab()
    for text in recipe.sampling.stop:
        if text not in added:
            raise RecipeError(
                f"sampling.stop: {text!r} is not a token of its own in {recipe.model.id}.",
                hint=f"It has: {', '.join(sorted(added)[:20])}.",
            )
    return frozenset(own | {added[text] for text in recipe.sampling.stop})
