"""Save a trainer so that another process continues bit for bit, and find what to keep.

A checkpoint holds what is trained (a PEFT adapter, or the whole model in float32), optimiser and
scheduler, TRL's trainer state, and
`state.json`: random generators, the best result so far, what was paid, versions. There is no
pickle: tensors are safetensors, or `torch.save` files that load with `weights_only=True`.
"""

import base64
import json
import random
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from budgetrl.checkpoint_files import STATE, CheckpointFile
from budgetrl.engine.adapter import ADAPTER, put_weights
from budgetrl.errors import first_line
from budgetrl.evaluation.identity import ADAPTER_WEIGHTS, WEIGHTS
from budgetrl.files import write_json
from budgetrl.rundir import RunDir

_ONE_FILE = "10000GB"
"""Of a shard: a checkpoint has its weights in one file."""
RESUMABLE_KEPT = 2
"""Checkpoints that keep their optimiser state (at rank 256 one takes 3.5 GB)."""

_OPTIMIZER_FILES = ("optimizer.pt", "scheduler.pt", "trainer_state.json")


def save_checkpoint(run: RunDir, trainer: Any, state: Mapping[str, Any]) -> Path:
    """Write a complete, resumable checkpoint of the trainer's last finished step.

    Raises:
        OSError: the disk is full or gone; the checkpoints that were there stay as they were.
    """
    step = trainer.rollouts
    try:
        with run.new_checkpoint(step) as folder:
            save_trained(trainer.model, folder)
            trainer._save_optimizer_and_scheduler(str(folder))
            trainer.state.save_to_json(str(folder / "trainer_state.json"))
            write_json(folder / STATE, dict(state) | {"rng": _rng_state(), "versions": versions()})
    except (RuntimeError, SafetensorError) as error:  # how torch and safetensors report a full disk
        raise OSError(f"the disk is full or fails: {first_line(error)}") from error
    return run.checkpoint_path(step)


def save_trained(model: Any, folder: Path) -> None:
    """The PEFT adapter with its base id and task type; or the whole model, in one file.

    Only the adapter that is trained: with beta > 0 TRL keeps a frozen copy of the start beside it.
    """
    if has_adapter(model):
        model.save_pretrained(str(folder), safe_serialization=True, selected_adapters=[ADAPTER])
    else:
        model.save_pretrained(str(folder), max_shard_size=_ONE_FILE)
    card = folder / "README.md"
    card.unlink(missing_ok=True)


def load_trained(model: Any, folder: Path, adapter: str = ADAPTER) -> None:
    """Put saved weights into a model that has them in the same shape, as its trained adapter."""
    if has_adapter(model):
        put_weights(model, folder, adapter)
        return
    missing, unexpected = model.load_state_dict(saved_weights(model, folder), strict=False)
    tied = set(getattr(model, "all_tied_weights_keys", ()))  # saved once
    if unexpected or set(missing) - tied:
        raise OSError(f"{folder / WEIGHTS} is of another model")


def saved_weights(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """What a checkpoint of a model holds, under the names that the model has for it.

    Some families have other names in files than in memory (GPT-NeoX, mixtures of experts), and
    transformers goes from one to the other.
    """
    held: dict[str, torch.Tensor] = load_file(str(folder / weights_file(model)))
    if has_adapter(model) or held.keys() <= model.state_dict().keys():
        return held
    with torch.random.fork_rng():
        loaded = type(model).from_pretrained(str(folder), dtype=torch.float32)
    renamed: dict[str, torch.Tensor] = loaded.state_dict()
    return renamed


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """What a checkpoint has to hold, by name."""
    import peft

    if has_adapter(model):
        held: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(model)
        return held
    return {name: weight.detach() for name, weight in model.named_parameters()}


def weights_file(model: Any) -> str:
    """The file of a checkpoint in which they lie."""
    return ADAPTER_WEIGHTS if has_adapter(model) else WEIGHTS


def has_adapter(model: Any) -> bool:
    """Whether an adapter is trained; else all weights are."""
    return hasattr(model, "peft_config")


def read_state(checkpoint: CheckpointFile) -> dict[str, Any]:
    """The `state.json` of a checkpoint."""
    state: dict[str, Any] = json.loads((checkpoint.path / STATE).read_text(encoding="utf-8"))
    return state


def restore_rng(state: Mapping[str, Any]) -> None:
    """Set the random generators of python, numpy and torch."""
    rng = state["rng"]
    kind, key, position = rng["python"]
    random.setstate((kind, tuple(key), position))
    name, words, index, has_gauss, gauss = rng["numpy"]
    np.random.set_state((name, np.array(words, dtype=np.uint32), index, has_gauss, gauss))
    raw = base64.b64decode(rng["torch"])
    torch.set_rng_state(torch.frombuffer(bytearray(raw), dtype=torch.uint8))


def prune(run: RunDir, best: int | None, milestones: int) -> None:
    """Keep optimiser state in the newest two, adapters of the best and of a few milestones."""
    checkpoints = run.checkpoints()
    newest = {checkpoint.step for checkpoint in checkpoints[-RESUMABLE_KEPT:]}
    older = [checkpoint for checkpoint in checkpoints if checkpoint.step not in newest]
    spread = _spread([c.step for c in older if c.step != best], milestones)
    for checkpoint in older:
        if checkpoint.step != best and checkpoint.step not in spread:
            run.drop_checkpoint(checkpoint.step)
        elif checkpoint.resumable:
            run.reduce_checkpoint(checkpoint, _OPTIMIZER_FILES)


def versions() -> dict[str, str]:
    """Versions of the libraries that shape a training."""
    return {name: version(name) for name in ("torch", "transformers", "trl", "peft", "accelerate")}


def _spread(steps: list[int], count: int) -> set[int]:
    """At most `count` steps, evenly spread, the newest among them."""
    if len(steps) <= count:
        return set(steps)
    return {steps[-1 - round(i * (len(steps) - 1) / count)] for i in range(count)}


def _rng_state() -> dict[str, Any]:
    kind, key, position = random.getstate()
    name, words, index, has_gauss, gauss = np.random.get_state()
    return {
        "python": [kind, list(key), position],
        "numpy": [name, np.asarray(words).tolist(), int(index), int(has_gauss), float(gauss)],
        "torch": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode(),
    }
