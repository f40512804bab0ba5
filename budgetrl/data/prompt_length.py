"""How many tokens a recipe's prompts have, for plans: counted without torch and transformers.

    lengths = prompt_lengths(recipe, problems)      lengths.mean, lengths.longest_of(32)

Renders the chat template and counts with the model's tokenizer.json where the model is a folder or
in the hub's cache; else it guesses from the text. Not here: the prompts that a run really has
(`prompts.PromptRenderer`), which nothing but transformers may make.
"""

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Model, Prompt
from budgetrl.types import Problem

SAMPLE = 64
"""Problems that are counted, spread over all of them."""
UNKNOWN_TOKENS = 150
"""Mean length of a rendered Open-RS prompt: where nothing is known of the problems."""
_WRAPPING_TOKENS = 30
"""Of a usual chat template: turns, and a default system message."""
_CHARS_PER_TOKEN = 3.5
_PIECE = re.compile(r"\d|[^\W\d]+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class PromptLengths:
    """Tokens of rendered prompts."""

    lengths: tuple[int, ...]
    """Sorted; a sample."""
    source: str

    @property
    def mean(self) -> float:
        """Mean length."""
        return sum(self.lengths) / len(self.lengths)

    def longest_of(self, prompts: int) -> float:
        """Expected length of the longest of several prompts, to which a batch is padded."""
        place = prompts / (prompts + 1) * len(self.lengths)
        return float(self.lengths[min(len(self.lengths) - 1, int(place))])


def prompt_lengths(model: Model, prompt: Prompt, problems: Sequence[Problem]) -> PromptLengths:
    """Lengths of prompts of some problems, none beyond prompt.max_tokens.

    Args:
        model: whose tokenizer counts.
        prompt: how a problem becomes a prompt.
        problems: all of them; an even sample is counted.
    """
    if not problems:
        return PromptLengths((min(UNKNOWN_TOKENS, prompt.max_tokens),), "Open-RS with its prompt")
    chosen = problems[:: max(1, len(problems) // SAMPLE)][:SAMPLE]
    extra = 0
    try:
        render = _renderer(model, prompt)
    except (ImportError, OSError, KeyError, ValueError):
        around = f"{prompt.system or ''} {prompt.template} "
        render, extra = around.__add__, _WRAPPING_TOKENS
    count, source = text_counter(model)
    lengths = sorted(min(prompt.max_tokens, extra + count(render(p.text))) for p in chosen)
    return PromptLengths(tuple(lengths), source)


def text_counter(model: Model) -> tuple[Callable[[str], int], str]:
    """Counts the tokens of a text, and how it does so."""
    try:
        return _counter(model), "counted by the model's tokenizer"
    except Exception as error:  # tokenizers raises this very class for a damaged file
        return _guess, f"guessed from the text: {type(error).__name__} of its tokenizer"


def model_file(model: Model, name: str) -> Path | None:
    """A file of a model: in its folder, or in the hub's cache; None where it is not here."""
    source = local_path(model.id)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repository = cache / f"models--{source.replace('/', '--')}"
    try:
        reference = repository / "refs" / (model.revision or "main")
        commit = reference.read_text().strip() if reference.is_file() else model.revision or ""
        file = repository / "snapshots" / commit / name
        return file if commit and file.is_file() else None
    except OSError:
        return None


def _renderer(model: Model, prompt: Prompt) -> Callable[[str], str]:
    """Renders a problem as transformers would, as far as a length needs it.

    Raises:
        ImportError, OSError, KeyError, ValueError: no template, or one that needs transformers.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: "01 Jan 2026"
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    known = {"bos_token": "", "eos_token": "", **prompt.template_kwargs}

    def render(text: str) -> str:
        turns = prompt.conversation(text)
        return template.render(messages=turns, add_generation_prompt=True, **known)

    try:
        template = environment.from_string(prompt.chat_template or _own_template(model))
        render("x")
    except TemplateError as error:
        raise ValueError(str(error)) from None
    return render


def _counter(model: Model) -> Callable[[str], int]:
    """Counts the tokens of a text.

    Raises:
        ImportError, OSError: no tokenizer is at hand.
    """
    from tokenizers import Tokenizer

    file = model_file(model, "tokenizer.json")
    if file is None:
        raise FileNotFoundError("tokenizer.json")
    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _guess(text: str) -> int:
    """Tokens of a text by the eye: a digit or sign is one, and 3.5 letters."""
    return sum(math.ceil(len(piece) / _CHARS_PER_TOKEN) for piece in _PIECE.findall(text))


def _own_template(model: Model) -> str:
    file = model_file(model, "chat_template.jinja")
    if file is not None:
        return file.read_text(encoding="utf-8")
    file = model_file(model, "tokenizer_config.json")
    template = json.loads(file.read_text(encoding="utf-8"))["chat_template"] if file else None
    if not isinstance(template, str):
        raise ValueError("no chat template")
    return template


def _refuse(message: str) -> None:
    raise ValueError(message)
