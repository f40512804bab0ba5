"""What the worker prints, line by line without secrets: libraries put addresses into their errors.

Only what Python prints; native code writes past it. It goes to `worker.log`, which people share.
"""

import io
import sys
from typing import TextIO

from budgetrl.masking import masked

LONGEST = 1 << 16
"""Characters of a line that is not ended; more is written as it is."""


class MaskedOutput(io.TextIOBase):
    """Writes whole lines, masked, to another stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._line = stream, ""

    def write(self, text: str) -> int:
        """Keep the text until its line is whole."""
        lines, mark, self._line = (self._line + text).rpartition("\n")
        if mark:
            self._stream.write(masked(lines) + mark)
        if len(self._line) > LONGEST:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what there is of a line."""
        if self._line:
            self._stream.write(masked(self._line))
            self._line = ""
        self._stream.flush()

    def fileno(self) -> int:
        """Of the stream behind, for faulthandler and child processes."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Never: it is a log."""
        return False


def mask_output() -> None:
    """From now on all that this process prints is masked."""
    sys.stdout, sys.stderr = MaskedOutput(sys.stdout), MaskedOutput(sys.stderr)
