"""Checkpoints on the disk: written whole or not at all, read only where every file is complete.

What a checkpoint means to a trainer is in `training.checkpoints`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from budgetrl.files import fsync_folder, make_public, write_json

CHECKPOINT_MANIFEST = "checkpoint.json"
STATE = "state.json"
"""What a resumed run needs besides adapter, optimiser and random generators, as JSON."""


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A complete checkpoint on the disk."""

    path: Path
    step: int
    resumable: bool
    """False for adapter-only checkpoints (best, milestones)."""


class CheckpointFolder:
    """A folder with `checkpoints/`: a run's, or the mirror of one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoint_folder(self) -> Path:
        """Where they lie."""
        return self.path / "checkpoints"

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint of a step is stored."""
        return self.checkpoint_folder / f"step_{step:06d}"

    @contextmanager
    def new_checkpoint(self, step: int, resumable: bool = True) -> Iterator[Path]:
        """A temporary folder that becomes the step's checkpoint when the context ends well."""
        final = self.checkpoint_path(step)
        temporary = final.with_name(f".tmp-{final.name}-{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            _seal(temporary, step, resumable)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self.drop_checkpoint(step)
        temporary.rename(final)
        fsync_folder(final.parent)

    def drop_checkpoint(self, step: int) -> None:
        """Delete a checkpoint, if it is there; never half of one under its name."""
        folder = self.checkpoint_path(step)
        if folder.exists():
            doomed = folder.with_name(f".tmp-old-{folder.name}-{os.getpid()}")
            folder.rename(doomed)
            shutil.rmtree(doomed)

    def set_aside_after(self, step: int) -> list[str]:
        """Rename later checkpoints, to make room for a resumed run's; returns their new names.

        They are damaged or cannot be resumed from, or the run would go on from one of them.
        """
        names = []
        for folder in sorted(self.checkpoint_folder.glob("step_*")):
            number = folder.name.removeprefix("step_")
            if number.isdecimal() and int(number) > step:
                kept = folder.with_name(f"unused_{folder.name}")
                shutil.rmtree(kept, ignore_errors=True)
                folder.rename(kept)
                names.append(kept.name)
        return names

    def reduce_checkpoint(self, checkpoint: CheckpointFile, dropped: Sequence[str]) -> None:
        """Take files away for good; it is complete at every moment, but no longer resumable."""
        manifest = json.loads((checkpoint.path / CHECKPOINT_MANIFEST).read_text(encoding="utf-8"))
        kept = {name: entry for name, entry in manifest["files"].items() if name not in dropped}
        write_json(
            checkpoint.path / CHECKPOINT_MANIFEST, manifest | {"resumable": False, "files": kept}
        )
        for name in dropped:
            (checkpoint.path / name).unlink(missing_ok=True)

    def checkpoints(self) -> list[CheckpointFile]:
        """Complete checkpoints by step; half ones and foreign files are not seen."""
        found = []
        for folder in sorted(self.checkpoint_folder.glob("step_*")):
            checkpoint = read_checkpoint(folder)
            # A copy that somebody made under another name is his, not ours to use or to prune.
            if checkpoint is not None and folder == self.checkpoint_path(checkpoint.step):
                found.append(checkpoint)
        return found

    def newest_checkpoint(self) -> CheckpointFile | None:
        """The newest complete checkpoint that can be resumed from, every byte as it was written."""
        resumable = (c for c in reversed(self.checkpoints()) if c.resumable)
        return next((c for c in resumable if not damaged_files(c)), None)


def read_checkpoint(folder: Path) -> CheckpointFile | None:
    """A folder as a checkpoint, or None unless it is complete: every file with its size."""
    try:
        manifest = json.loads((folder / CHECKPOINT_MANIFEST).read_text(encoding="utf-8"))
        for name, entry in manifest["files"].items():
            if (folder / name).stat().st_size != entry["bytes"]:
                return None
        return CheckpointFile(folder, int(manifest["step"]), bool(manifest["resumable"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _seal(folder: Path, step: int, resumable: bool) -> None:
    """Make every file durable and write the manifest with sizes and hashes, last."""
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        make_public(file)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            os.fsync(opened.fileno())
        size = file.stat().st_size
        files[file.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
    manifest = {"schema_version": 1, "step": step, "resumable": resumable, "files": files}
    write_json(folder / CHECKPOINT_MANIFEST, manifest)


def damaged_files(checkpoint: CheckpointFile) -> Sequence[str]:
    """Files of a checkpoint whose content does not match its hash."""
    manifest = json.loads((checkpoint.path / CHECKPOINT_MANIFEST).read_text(encoding="utf-8"))
    damaged = []
    for name, entry in manifest["files"].items():
        with (checkpoint.path / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                damaged.append(name)
    return damaged
