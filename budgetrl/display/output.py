"""Writes to a terminal or pipe without ever waiting for it, but for a moment where one asks.

A reader that stops reading (a paused terminal, `| less`) must not stop the process that holds the
deadline, so what does not go out now is kept and goes out later. Not for regular files' sake:
those never wait.

    out = Output(sys.stdout)
    out.write("text"); out.flush()        False: some of it still waits
    out.drain(patience_s=2)               at the end: waits while the reader makes progress
"""

import os
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

PIPE_CHUNK = 4096
"""A pipe that polls as writable takes this much without waiting (PIPE_BUF)."""
PENDING_LIMIT = 1 << 20


class Output:
    """A text stream's file descriptor, never waited for."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.encoding = getattr(stream, "encoding", None) or "ascii"
        self._pending = bytearray()
        self._own: int | None = None
        self._fd = self._descriptor()
        if self._fd is not None:
            stream.flush()

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at it."""
        return self._fd is not None and os.isatty(self._fd)

    @property
    def waiting(self) -> bool:
        """Whether something written is not out yet."""
        return bool(self._pending)

    def size(self) -> tuple[int, int] | None:
        """Columns and lines of the terminal; None if it is none, or does not say."""
        if self._fd is None:
            return None
        try:
            columns, lines = os.get_terminal_size(self._fd)
        except OSError:
            return None
        return (columns, lines) if columns > 0 and lines > 0 else None

    def write(self, text: str) -> None:
        """Take text for output; it is left out where too much waits already.

        Raises:
            OSError: nobody can read it any more (BrokenPipeError), or the disk is full.
        """
        if self._fd is None:
            self.stream.write(text)
            return
        if len(self._pending) > PENDING_LIMIT:
            return
        self._pending += text.encode(self.encoding, "replace")
        self.flush()

    def flush(self) -> bool:
        """Put out what goes without waiting; whether all is out."""
        if self._fd is None:
            self.stream.flush()
            return True
        while self._pending:
            written = self._write_some(self._fd)
            if not written:
                return False
            del self._pending[:written]
        return True

    def drain(self, patience_s: float) -> bool:
        """Put out everything, unless the reader takes nothing for `patience_s` seconds."""
        limit = time.monotonic() + patience_s
        left = len(self._pending)
        while not self.flush():
            if len(self._pending) < left:
                left, limit = len(self._pending), time.monotonic() + patience_s
            elif time.monotonic() > limit:
                return False
            time.sleep(0.01)
        return True

    def settle(self, limit_s: float) -> None:
        """Put out what the reader takes within `limit_s` seconds in all."""
        limit = time.monotonic() + limit_s
        while not self.flush() and time.monotonic() < limit:
            time.sleep(0.002)

    def close(self) -> None:
        """Let go of the descriptor; the stream itself stays open."""
        if self._own is not None:
            os.close(self._own)
            self._own = self._fd = None

    def _descriptor(self) -> int | None:
        try:
            fd = self.stream.fileno()
        except (OSError, ValueError, AttributeError):
            return None
        if os.isatty(fd):
            # A terminal may wait in the middle of a write. Opened anew it can be told not to,
            # which on the shared descriptor would change the shell's terminal too.
            with suppress(OSError):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._own = fd = os.open(os.ttyname(fd), flags)
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode)
        return fd

    def _write_some(self, fd: int) -> int:
        if self._regular:
            return os.write(fd, self._pending)
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        if not poller.poll(0):
            return 0
        try:
            return os.write(fd, self._pending[:PIPE_CHUNK])
        except BlockingIOError:
            return 0


def silence(stream: TextIO) -> None:
    """Point a stream nobody reads to nowhere, so that a later flush does not fail."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def aside(stream: TextIO, other: TextIO) -> Iterator[TextIO]:
    """What libraries print on a stream goes to another: a document stays alone on it.

    Gives a stream that goes where the first one did.
    """
    try:
        own, elsewhere = stream.fileno(), other.fileno()
    except (OSError, ValueError, AttributeError):
        yield stream
        return
    stream.flush()
    kept = os.dup(own)
    os.dup2(elsewhere, own)
    try:
        with open(kept, "w", encoding=stream.encoding, closefd=False) as alone:
            yield alone
    finally:
        stream.flush()
        os.dup2(kept, own)
        os.close(kept)
