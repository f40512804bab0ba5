"""One GPU, one run or evaluation: a lock file per GPU, held while its processes live.

    with hold_gpu(gpu_of(run), folder, ends_at) as handle:     HardwareError names who has it

The lock is the kernel's (flock), not the file: what a killed process leaves behind is no obstacle.
A worker inherits the handle, so the GPU stays taken while it saves after its supervisor is gone.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from budgetrl.errors import HardwareError
from budgetrl.files import lock_exclusively
from budgetrl.hardware import detect_gpu
from budgetrl.recipe.schema import Recipe
from budgetrl.run_files import read_recipe
from budgetrl.rundir import RunDir
from budgetrl.units import duration


def gpu_of(run: RunDir) -> str | None:
    """The UUID of the GPU that a run takes; None for runs on a CPU."""
    return gpu_for(read_recipe(run))


def gpu_for(recipe: Recipe) -> str | None:
    """The UUID of the GPU that a recipe takes here; None for recipes that run on a CPU."""
    found = detect_gpu() if recipe.engine.device == "cuda" else None
    return None if found is None else found.uuid


@contextmanager
def hold_gpu(uuid: str | None, folder: Path, ends_at: float | None) -> Iterator[int | None]:
    """Hold a GPU.

    Args:
        uuid: of the GPU; None: nothing is held.
        folder: of the run or what is evaluated; told to whoever wants the same GPU.
        ends_at: monotonic seconds, which all processes of a machine share; None: not known.

    Yields:
        The handle that a worker inherits.

    Raises:
        HardwareError: another run has the GPU; says which, and how long it may last.
    """
    if uuid is None:
        yield None
        return
    path = lock_folder() / f"gpu-{uuid}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not lock_exclusively(handle):
            raise _taken(uuid, path)
        owner = {"run_dir": str(folder), "pid": os.getpid(), "ends_at": ends_at}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)
        yield handle
    finally:
        os.close(handle)


def lock_folder() -> Path:
    """This user's folder of locks, made if absent: in $XDG_RUNTIME_DIR, else the temporary folder.

    Raises:
        HardwareError: somebody else made a folder of that name.
    """
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    base = runtime if os.access(runtime, os.W_OK) else Path(tempfile.gettempdir())
    folder = base / f"budgetrl-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise HardwareError(
            f"{folder} belongs to another user, so GPUs cannot be locked there.",
            hint="Remove it, or set XDG_RUNTIME_DIR to a folder of your own.",
        )
    return folder


def _taken(uuid: str, path: Path) -> HardwareError:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        who, ends_at = str(owner["run_dir"]), owner["ends_at"]
        if ends_at is not None:
            who += f", which has {duration(max(0.0, ends_at - time.monotonic()))} left"
    except (OSError, ValueError, KeyError, TypeError):  # it is just being written
        who = "another program of yours"
    return HardwareError(
        f"GPU {uuid} is taken by {who}.",
        hint="Look at it with `budgetrl watch`, wait until it is over, or choose another GPU with "
        "CUDA_VISIBLE_DEVICES.",
    )
