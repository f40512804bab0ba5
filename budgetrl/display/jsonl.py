"""`--display json`: the lines of events.jsonl, as they are, as they happen."""

from typing import TextIO

from budgetrl.account.live import BLOCK_BYTES, LiveRun
from budgetrl.display.output import Output
from budgetrl.events import RunFinished, parse
from budgetrl.rundir import RunDir

PATIENCE_S = 10.0


class JsonDisplay:
    """Copies new event lines to a stream; torn and foreign lines are left out."""

    view: LiveRun | None = None

    def __init__(self, stream: TextIO) -> None:
        self._out = Output(stream)
        self._run: RunDir | None = None
        self._offset = 0

    def start(self, run: RunDir) -> None:
        """Begin at the end of what is there."""
        self._run = run
        self._offset = run.events_size()

    def tick(self) -> None:
        """Copy what is new; a slow reader gets it later, and all of it."""
        while self._out.flush() and self._copy_block():
            pass

    def message(self, text: str) -> None:
        """Nothing: the stream holds events only."""

    def close(self, end: RunFinished | None = None) -> None:
        """Copy the rest, as long as somebody reads it."""
        while self._out.drain(PATIENCE_S) and self._copy_block():
            pass
        self._out.close()

    def _copy_block(self) -> bool:
        if self._run is None:
            return False
        lines, self._offset = self._run.tail_lines(self._offset, BLOCK_BYTES)
        for line in lines:
            if parse(line) is not None:
                self._out.write(line.decode("utf-8", "replace") + "\n")
        return bool(lines)
