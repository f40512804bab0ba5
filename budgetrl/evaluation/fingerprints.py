"""What a run stands on, as hashes: its data, rewards and base model, and the versions used.

    now = fingerprints(recipe, reward_files)        {"data": {item: hash}, "reward": .., ..}
    differences(before, now) -> [Difference("data", "data.path", "3fa0..", "91bc.."), ..]

Of local files only; a model or data set of the hub is what its commit says. No torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budgetrl.engine.base import SAMPLER_VERSION
from budgetrl.engine.tested import version_of
from budgetrl.errors import DataError
from budgetrl.evaluation.identity import file_hash, model_files, weights_hash
from budgetrl.grading.rules import GRADER_VERSION
from budgetrl.hub.repo import is_hub_id
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import EngineName, Recipe
from budgetrl.rewards.own_files import check_function, find_function, is_own, source_hashes

SCHEMA_VERSION = 1
PARTS = ("data", "reward", "model", "versions")
"""What may differ, and be accepted, by itself."""
RECORDED_PACKAGES = (
    *("torch", "transformers", "trl", "peft", "accelerate", "datasets", "math-verify", "numpy"),
    *("unsloth", "unsloth_zoo", "vllm", "bitsandbytes"),
)

_TOKENIZER_FILES = ("*.jinja", "*.model", "*.txt")
"""Of a tokenizer and its template, besides JSON."""

Fingerprints = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One item that is not what it was."""

    part: str
    """One of `PARTS`."""
    item: str
    """A recipe key, a file or a package."""
    before: str | None
    """Hash or version; None: it was not there."""
    now: str | None

    def __str__(self) -> str:
        if self.before is None or self.now is None:
            return f"{self.part}: {self.item} is {'new' if self.before is None else 'gone'}"
        return f"{self.part}: {self.item} was {self.before[:12]} and is {self.now[:12]}"


def fingerprints(recipe: Recipe, reward_files: Mapping[str, str]) -> dict[str, Any]:
    """The hashes of this moment.

    Args:
        recipe: the resolved recipe.
        reward_files: of the user's own rewards, by name.

    Raises:
        DataError, ModelError, RecipeError: a file cannot be read.
    """
    plain = recipe.engine.name is EngineName.PLAIN
    return {
        "schema_version": SCHEMA_VERSION,
        "data": _data(recipe) | _teacher(recipe),
        "reward": {
            f"{name} {part}": digest
            for name, file in reward_files.items()
            for part, digest in source_hashes(name, Path(file)).items()
        },
        "model": base_fingerprint(recipe.model.id),
        "versions": {
            **recorded_versions(),
            "grader": GRADER_VERSION,
            **({"sampler": SAMPLER_VERSION} if plain else {}),
        },
    }


def base_fingerprint(model: str) -> dict[str, str]:
    """The hash of every file of a local base: weights, configuration, tokenizer, template.

    Empty for a model of the hub.

    Raises:
        ModelError: a file cannot be read.
    """
    folder = Path(local_path(model))
    here = not is_hub_id(model) and folder.is_dir()
    files = model_files(folder, *_TOKENIZER_FILES) if here else []
    return {file.name: file_hash(file) for file in files}


def _teacher(recipe: Recipe) -> dict[str, str]:
    """Of a teacher's local files, which are learnt from like data."""
    spec = recipe.teacher
    if spec is None or spec.is_self:
        return {}
    made = {f"teacher {name}": value for name, value in base_fingerprint(spec.id).items()}
    if spec.adapter is not None:
        made["teacher.adapter"] = weights_hash(Path(local_path(spec.adapter)))
    return made


def reward_files(recipe: Recipe, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """The file of each of the user's own rewards, by name; nothing is imported.

    Args:
        recipe: the resolved recipe.
        known: where they were; each is looked for as for a new run where it is no more.

    Raises:
        RecipeError: one is gone, or defines no such function.
    """
    found = {}
    for name in (reward.name for reward in recipe.rewards if is_own(reward.name)):
        file = Path((known or {}).get(name, ""))
        found[name] = str(check_function(name, file) if file.is_file() else find_function(name))
    return found


def recorded_versions() -> dict[str, str]:
    """Versions of the packages that shape a training, as far as they are installed."""
    return {name: found for name in RECORDED_PACKAGES if (found := version_of(name))}


def differences(before: Fingerprints, now: Fingerprints) -> list[Difference]:
    """Items whose hash or version is another one, by part and name."""
    return [
        Difference(part, item, old, new)
        for part in PARTS
        for item in sorted({**before[part], **now[part]})
        if (old := before[part].get(item)) != (new := now[part].get(item))
    ]


def _data(recipe: Recipe) -> dict[str, str]:
    paths = {"data.path": recipe.data.path, "signal.solve_rates": recipe.signal.solve_rates}
    paths |= {f"eval.{spec.suite}.path": spec.path for spec in recipe.eval}
    paths |= {
        f"stages.{stage.name}.data.path": part.data.path
        for stage, part in zip(recipe.stages, recipe.parts if recipe.stages else (), strict=True)
        if part.data.path != recipe.data.path
    }
    return {key: _tree_hash(Path(local_path(path))) for key, path in paths.items() if path}


def _tree_hash(path: Path) -> str:
    """Of a file's bytes, or of all files of a folder."""
    try:
        if not path.is_dir():
            return hashlib.sha256(path.read_bytes()).hexdigest()
        files = sorted(file for file in path.rglob("*") if file.is_file())
        hashes = {str(file.relative_to(path)): _tree_hash(file) for file in files}
        return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}.",
            hint="Put the file back where it was when the run began.",
        ) from None
