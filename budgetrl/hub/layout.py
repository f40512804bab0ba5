"""Which files of a repository are needed: of a model, of an adapter, of a data set's splits.

    files_of(need, found)        what to download, refused where something is lacking
    data_layout(found, card)     files of every split, and the columns where the card names them

Of a model one format of the weights is taken, safetensors where there is a choice: repositories
often hold the same weights two or three times. The splits of a data set are what `datasets` makes
of a folder with the same names and the same card; nothing of the data is read for that.
"""

import logging
import re
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from budgetrl.errors import DataError, ModelError, first_line
from budgetrl.hub.repo import Found, Repo, RepoFile

CARD = "README.md"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

_SMALL = re.compile(
    r"(config|generation_config|tokenizer\w*|special_tokens_map|added_tokens|vocab|chat_template)"
    r"\.json|merges\.txt|vocab\.txt|[\w.-]+\.(model|tiktoken|jinja)"
    r"|additional_chat_templates/[\w.-]+\.jinja|(model\.safetensors|pytorch_model\.bin)\.index\.json"
)
_WEIGHTS = (
    re.compile(r"model(-(\d+)-of-(\d+))?\.safetensors"),
    re.compile(r"pytorch_model(-(\d+)-of-(\d+))?\.bin"),
)
_ONE_AT_A_TIME = threading.Lock()
"""`datasets` makes progress bars, whose library cannot do so in two threads at first."""
_CARDS = frozenset({CARD, ".huggingface.yaml", "dataset_infos.json"})


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a recipe takes from the hub."""

    key: str
    """Where the recipe names it: "model", "data", "eval.aime24"."""
    repo: Repo
    what: Literal["model", "adapter", "data"]
    split: str | None = None
    columns: tuple[str, ...] = ()
    """That the split has to have."""
    config: str | None = None
    """The configuration of a data set that has several."""


@dataclass(frozen=True, slots=True)
class DataLayout:
    """What a data set's default configuration is made of."""

    splits: Mapping[str, tuple[str, ...]]
    """Paths of the files of every split."""
    columns: tuple[str, ...] | None
    """None where the card does not name them."""


def files_of(need: Need, found: Found, layout: DataLayout | None = None) -> tuple[RepoFile, ...]:
    """The files that are needed of a repository.

    Args:
        need: what for.
        found: everything that it holds.
        layout: of a data set.

    Raises:
        ModelError, DataError: what is lacking.
    """
    if need.what == "adapter":
        chosen = [file for file in found.files if file.path in ADAPTER_FILES]
        _demand(need, {f.path for f in chosen} >= set(ADAPTER_FILES), "whole PEFT adapter", "")
        return tuple(chosen)
    if need.what == "model":
        return _model_files(need, found)
    assert layout is not None
    if need.split not in layout.splits:
        raise DataError(
            f"{need.repo.label} has no split {need.split!r}.",
            hint=f"It has: {', '.join(sorted(layout.splits)) or 'none'}. Set {need.key}.split.",
        )
    wanted = {path for paths in layout.splits.values() for path in paths} | _CARDS
    return tuple(file for file in found.files if file.path in wanted)


def gguf_hint(names: Iterable[str]) -> str:
    """What to do with files that are llama.cpp's and no others; empty where there are none."""
    if not any(name.lower().endswith(".gguf") for name in names):
        return ""
    return (
        "A GGUF file is llama.cpp's and mostly rounded, and cannot be trained: name the model that "
        "it was made from, or see docs/own_model.md."
    )


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether a model's files hold the vocabulary of a tokenizer."""
    held = set(names)
    return (
        bool(held & {"tokenizer.json", "tokenizer.model"}) or {"vocab.json", "merges.txt"} <= held
    )


def _model_files(need: Need, found: Found) -> tuple[RepoFile, ...]:
    names = [file.path for file in found.files]
    if "config.json" not in names and "adapter_config.json" in names:
        raise ModelError(
            f"{need.repo.label} holds an adapter, no model of its own.",
            hint=f"`budgetrl eval {need.repo.id}` judges it; to train, name its base model.",
        )
    _demand(need, "config.json" in names, "config.json", f" {gguf_hint(names)}".rstrip())
    _demand(need, has_tokenizer(names), "tokenizer (tokenizer.json or tokenizer.model)",
        " Without one every prompt would be empty; take a model with its tokenizer.")  # fmt: skip
    weights = next((chosen for one in _WEIGHTS if (chosen := _of_format(one, names))), [])
    whole = "whole weights (model*.safetensors or pytorch_model*.bin)"
    _demand(need, bool(weights), whole, f" {gguf_hint(names)}".rstrip())
    small = {name for name in names if _SMALL.fullmatch(name)}
    return tuple(file for file in found.files if file.path in small | set(weights))


def _of_format(pattern: "re.Pattern[str]", names: Sequence[str]) -> list[str]:
    """The weights in one format; empty where there are none, or not all of their parts."""
    matches = [match for name in names if (match := pattern.fullmatch(name))]
    whole = [match[0] for match in matches if match[1] is None]
    if whole:
        return whole
    parts = {int(match[2]): match for match in matches}
    count = max((int(match[3]) for match in matches), default=0)
    return [match[0] for match in parts.values()] if parts and len(parts) == count else []


def _demand(need: Need, there: bool, what: str, more: str) -> None:
    if not there:
        raise ModelError(
            f"{need.repo.label} has no {what}.",
            hint=f"Its files: {need.repo.page}/tree/main.{more}",
        )


def data_layout(found: Found, card: str | None, config: str | None = None) -> DataLayout:
    """What `datasets` makes of a data set's file names and its card.

    Raises:
        DataError: it finds no data that it can read.
    """
    import datasets

    try:
        with _ONE_AT_A_TIME, _skeleton(found.files, card) as folder:
            builder: Any = datasets.load_dataset_builder(
                str(folder), config, cache_dir=f"{folder}.cache"
            )
            splits = {
                str(split): tuple(Path(path).relative_to(folder).as_posix() for path in paths)
                for split, paths in (builder.config.data_files or {}).items()
            }
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{found.repo.label} cannot be read as a data set: {first_line(error)}",
            hint="It needs rows in json, jsonl, csv or parquet files; of several configurations "
            "name one (data.config); or give a file with path.",
        ) from None
    named = builder.info.features
    return DataLayout(splits, None if named is None else tuple(named))


@contextmanager
def _skeleton(files: Sequence[RepoFile], card: str | None) -> Any:
    """A folder of empty files with the names of a repository, and its card."""
    # A card without metadata is usual, and no warning is due for it.
    said = logging.getLogger("huggingface_hub")
    level = said.level
    said.setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "files"
        folder.mkdir()
        for file in files:
            path = folder / file.path
            if path.resolve().is_relative_to(folder) and file.path not in _CARDS:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        if card is not None:
            (folder / CARD).write_text(card, encoding="utf-8")
        try:
            yield folder
        finally:
            said.setLevel(level)
