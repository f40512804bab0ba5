"""A new folder of files: as a whole or not at all.

with new_folder(out) as draft: write into draft          afterwards it is out
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from budgetrl.errors import RefusedError, UsageError
from budgetrl.files import clear_temporary_of, fsync_folder, make_public, temporary_beside
from budgetrl.units import gib

ROOM = 1.05
"""Free bytes for each byte that is written: a disk that is full to the last one is no use."""


def refuse_existing(out: Path) -> None:
    """Nothing is written over.

    Raises:
        UsageError: something lies there, or its parent is no folder.
    """
    if out.exists() or out.is_symlink():
        kind = "a folder" if out.is_dir() else "a file"
        raise UsageError(
            f"--out {out}: there is {kind} of that name.",
            hint="Name a new one; nothing is written over.",
        )
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise UsageError(f"--out {out}: {parent} is a file.", hint="Name a folder elsewhere.")


def refuse_small_disk(out: Path, needed: float) -> None:
    """Refuse before anything is computed what the disk has no room for.

    Raises:
        RefusedError: says how much is missing.
    """
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if ROOM * needed > free:
        raise RefusedError(
            f"--out {out}: takes about {gib(needed)}, and the disk has {gib(free)}.",
            hint="Free some space, or name a folder on another disk.",
        )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A draft that becomes the folder when all is written, and is deleted when something fails.

    Raises:
        UsageError: the folder exists, or cannot be made.
        RefusedError: the disk is full.
    """
    refuse_existing(out)
    draft = temporary_beside(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        clear_temporary_of(out)
        draft.mkdir()
        yield draft
        for file in draft.rglob("*"):
            if file.is_file() and not os.access(file, os.X_OK):  # scripts have theirs
                make_public(file)
        draft.rename(out)
        fsync_folder(out.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RefusedError(
                f"--out {out}: the disk is full.",
                hint="Free some space, or name a folder on another disk.",
            ) from None
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise UsageError(
                f"--out {out}: cannot be written: {error.strerror}.", hint="Name another folder."
            ) from None
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
