"""A model's tokenizer, held against its tokenizer.json, which is what the model was trained with.

    tokenizer = load_tokenizer(source, recipe)
    tokenizer = restored(tokenizer, source, recipe)      one that another library has loaded

transformers chooses a class by the names in the model's files and may build the tokenizer anew
from its vocabulary: of a Llama whose vocabulary is byte-level, such as R1-Distill-Llama, every
space is lost then, without an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer

from budgetrl.errors import ModelError, first_line
from budgetrl.recipe.schema import Prompt, Recipe

TOKENIZER_FILE = "tokenizer.json"
PROBE = "Für $x < 3$  gilt:\n\t\\frac{x}{12} + 1 = \\sqrt{4}, “π & 中 🙂” isn't 1,234.5\n\n"
"""What tokenizers split in different ways: spaces, LaTeX, digits, signs, lines, no ASCII alone."""


def load_tokenizer(source: str, recipe: Recipe) -> Any:
    """The tokenizer of a model's folder, padding on the left.

    Raises:
        ModelError: there is none, or it is another one than its tokenizer.json.
    """
    return faithful(_load(transformers.AutoTokenizer, source, recipe), source, recipe)


def restored(tokenizer: Any, source: str, recipe: Recipe) -> Any:
    """What another library has loaded, with the model's own splitting and chat template.

    Unsloth rewrites templates that do not open the model's turn.

    Raises:
        ModelError: as of `faithful`.
    """
    made = faithful(tokenizer, source, recipe)
    made.chat_template = load_tokenizer(source, recipe).chat_template
    return made


def faithful(tokenizer: Any, source: str, recipe: Recipe) -> Any:
    """The tokenizer if it splits and joins texts as its tokenizer.json does, else that file's.

    Args:
        tokenizer: as it was loaded.
        source: the model's folder.
        recipe: says how prompts look.

    Raises:
        ModelError: neither agrees with the file, there is no file and texts do not come back, or
            there is no vocabulary at all.
    """
    _refuse_empty(tokenizer, recipe.model.id)
    path = Path(source) / TOKENIZER_FILE
    if not path.is_file():
        _refuse_lossy(tokenizer, recipe)
        return tokenizer
    wanted = _read(path)
    if _agree(tokenizer, wanted, recipe.prompt):
        return tokenizer
    plain = _load(transformers.PreTrainedTokenizerFast, source, recipe)
    if _agree(plain, wanted, recipe.prompt):
        return plain
    raise ModelError(
        f"model {recipe.model.id!r}: its tokenizer splits texts in another way than its "
        f"{TOKENIZER_FILE}, so the model would read other prompts than it knows.",
        hint="Download both tokenizer files again; tokens that only tokenizer_config.json names "
        f"have to stand in {TOKENIZER_FILE} too.",
    )


def _refuse_empty(tokenizer: Any, model: str) -> None:
    """Refuse a tokenizer without a vocabulary: transformers makes one up where files are gone."""
    ids = tokenizer("1 + 1 = 2, so it is", add_special_tokens=False)["input_ids"]
    if set(ids) <= set(tokenizer.all_special_ids):
        raise ModelError(
            f"model {model!r}: its tokenizer is empty ({len(tokenizer)} entries).",
            hint="A model folder needs tokenizer.json (or tokenizer.model) beside its weights.",
        )


def _load(loader: Any, source: str, recipe: Recipe) -> Any:
    try:
        return loader.from_pretrained(source, padding_side="left", trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"model {recipe.model.id!r} has no usable tokenizer: {first_line(error)}",
            hint="A model folder needs tokenizer.json and tokenizer_config.json.",
        ) from None


def _read(path: Path) -> Tokenizer:
    try:
        raw = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelError(
            f"{path} cannot be read: {first_line(error)}.", hint="Copy or download it again."
        ) from None
    raw.no_truncation()
    raw.no_padding()
    return raw


def _agree(tokenizer: Any, wanted: Tokenizer, prompt: Prompt) -> bool:
    """Whether both make the same ids of texts, and the same text of ids."""
    for text in (PROBE, *_rendered(tokenizer, prompt)):
        ids = wanted.encode(text, add_special_tokens=False).ids
        if tokenizer(text, add_special_tokens=False)["input_ids"] != ids:
            return False
    ids = wanted.encode(PROBE, add_special_tokens=False).ids
    return _decoded(tokenizer, ids) == wanted.decode(ids, skip_special_tokens=False)


def _rendered(tokenizer: Any, prompt: Prompt) -> Sequence[str]:
    """The probe as a prompt; nothing where it cannot be rendered, which prompts will say."""
    from jinja2 import TemplateError

    arguments = {"add_generation_prompt": True, **prompt.template_kwargs}
    try:
        turns = prompt.conversation(PROBE)
        text = tokenizer.apply_chat_template(
            turns, chat_template=prompt.chat_template, tokenize=False, **arguments
        )
    except (TemplateError, TypeError, ValueError):
        return ()
    return (str(text),)


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return str(text)


def _refuse_lossy(tokenizer: Any, recipe: Recipe) -> None:
    text = "12 + 7 = 19, so x is 19"
    if _decoded(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"]).strip() != text:
        raise ModelError(
            f"model {recipe.model.id!r}: texts do not come back from its tokenizer as they were.",
            hint=f"The model has no {TOKENIZER_FILE}, so another tokenizer was made of its files: "
            "add that file, or take a copy of the model that has it.",
        )
