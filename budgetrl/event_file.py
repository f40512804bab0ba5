"""The event file: whole lines, written with a stamp that never goes back, and read again."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from budgetrl.errors import RunDirError
from budgetrl.events import Event, Stamp, parse, to_line

BUFFER_BYTES = 1 << 16
"""Small enough for the processor's cache."""


class EventWriter:
    """Appends stamped events; each line reaches the file whole or not at all."""

    def __init__(self, path: Path, stamp: Stamp) -> None:
        self._stamp = stamp
        self._elapsed_s, self._usd = 0.0, 0.0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._size = self._cut_torn_line()
        self._elapsed_s, self._usd = self._last_stamp()

    def write(self, event: Event) -> None:
        """Append one event.

        Raises:
            OSError: the disk is full or gone; the file is as it was before.
        """
        stamp = dict(self._stamp()) | {"t": time.time()}
        self._elapsed_s = stamp["elapsed_s"] = max(self._elapsed_s, stamp["elapsed_s"])
        if stamp.get("spent_usd") is not None:
            self._usd = stamp["spent_usd"] = max(self._usd, stamp["spent_usd"])
        data = (to_line(event, stamp) + "\n").encode()
        try:
            written = os.pwrite(self._file, data, self._size)
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self._size + written)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        """Make everything durable and close."""
        with suppress(OSError):
            os.fsync(self._file)
        os.close(self._file)

    def _cut_torn_line(self) -> int:
        size = os.fstat(self._file).st_size
        position = size
        while position > 0:
            start = max(0, position - 65536)
            block = os.pread(self._file, position - start, start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
        if position < size:
            os.ftruncate(self._file, position)
        return position

    def _last_stamp(self) -> tuple[float, float]:
        tail = os.pread(self._file, 1 << 20, max(0, self._size - (1 << 20)))
        for line in reversed(tail.splitlines()):
            event = parse(line)
            if event is not None:
                return event.elapsed_s, event.spent_usd or 0.0
        return 0.0, 0.0


def each_whole_line(file: Path) -> Iterator[bytes]:
    """Lines with their line feeds, in little memory; a torn last one is left out.

    Args:
        file: may be absent.

    Raises:
        RunDirError: it cannot be read.
    """
    try:
        with file.open("rb", buffering=BUFFER_BYTES) as opened:
            yield from (line for line in opened if line.endswith(b"\n"))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: OSError) -> RunDirError:
    return RunDirError(f"{file}: cannot be read: {error.strerror}.")


def whole_lines(file: Path, offset: int, block: int = -1) -> tuple[list[bytes], int]:
    """Lines from a byte offset on, and the offset to continue from; a torn one is left.

    Args:
        file: may be absent.
        offset: bytes.
        block: about as many bytes at the most; -1: all.

    Raises:
        RunDirError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            opened.seek(offset)
            data = more = opened.read(block)
            while more and b"\n" not in data:
                more = opened.read(block)
                data += more
    except (FileNotFoundError, NotADirectoryError):
        return [], offset
    except OSError as error:
        raise _unreadable(file, error) from None
    whole = data.rfind(b"\n") + 1
    return data[:whole].splitlines(), offset + whole
