"""Files on disk: each is the old one or the new one, never half of one."""

import errno
import fcntl
import json
import os
import select
import shutil
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

LOCK_PATIENCE_S = 0.3
PUBLIC_MODE, PRIVATE_MODE = 0o644, 0o600
"""Permissions of files, less the umask: to be passed on, or for their owner alone."""
WRITER_PATIENCE_S = 5.0
_slowest_s = 0.0
"""See `slowest_write_s`."""


def write_atomic(
    path: Path, content: str | bytes, mode: int = PUBLIC_MODE, *, durable: bool = True
) -> None:
    """Replace a file as a whole: after a crash it is the old one or the new one.

    Args:
        path: the file.
        content: all of it.
        mode: its permissions, less the umask.
        durable: wait for the disk. Without, that holds when a process dies, and only after
            `make_durable` when the machine does.
    """
    global _slowest_s
    begun, data = time.monotonic(), content.encode() if isinstance(content, str) else content
    temporary = temporary_beside(path)
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)
        _slowest_s = max(_slowest_s, time.monotonic() - begun)


def slowest_write_s() -> float:
    """Seconds that the slowest durable file of this process took: what a small one may take."""
    return _slowest_s


def make_durable(files: Collection[Path]) -> None:
    """Wait until the disk has files; those that are gone by now need nothing."""
    for file in files:
        with suppress(FileNotFoundError), file.open("rb") as opened:
            os.fsync(opened.fileno())
    for folder in {file.parent for file in files}:
        fsync_folder(folder)


def temporary_beside(path: Path) -> Path:
    """Where this process writes what becomes a file."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def clear_temporary(folder: Path, *below: str) -> None:
    """Delete what dead processes left half written in a folder; living ones keep theirs.

    Args:
        folder: that is looked at.
        below: patterns of folders in it that are looked at too.
    """
    folders = (folder, *(found for pattern in below for found in folder.glob(pattern)))
    for file in (file for place in folders for file in place.glob(".*.tmp")):
        _delete_left(file)


def clear_temporary_of(path: Path) -> None:
    """Delete what dead processes left half written of one file or folder."""
    for file in path.parent.glob(".*.tmp"):
        name, pid, _ = file.name.rsplit(".", 2)
        if name == f".{path.name}" and pid.isdecimal():
            _delete_left(file)


def _delete_left(file: Path) -> None:
    pid = file.name.split(".")[-2]
    if pid.isdecimal() and Path(f"/proc/{pid}").exists():
        return
    if file.is_dir():  # an export's
        shutil.rmtree(file, ignore_errors=True)
    else:
        file.unlink(missing_ok=True)


def make_public(file: Path) -> None:
    """Give a file that another library wrote the permissions of ours: 0644 less the umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    file.chmod(PUBLIC_MODE & ~mask)


def write_json(path: Path, value: Any, mode: int = PUBLIC_MODE) -> None:
    """Replace a JSON file as a whole."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n", mode)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_asset(name: str) -> Any:
    """What a JSON file holds that ships with budgetrl."""
    return json.loads(Path(__file__).with_name("assets").joinpath(name).read_text("utf-8"))


def read_regular(path: Path, most: int) -> bytes:
    """The content of a file that is one, and no larger than `most` bytes.

    Raises:
        OSError: it cannot be read, is a pipe or device (which may never end), or is larger.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, more than {most:,}")
        return file.read(most)


def read_stream(path: Path, most: int) -> bytes:
    """The content of a file or of a pipe that somebody writes to, such as `<(command)`.

    Raises:
        OSError: it cannot be read, is a device, holds more than `most` bytes, or is a pipe that
            nobody opens for writing within some seconds.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:
        if not stat.S_ISFIFO(os.fstat(handle).st_mode):
            return read_regular(path, most)
        deadline = time.monotonic() + WRITER_PATIENCE_S
        parts: list[bytes] = []
        while True:
            part = file.read(1 << 20)
            if part:
                parts.append(part)
                if sum(map(len, parts)) > most:
                    raise OSError(errno.EFBIG, f"it holds more than {most:,} bytes")
            elif part is None:  # a writer is there, and has written nothing yet
                deadline = 0.0
                select.select([file], [], [])
            elif parts or not deadline:
                return b"".join(parts)
            elif time.monotonic() > deadline:
                raise OSError(errno.EPIPE, "it is a pipe that nobody writes to")
            else:
                time.sleep(0.05)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file; torn and foreign lines are left out."""
    with path.open("rb") as file:
        for line in file:
            with suppress(ValueError):
                row = parse_json(line)
                if isinstance(row, dict):
                    yield row


def fsync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock_exclusively(handle: int) -> bool:
    """Take a file's lock; patient with readers, who hold it for microseconds to see if it is free.

    Args:
        handle: an open file; its lock ends with it, or with its process.
    """
    patient_until = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > patient_until:
                return False
            time.sleep(0.002)
