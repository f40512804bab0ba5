"""A second copy of a run on another disk, because a preempted machine's disk vanishes.

    mirror = mirror_of(run, recipe)            None without checkpoint.mirror
    update_mirror(run, mirror)                 after each checkpoint: copied whole, pruned alike
    restore_from_mirror(run, mirror)           before a resumption: what the run's disk has lost

The copy is a run directory of the same name, without the training completions: where the run's own
folder is gone, `budgetrl resume MIRROR/NAME` goes on in the copy. No torch.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from budgetrl.checkpoint_files import CHECKPOINT_MANIFEST, CheckpointFile, damaged_files
from budgetrl.files import write_atomic
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import (
    EVENTS,
    HEARTBEAT,
    MANIFEST,
    PLAN,
    RECIPE,
    RESOLVED,
    RESULT,
    RunDir,
    mode_of,
)

DOCUMENTS = (RECIPE, MANIFEST, PLAN, HEARTBEAT, EVENTS, RESULT, RESOLVED)
"""The last one makes a folder a run."""
FOLDERS = ("evals", "report")


def mirror_of(run: RunDir, recipe: Recipe) -> RunDir | None:
    """Where the second copy of a run lies; None if it has none, or is its own."""
    if recipe.checkpoint.mirror is None:
        return None
    place = Path(recipe.checkpoint.mirror) / run.name
    return None if place.resolve() == run.path else RunDir(place)


class MirrorGuard:
    """Keeps the copy up to date for a running run, which goes on when the other disk does not.

    Args:
        run: the original.
        mirror: the copy; None: there is none to keep.
        warn: takes (code, message, resolved); told of the first failure and of its end.
    """

    def __init__(
        self, run: RunDir, mirror: RunDir | None, warn: Callable[[str, str, bool], None]
    ) -> None:
        self._run, self._mirror, self._warn = run, mirror, warn
        self._failed = False

    def update(self) -> None:
        """After a checkpoint was written."""
        if self._mirror is None:
            return
        try:
            update_mirror(self._run, self._mirror)
        except OSError as error:
            if not self._failed:
                told = f"no second copy in {self._mirror.path}: {reason_of(error)}"
                self._warn("not_mirrored", told, False)
            self._failed = True
            return
        if self._failed:
            self._warn("not_mirrored", f"{self._mirror.path} holds a second copy again", True)
        self._failed = False


def update_mirror(run: RunDir, mirror: RunDir) -> None:
    """Make the copy hold the checkpoints that the run holds, and what a resumption needs besides.

    Raises:
        OSError: the other disk is full, gone or not writable; each copy is whole or not there.
    """
    mirror.checkpoint_folder.mkdir(parents=True, exist_ok=True)
    mirror.clear_temporary()
    copy_files(run, mirror, lambda: False)  # first, so that every update of a copy is told of
    here = {checkpoint.step: checkpoint for checkpoint in run.checkpoints()}
    there = {checkpoint.step: checkpoint for checkpoint in mirror.checkpoints()}
    for step, checkpoint in here.items():
        if step not in there or _manifest(there[step]) != _manifest(checkpoint):
            _copy(checkpoint, mirror)
    for step in there.keys() - here.keys():
        mirror.drop_checkpoint(step)


def copy_files(run: RunDir, mirror: RunDir, over: Callable[[], bool]) -> None:
    """Copy all but checkpoints and completions, as far as it has changed.

    Args:
        run: the original.
        mirror: the copy.
        over: asked between files; True ends it.

    Raises:
        OSError: as `update_mirror`.
    """
    nested = (file for name in FOLDERS for file in sorted(run.scratch(name).rglob("*")))
    for file in (*nested, *(run.file(name) for name in DOCUMENTS)):
        if over():
            return
        copy = mirror.scratch(run.relative(file))
        if file.is_file() and not _is_same(file, copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(copy, file.read_bytes(), mode_of(file.name))


def restore_from_mirror(run: RunDir, mirror: RunDir) -> list[int]:
    """Bring back checkpoints that the run's disk has lost; returns their steps.

    Raises:
        OSError: the run's disk is full or not writable.
    """
    here = {checkpoint.step for checkpoint in run.checkpoints()}
    lost = [c for c in mirror.checkpoints() if c.step not in here and not damaged_files(c)]
    for checkpoint in lost:
        _copy(checkpoint, run)
    return [checkpoint.step for checkpoint in lost]


def _copy(checkpoint: CheckpointFile, to: RunDir) -> None:
    with to.new_checkpoint(checkpoint.step, checkpoint.resumable) as folder:
        shutil.copytree(
            checkpoint.path,
            folder,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(CHECKPOINT_MANIFEST),
        )


def _manifest(checkpoint: CheckpointFile) -> bytes:
    return (checkpoint.path / CHECKPOINT_MANIFEST).read_bytes()


def reason_of(error: OSError) -> str:
    """Why a copy failed; where several files did (shutil.Error), why the first one did."""
    if isinstance(error, shutil.Error):
        return str(error.args[0][0][-1])
    return error.strerror or str(error)


def _is_same(file: Path, copy: Path) -> bool:
    """A copy that is as long and not older; every file of a run grows or is replaced."""
    if not copy.is_file():
        return False
    original, made = file.stat(), copy.stat()
    return original.st_size == made.st_size and original.st_mtime <= made.st_mtime
