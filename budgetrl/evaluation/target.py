"""What `budgetrl eval` is pointed at: a run, a checkpoint, an adapter folder, a model.

    find_target("runs/x") -> Target(recipe, adapter, ...)      how to open the engine

No torch: whether model and adapter fit together is for the engine to say.
"""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from budgetrl.checkpoint_files import (
    CHECKPOINT_MANIFEST,
    CheckpointFile,
    damaged_files,
    read_checkpoint,
)
from budgetrl.errors import ModelError, RunDirError, UsageError
from budgetrl.evaluation.fingerprints import base_fingerprint
from budgetrl.evaluation.identity import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    WEIGHTS,
    AdapterConfig,
    adapter_identity,
    base_identity,
    weights_hash,
)
from budgetrl.hardware import detect_gpu
from budgetrl.history import read_history
from budgetrl.hub.layout import Need
from budgetrl.hub.lookup import cached, look_up
from budgetrl.hub.pins import OnDownload, download, settle, untold
from budgetrl.hub.repo import Repo, is_hub_id, is_offline
from budgetrl.pace import free_cores
from budgetrl.recipe.assets import PREFIX, local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import AlphaPolicy, Recipe
from budgetrl.run_files import read_manifest, read_recipe
from budgetrl.rundir import EVENTS, EXPORTED, RESOLVED, RunDir, list_runs, open_run

OF_VERL = "lora_adapter"
"""The folder in which verl's merger leaves an adapter, inside that of its base."""
TEMPLATE = "{problem}\n\nReason step by step, and put the final answer in \\boxed{}."
"""The user turn for models without a recipe."""
ANY_LENGTH = 2**24
"""Tokens of a prompt where only the model's window limits them."""
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
"""OWNER/NAME, and @REVISION where it is not main."""


@dataclass(frozen=True, slots=True)
class Target:
    """A policy to evaluate."""

    recipe: Recipe
    """Says how to open it, how to prompt it, and which suites are usual."""
    adapter: Path | None
    """Folder of what was trained: an adapter, or all weights."""
    run: RunDir | None
    """Where results go, if the target belongs to a run."""
    policy_id: str
    """Names the weights: base model and hashes of what an adapter adds."""
    step: int
    """Updates that the weights have seen; 0 where nobody knows."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was found."""
    fits_window: bool = False
    """No recipe limits its prompts: they may take what the completions leave of the window."""


def find_target(
    text: str,
    recipe_ref: str | None = None,
    base: str | None = None,
    on_download: OnDownload = untold,
) -> Target:
    """Find out what a target is.

    Args:
        text: a run, a checkpoint, an adapter folder, a local model or a hub id.
        recipe_ref: a recipe for prompt, engine and suites of a target without a run.
        base: where the local base model of a run lies now.
        on_download: told how far an adapter of the hub is, which is read here.

    Raises:
        UsageError: nothing of that kind, or a recipe for what is of a run.
        ModelError: a half-written checkpoint, an adapter without a usable configuration, or a run
            whose base model is gone or another one.
        RunDirError: a run without a complete checkpoint, or of another version.
    """
    path = Path(text).expanduser()
    run = _run_of(path)
    if run is not None:
        if recipe_ref is not None:
            raise UsageError(
                f"--recipe {recipe_ref}: {text} is of a run, which has a recipe of its own.",
                hint="Leave it out; prompt and engine are those that it was trained with.",
            )
        if run == path:
            return _of_run(open_run(run), base)
        if path.name == EXPORTED:
            return _of_exported(open_run(run), path.resolve(), base)
        return _of_checkpoint(open_run(run), _complete(path), base)
    if base is not None:
        raise UsageError(
            f"--model says where a run's base model lies, and {text} is no run.",
            hint="Leave it out; an adapter folder names its base in adapter_config.json.",
        )
    _refuse_shards(path)
    if (path / OF_VERL / ADAPTER_CONFIG).is_file():  # else its base would be judged instead
        path = path / OF_VERL
    if (path / ADAPTER_CONFIG).is_file():
        if (path / CHECKPOINT_MANIFEST).is_file():
            _complete(path)
        return _of_adapter(path.resolve(), recipe_ref)
    if (path / "config.json").is_file():
        return _of_model(str(path.resolve()), None, recipe_ref)
    if text.startswith(PREFIX):
        local_path(text)
        return _of_model(text, None, recipe_ref)
    if not path.exists() and (beside := [run.name for run in list_runs(path.parent)]):
        near = difflib.get_close_matches(path.name, beside, n=1)  # no id: a run, misspelt
        meant = f"Did you mean {path.parent / near[0]}? " if near else ""
        raise RunDirError(
            f"no run directory {text!r}.", hint=f"{meant}`budgetrl runs` lists the runs."
        )
    if (named := _HUB_ID.fullmatch(text)) and not path.exists():
        return _of_repository(Repo("model", named[1], named[2]), recipe_ref, on_download)
    if (path / EVENTS).is_file():
        open_run(path)  # says what it lacks
    what = "holds no run, checkpoint, adapter or model" if path.exists() else "no such target"
    raise UsageError(
        f"{text}: {what}.",
        hint="Give a run directory, a checkpoint, a folder with adapter_config.json or "
        "config.json, or a hub id such as Qwen/Qwen3-0.6B (or OWNER/NAME@REVISION).",
    )


def _run_of(path: Path) -> Path | None:
    """The run that a folder is, or is the adapter or a checkpoint of; None of anything else."""
    if (path / RESOLVED).is_file():
        return path
    if path.name == EXPORTED and (path.parent / RESOLVED).is_file():
        return path.parent
    if path.parent.name == "checkpoints" and (path.parent.parent / RESOLVED).is_file():
        return path.parent.parent
    return None


def _refuse_shards(path: Path) -> None:
    """verl saves pieces of a model, one for each GPU; its own merger makes a folder of them.

    Raises:
        ModelError: this is such a checkpoint.
    """
    for actor in (path, path / "actor"):
        if (actor / "fsdp_config.json").is_file():
            raise ModelError(
                f"{path}: a checkpoint of verl, in pieces for its GPUs.",
                hint="Let verl join them: python -m verl.model_merger merge --backend fsdp "
                f"--local_dir {actor} --target_dir MERGED; then evaluate MERGED.",
            )


def base_of(target: Target) -> Target | None:
    """What a target was before it was trained; None where it has no adapter."""
    if target.adapter is None:
        return None
    return replace(target, adapter=None, policy_id=_base(target.recipe), step=0, notes=())


def _of_run(run: RunDir, base: str | None) -> Target:
    """The checkpoint that the run's final evaluation judges: its best or its last one."""
    found = run.checkpoints()
    if not found:
        exported = run.adapter
        there = f"`budgetrl eval {exported}` takes its exported adapter. "
        raise RunDirError(
            f"{run.path}: this run has no complete checkpoint.",
            hint=f"{there if (exported / ADAPTER_CONFIG).is_file() else ''}"
            "Continue it with `budgetrl resume`, or evaluate its base model by id.",
        )
    wanted = _judged_step(run)
    chosen = next((c for c in found if c.step == wanted), found[-1])
    target = _of_checkpoint(run, chosen, base)
    if wanted is None or wanted == chosen.step:
        return target
    note = (
        f"the checkpoint of update {wanted} is damaged or gone: this is the one of update "
        f"{chosen.step}"
    )
    return replace(target, notes=(note,))


def _judged_step(run: RunDir) -> int | None:
    """The update whose checkpoint stands for the run, also where the checkpoint is gone."""
    written = read_history(run).checkpoints
    best = [c.step for c in written if c.best]
    if best and _recipe_of(run).select.use == "best":
        return best[-1]
    # A run that was killed may have left a checkpoint of which no event tells.
    steps = [c.step for c in written] + [c.step for c in run.checkpoints()]
    return max(steps, default=None)


def _of_exported(run: RunDir, path: Path, base: str | None) -> Target:
    """The checkpoint that was exported; without it, the exported adapter itself."""
    identity = adapter_identity(path)
    for checkpoint in reversed(run.checkpoints()):
        if adapter_identity(checkpoint.path) == identity:
            return _of_checkpoint(run, checkpoint, base)
    recipe = _standing_recipe(run, base)
    policy = f"{_base(recipe)} + {identity}"
    return Target(recipe, path, run, policy, _judged_step(run) or 0)


def _base(recipe: Recipe) -> str:
    return base_identity(recipe.model.id, recipe.model.revision)


def _complete(path: Path) -> CheckpointFile:
    checkpoint = read_checkpoint(path)
    if checkpoint is None:
        raise ModelError(
            f"{path}: not a complete checkpoint; it was cut off while it was written, or changed.",
            hint="Choose another one of its run, or name the run itself.",
        )
    return checkpoint


def _of_checkpoint(run: RunDir, checkpoint: CheckpointFile, base: str | None) -> Target:
    """Sealed when it was written, so the hash of its weights stands for its configuration too."""
    recipe = _standing_recipe(run, base)
    held = {ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, WEIGHTS}
    changed = held & set(damaged_files(checkpoint))
    if changed:
        raise ModelError(
            f"{checkpoint.path / min(changed)}: was changed after the checkpoint was written.",
            hint="Choose another one of its run; or, if the change is meant, copy "
            f"{ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} elsewhere and evaluate that folder.",
        )
    policy = f"{_base(recipe)} + {weights_hash(checkpoint.path)}"
    return Target(recipe, checkpoint.path, run, policy, checkpoint.step)


def _of_repository(repo: Repo, recipe_ref: str | None, on_download: OnDownload) -> Target:
    """A model or an adapter of the hub, at the commit that the hub, or its cache, has now."""
    here = cached(repo) if is_offline() else None
    found = here or look_up(repo)
    pinned = found.pinned
    if found.named(ADAPTER_CONFIG) is not None and found.named("config.json") is None:
        folder = download(Need("adapter", pinned, "adapter"), on_download)
        return _of_adapter(folder, recipe_ref)
    return _of_model(repo.id, found.commit, recipe_ref)


def _of_adapter(path: Path, recipe_ref: str | None) -> Target:
    config = AdapterConfig.read(path)
    policy = AlphaPolicy.RSLORA if config.rslora else AlphaPolicy.FIXED
    lora = {"rank": config.rank, "alpha": config.alpha, "alpha_policy": policy}
    try:
        if recipe_ref is None:
            recipe = _plain_recipe(_base_of(config), lora)
        else:
            recipe = _with(load_recipe(recipe_ref).recipe, lora=lora)
            _same_base(path, config.base, recipe)
    except ValidationError as error:
        raise ModelError(
            f"{path}: an adapter of rank {config.rank} at alpha {config.alpha:g} cannot be used: "
            f"{error.errors()[0]['msg']}.",
            hint="Check its adapter_config.json.",
        ) from None
    identity = f"{_base(recipe)} + {adapter_identity(path)}"
    return Target(recipe, path, None, identity, 0, fits_window=recipe_ref is None)


def _same_base(path: Path, base: str, recipe: Recipe) -> None:
    wanted = recipe.model.id
    above = base == str(path.parent)  # a copy of the base that verl's merger made
    if not base or above:
        return
    if base not in (wanted, local_path(wanted)):
        raise ModelError(
            f"{path}: this adapter was trained on {base}, and the recipe's model is {wanted}.",
            hint="Leave --recipe out, or give one with the adapter's base model.",
        )


def _base_of(config: AdapterConfig) -> dict[str, Any]:
    """An adapter's base model, at the commit that the adapter names or that the hub has now.

    Raises:
        ModelError: it names none.
    """
    if not config.base:
        raise ModelError(
            f"the adapter names no base model in {ADAPTER_CONFIG}.",
            hint="Write it there as base_model_name_or_path, or give --recipe: its model is taken.",
        )
    if not is_hub_id(config.base):
        return {"id": config.base}
    made = settle(Need("model", Repo("model", config.base, config.revision), "model"))
    return {"id": config.base, "revision": made.found.commit}


def _of_model(model: str, commit: str | None, recipe_ref: str | None) -> Target:
    named = {"id": model, "revision": commit}
    if recipe_ref is None:
        recipe = _plain_recipe(named, {"rank": 1, "alpha": 1.0})
    else:
        recipe = _with(load_recipe(recipe_ref).recipe, model=named)
    identity = base_identity(model, commit)
    return Target(recipe, None, None, identity, 0, fits_window=recipe_ref is None)


def _plain_recipe(model: Mapping[str, Any], lora: Mapping[str, Any]) -> Recipe:
    """A recipe for evaluation only: nothing is trained, so data and schedule are not used."""
    on_gpu = detect_gpu() is not None
    engine: dict[str, Any] = {"name": "plain", "device": "cuda" if on_gpu else "cpu"}
    if not on_gpu:
        engine |= {"threads": free_cores(), "eval_batch": 16}
    tables = {
        "recipe": {"name": "eval"},
        "model": {**model, "dtype": "bfloat16" if on_gpu else "float32"},
        "lora": dict(lora),
        "data": {"path": os.devnull},
        "schedule": {"learning_rate": 1e-6},
        "prompt": {"template": TEMPLATE, "max_tokens": ANY_LENGTH},
        "engine": engine,
    }
    return Recipe.model_validate(tables, strict=False)


def _with(recipe: Recipe, **tables: Mapping[str, Any]) -> Recipe:
    """A recipe with some values replaced."""
    data = recipe.model_dump(mode="json")
    for name, values in tables.items():
        data[name] |= values
    return Recipe.model_validate(data, strict=False)


def _standing_recipe(run: RunDir, base: str | None) -> Recipe:
    """The recipe of a run, once its base model is known to be the one that it was trained on.

    A run of an older budgetrl has no hashes to compare with.

    Raises:
        ModelError: the base model is gone, or another one.
    """
    recipe = _recipe_of(run)
    standings = read_manifest(run).attempts
    known = standings[-1].fingerprints.get("model", {}) if standings else {}
    if base is not None:
        place = Path(base).expanduser().resolve()
        if not known or not (place / "config.json").is_file():
            why = "is no model folder" if known else "cannot be compared: the run has no hashes"
            raise ModelError(
                f"--model {base}: {why}.", hint="Name the folder to which the base was moved."
            )
        recipe = _with(recipe, model={"id": str(place)})
    folder = Path(local_path(recipe.model.id))
    if folder.is_absolute() and not (folder / "config.json").is_file():
        raise ModelError(
            f"{run.path}: its base model is not in {folder} any more.",
            hint="Say where it is now with --model PATH; it is compared by hash.",
        )
    now = base_fingerprint(recipe.model.id) if known else {}
    other = sorted(name for name in {*known, *now} if known.get(name) != now.get(name))
    if other:
        raise ModelError(
            f"{run.path}: the base model in {folder} is not the one that it was trained on: "
            f"{', '.join(other)} differ.",
            hint="Put it back, or name the right one with --model PATH. To evaluate the adapter on "
            f"another base, copy {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} elsewhere and name that.",
        )
    return recipe


def _recipe_of(run: RunDir) -> Recipe:
    """The resolved recipe of a run.

    Raises:
        RunDirError: it is damaged, or of another version of budgetrl.
    """
    try:
        return read_recipe(run)
    except RunDirError as error:
        raise RunDirError(
            error.message,
            hint="Evaluate its checkpoint as an adapter: copy the folder elsewhere and name it.",
        ) from None
