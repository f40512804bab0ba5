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
    return frozenset(own | {added[text] for text in recipe.sampling.stop})


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


def refuse_empty(tokenizer: Any, model: str) -> None:
    """Refuse a tokenizer without a vocabulary: transformers makes one up where its files are gone.

    Raises:
        ModelError: ordinary text has no tokens of its own.
    """
    ids = tokenizer("1 + 1 = 2, so it is", add_special_tokens=False)["input_ids"]
    if set(ids) <= set(tokenizer.all_special_ids):
        raise ModelError(
            f"model {model!r}: its tokenizer is empty ({len(tokenizer)} entries).",
            hint="A model folder needs tokenizer.json (or tokenizer.model) beside its weights.",
        )


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
