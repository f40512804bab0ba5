"""The adapter that a run is about, in a folder of its own: for PEFT, vLLM, Unsloth and the hub."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun, read_run
from budgetrl.checkpoint_files import CheckpointFile
from budgetrl.evaluation.identity import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from budgetrl.files import (
    clear_temporary,
    make_public,
    temporary_beside,
    write_atomic,
    write_json,
)
from budgetrl.recipe.assets import local_path
from budgetrl.report.card import base_revision, model_card
from budgetrl.rundir import RunDir

CARD = "README.md"
"""Written last."""


def export_adapter(run: RunDir) -> Path | None:
    """Put the judged checkpoint's adapter into `adapter/`, with base, revision and a model card.

    The weights are a second name of the checkpoint's file where the disk allows it, so they take no
    room.

    Returns:
        The folder; None where no complete checkpoint exists, or all weights were trained.

    Raises:
        OSError: the disk is full or gone.
    """
    evaluated = read_run(run)
    checkpoint = _judged(evaluated)
    if checkpoint is None or not (checkpoint.path / ADAPTER_WEIGHTS).is_file():
        return None
    folder = run.adapter
    folder.mkdir(exist_ok=True)
    clear_temporary(folder)
    _link(checkpoint.path / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    describe_adapter(evaluated, checkpoint, folder)
    return folder


def describe_adapter(run: EvaluatedRun, checkpoint: CheckpointFile, folder: Path) -> None:
    """Write configuration and card of a checkpoint's adapter into a folder."""
    held = (checkpoint.path / ADAPTER_CONFIG).read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(held)
    # An engine may have loaded the base from a snapshot on this machine's disk.
    config |= {"base_model_name_or_path": local_path(run.model), "revision": base_revision(run)}
    write_json(folder / ADAPTER_CONFIG, config)
    write_atomic(folder / CARD, model_card(run, checkpoint.step))


def _judged(run: EvaluatedRun) -> CheckpointFile | None:
    """The checkpoint that the run names as its best, else the newest complete one."""
    complete, finished = run.run.checkpoints(), run.history.finished
    best = finished.best_checkpoint if finished is not None else None
    named = [checkpoint for checkpoint in complete if run.run.relative(checkpoint.path) == best]
    return next(iter([*named, *reversed(complete)]), None)


def _link(source: Path, target: Path) -> None:
    temporary = temporary_beside(target)
    with suppress(FileNotFoundError):
        temporary.unlink()
    try:
        os.link(source, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, temporary)
    make_public(temporary)
    temporary.replace(target)
    # Where both are names of one file already, as in a second export, nothing is renamed.
    temporary.unlink(missing_ok=True)
