"""The memory that is free on this machine, as a limit: too much of it fails, and is not killed.

Linux grants memory that it has not got and ends a process once it is used; of a container too.
Under the limit the allocation itself fails, which a rehearsal can catch and go on from.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KB = 1024
_GROUPS = Path("/sys/fs/cgroup")


@contextmanager
def within_free_memory() -> Iterator[None]:
    """Inside, this process can get what is free now and no more; no limit where that is unknown."""
    free, held = free_bytes(), _field(Path("/proc/self/status"), "VmData")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if free is None or held is None:
        yield
        return
    given = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([held + free, *given]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def free_bytes() -> int | None:
    """What Linux and the control groups around this process leave to it; None if unknown."""
    found = [_field(Path("/proc/meminfo"), "MemAvailable"), *_left_in_groups()]
    known = [room for room in found if room is not None]
    return max(0, min(known)) if known else None


def _left_in_groups() -> Iterator[int]:
    """Room in each memory.max (version 2) from this process's group to the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    for folder in (_GROUPS / own, *(_GROUPS / own).parents):
        if not folder.is_relative_to(_GROUPS):
            return
        try:
            limit = (folder / "memory.max").read_text().strip()
            if limit != "max":
                yield int(limit) - int((folder / "memory.current").read_text()) + _cached(folder)
        except (OSError, ValueError):
            continue


def _cached(folder: Path) -> int:
    """Bytes of files that the group would give up."""
    lines = (folder / "memory.stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def _field(path: Path, name: str) -> int | None:
    """A field of /proc in bytes; None where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * _KB if found else None
