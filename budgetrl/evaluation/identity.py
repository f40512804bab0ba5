"""Which weights answered: names that change with anything that changes an answer.

adapter_identity(folder)        weights, and what the configuration makes of them
base_identity("Qwen/Qwen3-0.6B")   the id; of a folder its path and a hash of its files
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from budgetrl.engine.adapter import ADAPTER_WEIGHTS as ADAPTER_WEIGHTS
from budgetrl.errors import ModelError
from budgetrl.files import parse_json
from budgetrl.hub.repo import is_hub_id
from budgetrl.recipe.assets import PREFIX, asset_root

ADAPTER_CONFIG = "adapter_config.json"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""Of a checkpoint of a run that trained all weights."""
_CHANGE_NOTHING = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights"),
    *("lora_dropout", "megatron_core", "peft_version", "revision", "runtime_config", "task_type"),
}
"""Fields of an adapter's configuration that no answer depends on, given base and weights."""
_SNAPSHOT = re.compile(r"/models--([\w.-]+)/snapshots/([0-9a-f]{40})/?$")
"""A model's folder in the hub's cache."""
_MODEL_FILES = ("*.json", "*.safetensors", "*.bin")
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The `adapter_config.json` of a LoRA adapter."""

    values: Mapping[str, Any]
    base: str
    """Hub id, folder, or asset of the model that it was trained on; empty where it names none."""
    revision: str | None
    """Of the base on the hub, where the adapter names it."""
    rank: int
    alpha: float
    rslora: bool

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of an adapter's folder.

        Raises:
            ModelError: unreadable, of another kind than LoRA, or with a rank or alpha of no sense.
        """
        file = folder / ADAPTER_CONFIG
        try:
            values = parse_json(file.read_bytes())
            # verl's merger writes null; its output has the base in the folder above.
            base, rank = values["base_model_name_or_path"] or _above(folder), int(values["r"])
            base = str(base)
            alpha, kind = float(values["lora_alpha"]), str(values.get("peft_type", "LORA"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise _no_lora(file, repr(error)) from None
        if kind != "LORA":
            raise _no_lora(file, f"peft_type is {kind!r}")
        if rank < 1 or not 0 < alpha < math.inf:
            raise _no_lora(file, f"r = {rank} and lora_alpha = {alpha:g} must be above 0")
        snapshot = _SNAPSHOT.search(base)
        revision = snapshot[2] if snapshot else values.get("revision")
        known = snapshot[1].replace("--", "/") if snapshot else _known_base(base)
        rslora = bool(values.get("use_rslora"))
        return cls(values, known, revision, rank, alpha, rslora)

    def decisive(self) -> str:
        """The values that change answers, one text for equal ones."""
        values = {key: value for key, value in self.values.items() if key not in _CHANGE_NOTHING}
        said = {
            key: sorted(map(str, value)) if isinstance(value, list) else value
            for key, value in values.items()
            if value not in (None, False, {}, [], "none")  # what PEFT takes where nothing is said
        }
        return json.dumps(said | {"lora_alpha": self.alpha}, sort_keys=True)


def _above(folder: Path) -> str:
    """The model in whose folder an adapter's lies; nothing where it lies in none."""
    above = folder.absolute().parent
    return str(above) if (above / "config.json").is_file() else ""


def adapter_identity(folder: Path) -> str:
    """A hash of an adapter's weights and one of its decisive configuration.

    Raises:
        ModelError: a file is missing or of no use.
    """
    decisive = AdapterConfig.read(folder).decisive()
    return f"{weights_hash(folder)} {hashlib.sha256(decisive.encode()).hexdigest()[:_DIGITS]}"


def same_base(one: str, other: str) -> bool:
    """Whether two references name the same model, owner and folder apart."""
    names = (ref.rstrip("/").rpartition("/")[2].rpartition(":")[2].lower() for ref in (one, other))
    return next(names) == next(names)


def adapter_on(folder: Path, base: str, whose: str, key: str) -> AdapterConfig:
    """The configuration of an adapter that is to be put on a base.

    Args:
        folder: with configuration and weights.
        base: the model.
        whose: what messages call the adapter.
        key: of the recipe, by which it names the base.

    Raises:
        ModelError: a file is missing or of no use, or it was trained on another base.
    """
    config = AdapterConfig.read(folder)
    weights_hash(folder)
    if config.base and not same_base(config.base, base):
        raise ModelError(
            f"{whose} {folder} was trained on {config.base}, and {key} is {base}.",
            hint=f"Take an adapter of the same base, or name its own as {key}.",
        )
    return config


def weights_hash(folder: Path) -> str:
    """Of an adapter's weights, or of a whole model's.

    Raises:
        ModelError: there are none.
    """
    whole = (folder / WEIGHTS).is_file()
    return file_hash(
        folder / (WEIGHTS if whole else ADAPTER_WEIGHTS),
        f"An adapter folder holds {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}.",
    )[:_DIGITS]


def base_identity(model: str, revision: str | None = None) -> str:
    """A model's id and revision; of a local folder, which may change, a hash of what is in it.

    Raises:
        ModelError: a file cannot be read.
    """
    if not is_hub_id(model) and Path(model).is_dir():
        return f"{model} {_folder_hash(Path(model))}"
    return f"{model}@{revision}" if revision else model


def model_files(folder: Path, *others: str) -> list[Path]:
    """Weights, configuration and tokenizer of a model in a folder, and files of other patterns."""
    found = {file for pattern in (*_MODEL_FILES, *others) for file in folder.glob(pattern)}
    return sorted(file for file in found if not file.is_dir())


def file_hash(file: Path, hint: str = "Check the files of the model and who may read them.") -> str:
    """SHA-256 of a file; read once in a process, unless it changes.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        there = file.stat()
        return _hash_of(file, there.st_size, there.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}.", hint=hint) from None


@cache
def _hash_of(file: Path, size: int, changed_ns: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _folder_hash(folder: Path) -> str:
    hashes = {file.name: file_hash(file) for file in model_files(folder)}
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:_DIGITS]


def _known_base(base: str) -> str:
    """A model that ships with budgetrl, where the adapter names it as another installation's."""
    _, shipped, name = base.partition("/budgetrl/assets/")
    here, there = asset_root() / name, Path(base)
    if not (shipped and name and here.is_dir()):
        return base
    same = not there.is_dir() or _folder_hash(there) == _folder_hash(here)
    return f"{PREFIX}{name}" if same else base


def _no_lora(file: Path, why: str) -> ModelError:
    return ModelError(
        f"{file}: not the configuration of a LoRA adapter that budgetrl can use ({why}).",
        hint="A PEFT adapter folder has base_model_name_or_path, r and lora_alpha there.",
    )
