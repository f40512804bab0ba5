"""What `budgetrl eval` is pointed at: a run, a checkpoint, an adapter folder, a model.

    find_target("runs/x") -> Target(recipe, adapter, ...)      how to open the engine

No torch: whether model and adapter fit together is for the engine to say.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from budgetrl.errors import ModelError, RunDirError, UsageError
from budgetrl.hardware import detect_gpu
from budgetrl.history import read_history
from budgetrl.recipe.assets import PREFIX, local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import (
    CHECKPOINT_MANIFEST,
    RESOLVED,
    CheckpointFile,
    RunDir,
    open_run,
    read_checkpoint,
)

ADAPTER_CONFIG = "adapter_config.json"
EXPORTED = "adapter"
"""The folder in which a run leaves the adapter of its chosen checkpoint."""
TEMPLATE = "{problem}\n\nReason step by step, and put the final answer in \\boxed{}."
"""The user turn for models without a recipe."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Target:
    """A policy to evaluate."""

    recipe: Recipe
    """Says how to open it, how to prompt it, and which suites are usual."""
    adapter: Path | None
    run: RunDir | None
    """Where results go, if the target belongs to a run."""
    policy_id: str
    """Names the weights: base model and a hash of the adapter."""
    step: int


def find_target(text: str, recipe_ref: str | None = None) -> Target:
    """Find out what a target is.

    Args:
        text: a run, a checkpoint, an adapter folder, a local model or a hub id.
        recipe_ref: a recipe for prompt, engine and suites of a target without a run.

    Raises:
        UsageError: nothing of that kind.
        ModelError: a half-written checkpoint, or an adapter without a usable configuration.
        RunDirError: a run without a complete checkpoint, or of another version.
    """
    path = Path(text).expanduser()
    if (path / RESOLVED).is_file():
        run = open_run(path)
        return _of_checkpoint(run, chosen_checkpoint(run))
    if path.name == EXPORTED and (path.parent / RESOLVED).is_file():
        return find_target(str(path.parent), recipe_ref)
    if path.parent.name == "checkpoints" and (path.parent.parent / RESOLVED).is_file():
        return _of_checkpoint(open_run(path.parent.parent), _complete(path))
    if (path / ADAPTER_CONFIG).is_file():
        if (path / CHECKPOINT_MANIFEST).is_file():
            _complete(path)
        return _of_adapter(path.resolve(), recipe_ref)
    if (path / "config.json").is_file():
        return _of_model(str(path.resolve()), recipe_ref)
    if text.startswith(PREFIX):
        local_path(text)
        return _of_model(text, recipe_ref)
    if _HUB_ID.fullmatch(text) and not path.exists():
        return _of_model(text, recipe_ref)
    what = "holds no run, checkpoint, adapter or model" if path.exists() else "no such target"
    raise UsageError(
        f"{text}: {what}.",
        hint="Give a run directory, a checkpoint, a folder with adapter_config.json or "
        "config.json, or a hub id such as Qwen/Qwen3-0.6B.",
    )


def chosen_checkpoint(run: RunDir) -> CheckpointFile:
    """The checkpoint that a run's final evaluation judges: its best or its last one.

    Raises:
        RunDirError: the run has no complete checkpoint.
    """
    found = run.checkpoints()
    if not found:
        raise RunDirError(
            f"{run.path}: this run has no complete checkpoint.",
            hint="Continue it with `budgetrl resume`, or evaluate its base model by id.",
        )
    if _recipe_of(run).select.use == "best":
        best = [c.step for c in read_history(run).checkpoints if c.best]
        chosen = [checkpoint for checkpoint in found if best and checkpoint.step == best[-1]]
        return (chosen or found)[-1]
    return found[-1]


def _complete(path: Path) -> CheckpointFile:
    checkpoint = read_checkpoint(path)
    if checkpoint is None:
        raise ModelError(
            f"{path}: not a complete checkpoint; it was cut off while it was written, or changed.",
            hint="Choose another one of its run, or name the run itself.",
        )
    return checkpoint


def _of_checkpoint(run: RunDir, checkpoint: CheckpointFile) -> Target:
    recipe = _recipe_of(run)
    policy = f"{recipe.model.id} + {_adapter_hash(checkpoint.path)}"
    return Target(recipe, checkpoint.path, run, policy, checkpoint.step)


def _of_adapter(path: Path, recipe_ref: str | None) -> Target:
    try:
        config = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base, rank = str(config["base_model_name_or_path"]), int(config["r"])
        alpha = float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path / ADAPTER_CONFIG}: not the configuration of a LoRA adapter ({error!r}).",
            hint="A PEFT adapter folder has base_model_name_or_path, r and lora_alpha there.",
        ) from None
    if recipe_ref is None:
        lora = {"rank": rank, "alpha": alpha}
        recipe = _plain_recipe(base, lora)
    else:
        recipe = _with(load_recipe(recipe_ref).recipe, lora={"rank": rank, "alpha": alpha})
        _same_base(path, base, recipe)
    return Target(recipe, path, None, f"{recipe.model.id} + {_adapter_hash(path)}", 0)


def _same_base(path: Path, base: str, recipe: Recipe) -> None:
    wanted = recipe.model.id
    if base not in (wanted, local_path(wanted)):
        raise ModelError(
            f"{path}: this adapter was trained on {base}, and the recipe's model is {wanted}.",
            hint="Leave --recipe out, or give one with the adapter's base model.",
        )


def _of_model(model: str, recipe_ref: str | None) -> Target:
    if recipe_ref is None:
        recipe = _plain_recipe(model, {"rank": 1, "alpha": 1.0})
    else:
        recipe = _with(load_recipe(recipe_ref).recipe, model={"id": model})
    return Target(recipe, None, None, model, 0)


def _plain_recipe(model: str, lora: Mapping[str, Any]) -> Recipe:
    """A recipe for evaluation only: nothing is trained, so data and schedule are not used."""
    on_gpu = detect_gpu() is not None
    engine: dict[str, Any] = {"name": "plain", "device": "cuda" if on_gpu else "cpu"}
    if not on_gpu:
        engine |= {"threads": len(os.sched_getaffinity(0)), "eval_batch": 16}
    tables = {
        "recipe": {"name": "eval"},
        "model": {"id": model, "dtype": "bfloat16" if on_gpu else "float32"},
        "lora": dict(lora),
        "data": {"path": os.devnull},
        "schedule": {"learning_rate": 1e-6},
        "prompt": {"template": TEMPLATE},
        "engine": engine,
    }
    return Recipe.model_validate(tables, strict=False)


def _with(recipe: Recipe, **tables: Mapping[str, Any]) -> Recipe:
    """A recipe with some values replaced."""
    data = recipe.model_dump(mode="json")
    for name, values in tables.items():
        data[name] |= values
    return Recipe.model_validate(data, strict=False)


def _recipe_of(run: RunDir) -> Recipe:
    """The resolved recipe of a run.

    Raises:
        RunDirError: it is of another version of budgetrl.
    """
    try:
        return Recipe.model_validate(run.read_json(RESOLVED)["recipe"], strict=False)
    except (ValidationError, KeyError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise RunDirError(
            f"{run.path / RESOLVED}: the recipe is of another version of budgetrl ({first}).",
            hint="Evaluate its checkpoint as an adapter: copy the folder elsewhere and name it.",
        ) from None


def _adapter_hash(folder: Path) -> str:
    """Of the adapter's weights; a checkpoint's manifest knows it already."""
    name = "adapter_model.safetensors"
    manifest = folder / CHECKPOINT_MANIFEST
    if manifest.is_file():
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        if name in files:
            return str(files[name]["sha256"])[:16]
    try:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise ModelError(
            f"{folder / name}: cannot be read: {error.strerror}.",
            hint="An adapter folder holds adapter_config.json and adapter_model.safetensors.",
        ) from None
