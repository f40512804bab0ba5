"""Which tokens end a completion, and that padding is another."""

from typing import Any

from budgetrl.errors import ModelError, RecipeError
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


def distinct_pad(tokenizer: Any, ends: frozenset[int]) -> None:
    """Pad with a token that ends nothing, where trainers know padding by its token.

    Raises:
        ModelError: the tokenizer has no other padding token.
    """
    if tokenizer.pad_token_id not in ends:
        return
    added = tokenizer.get_added_vocab()
    others = sorted(i for text, i in added.items() if "pad" in text.lower() and i not in ends)
    if not others:
        raise ModelError(
            f"{tokenizer.pad_token!r} pads and ends completions, and no other token can pad.",
            hint="Add a token such as <|pad|> to the tokenizer, and make it pad_token.",
        )
    tokenizer.pad_token_id = others[0]
