"""A terminal for tests: real processes on a pseudo-terminal, and what they would show on it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

_MOVE = re.compile(rb"\x1b\[(\d+);1H\x1b\[2K")
_STYLE = re.compile(rb"\x1b\[[0-9;]*m")
_SCREEN = re.compile(rb"\x1b\[\?(1049|25|7)[hl]|\x1b\[2J")
_UNFINISHED = re.compile(rb"\x1b[^a-zA-Z]*\Z")
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


def resize(fd: int, columns: int, lines: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def screen(data: bytes) -> dict[int, str]:
    """The lines that a terminal shows after `data`, by number from 1.

    Only what the live view may send is understood; any other control character fails the test.
    """
    shown: dict[int, str] = {}
    newest = data.rsplit(b"\x1b[2J", 1)[-1]
    parts = _MOVE.split(_UNFINISHED.sub(b"", newest))
    for number, text in zip(parts[1::2], parts[2::2], strict=True):
        plain = _SCREEN.sub(b"", _STYLE.sub(b"", text)).decode(errors="ignore")
        plain = plain.split("\n", 1)[0].rstrip("\r")
        assert not any(ord(character) < 32 or ord(character) == 127 for character in plain), plain
        shown[int(number)] = plain
    return shown


class Terminal:
    """A process whose input, output and errors are a terminal of a given size."""

    def __init__(
        self,
        arguments: list[str],
        columns: int = 80,
        lines: int = 24,
        cwd: Path | None = None,
        **environment: str,
    ) -> None:
        self.primary, secondary = pty.openpty()
        resize(secondary, columns, lines)
        unset = ("COLUMNS", "LINES", "NO_COLOR", "COLORTERM", "FORCE_COLOR")
        base = {name: value for name, value in os.environ.items() if name not in unset}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
            cwd=cwd,
            env=base | {"TERM": "xterm-256color", "PYTHONUTF8": "1"} | environment,
            start_new_session=True,
        )
        os.close(secondary)
        self.data = b""

    def wait_for(self, found: Callable[[bytes], bool], seconds: float = 30.0) -> bytes:
        """Everything received so far, once it fulfils a condition."""
        deadline = time.monotonic() + seconds
        while not found(self.data):
            assert time.monotonic() < deadline, self.data.decode(errors="replace")
            if not self._read(0.2) and self.process.poll() is not None:
                assert found(self.data), self.data.decode(errors="replace")
        return self.data

    def shows(self, text: str, seconds: float = 30.0) -> dict[int, str]:
        """The screen, once it shows a text."""
        self.wait_for(lambda data: any(text in line for line in screen(data).values()), seconds)
        return screen(self.data)

    def end(self, number: signal.Signals | None = None, seconds: float = 30.0) -> int:
        """The exit code, after a signal if one is given."""
        if number is not None:
            self.process.send_signal(number)
        deadline = time.monotonic() + seconds
        while self._read(0.1) or self.process.poll() is None:
            assert time.monotonic() < deadline, "the process does not end"
        os.close(self.primary)
        return self.process.wait()

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.primary], [], [], seconds)
        if not ready:
            return False
        try:
            more = os.read(self.primary, 1 << 16)
        except OSError:
            return False
        self.data += more
        return bool(more)
