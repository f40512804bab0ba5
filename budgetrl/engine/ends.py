"""Which tokens end a completion, that padding is another, and that text has tokens at all.

End tokens are all that budgetrl takes from a model's generation_config.json. That file also holds
what its makers sample with (Qwen2.5 ships repetition_penalty 1.1), and transformers fills with it
whatever a call leaves open; a recipe's [sampling] would then be one thing and its completions
another, and the sampler no longer the model that is trained.
"""

import json
from pathlib import Path
from typing import Any

from budgetrl.errors import ModelError, RecipeError
from budgetrl.recipe.schema import Recipe

GENERATION_FILE = "generation_config.json"


def end_ids(model: Any, tokenizer: Any, recipe: Recipe) -> frozenset[int]:
    """The model's and the tokenizer's own end tokens, and those of sampling.stop.

    Raises:
        ModelError: there is none, so that every completion would run to the limit.
        RecipeError: a stop text is not a token of its own; others may hide inside a longer token.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    own = {*_ids(configured), *_ids(tokenizer.eos_token_id)}
    added = tokenizer.get_added_vocab()
    for text in recipe.sampling.stop:
        if text not in added:
            raise RecipeError(
                f"sampling.stop: {text!r} is not a token of its own in {recipe.model.id}.",
                hint=f"It has: {', '.join(sorted(added)[:20])}.",
            )
    ends = frozenset(own | {added[text] for text in recipe.sampling.stop})
    if not ends:
        raise ModelError(
            f"model {recipe.model.id!r} names no token that ends a completion.",
            hint="Name one of its tokens as sampling.stop, or eos_token_id in its "
            f"{GENERATION_FILE}. It has: {', '.join(sorted(added)[:20]) or 'no special tokens'}.",
        )
    return ends


def only_ends(source: str, config: Any) -> Any:
    """A generation configuration that holds a model's end tokens and nothing else of its files.

    Args:
        source: the model's folder.
        config: its config.json, asked where generation_config.json is missing or names none.

    Raises:
        ModelError: the file is no JSON, or its end tokens are no token ids.
    """
    import transformers

    ends = _ids(_read(Path(source) / GENERATION_FILE))
    ends = ends or _ids(getattr(config, "eos_token_id", None))
    return transformers.GenerationConfig(eos_token_id=ends or None)


def closing_id(printed: str, tokenizer: Any, ends: frozenset[int]) -> int:
    """The token that a completion is taught to end with.

    Args:
        printed: what the chat template prints after an answer.
        tokenizer: of the model.
        ends: tokens that end a completion; where the template prints none of them, the tokenizer's
            own end token, or any other.
    """
    for token in tokenizer(printed, add_special_tokens=False)["input_ids"]:
        if token in ends:
            return int(token)
    own = tokenizer.eos_token_id
    return int(own) if own in ends else min(ends)


def some_pad(tokenizer: Any, ends: frozenset[int], rows: int) -> None:
    """A padding token where the tokenizer has none that the model knows, or no end token.

    Which one does not matter here: masks, not tokens, say what is padding.

    Args:
        tokenizer: of the model; changed.
        ends: tokens that end a completion.
        rows: of the model's embedding.
    """
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token_id = min(ends)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token_id = tokenizer.eos_token_id


def distinct_pad(tokenizer: Any, ends: frozenset[int]) -> None:
    """Pad with a token that ends nothing, where trainers know padding by its token.

    One that is made for padding, else one that is reserved and that the model never writes.

    Raises:
        ModelError: the tokenizer has no other padding token.
    """
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token_id = min(ends)
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in ends:
        return
    added = tokenizer.get_added_vocab()
    free = {text.lower(): number for text, number in added.items() if number not in ends}
    for word in ("pad", "reserved", "unused"):
        others = sorted(number for text, number in free.items() if word in text)
        if others:
            tokenizer.pad_token_id = others[0]
            return
    pads = tokenizer.pad_token_id is not None
    has = f"pads with {tokenizer.pad_token!r}, an end token" if pads else "has no padding token"
    raise ModelError(
        f"the tokenizer {has}, and no other token can pad.",
        hint="Add a token such as <|pad|> to the tokenizer, and make it pad_token.",
    )


def _read(path: Path) -> Any:
    """eos_token_id of a generation_config.json; None where there is none."""
    try:
        ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}.", hint="Copy or download it again."
        ) from None
    if not all(type(i) is int and i >= 0 for i in _ids(ends)):
        raise ModelError(
            f"{path}: eos_token_id = {ends!r} are no token ids.",
            hint="Give an id, or a list of ids.",
        )
    return ends


def _ids(value: Any) -> list[Any]:
    """None, one id or several of them, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
