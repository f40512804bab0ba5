"""The whole terminal as a canvas of lines: only lines that changed are sent.

It uses the alternate screen, so what the user had before comes back when it is left.
"""

from collections.abc import Sequence
from typing import TextIO

from rich.color import ColorSystem
from rich.console import Console
from rich.text import Text

from budgetrl.display.output import Output

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""Alternate screen, no cursor, no wrapping, empty."""
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
PATIENCE_S = 1.0
FRAME_S = 0.1
"""For one frame: a large one is more than a terminal takes at once, and half of it misleads."""
SYSTEMS = {
    "standard": ColorSystem.STANDARD,
    "256": ColorSystem.EIGHT_BIT,
    "truecolor": ColorSystem.TRUECOLOR,
}


class Screen:
    """A terminal that shows lines of text."""

    def __init__(self, stream: TextIO) -> None:
        self._out = Output(stream)
        self._console = Console(file=stream, force_terminal=True, highlight=False)
        self._entered = False
        self._shown: list[Text] = []
        self._size = (0, 0)

    @property
    def encoding(self) -> str:
        """Of the stream."""
        return self._out.encoding

    @property
    def colour(self) -> bool:
        """Whether the terminal has colours, and the user wants them (NO_COLOR)."""
        return self._console.color_system is not None and not self._console.no_color

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        return self._out.size() or (80, 24)

    def ready(self) -> bool:
        """Whether all that was drawn is out: a slow line gets fewer frames, never a backlog."""
        return self._out.flush()

    def draw(self, lines: Sequence[Text], size: tuple[int, int], whole: bool = False) -> None:
        """Show lines from the top; `whole` repeats even those that did not change.

        Raises:
            OSError: the terminal is gone.
        """
        parts = []
        if not self._entered or whole or size != self._size:
            parts.append(ENTER if not self._entered or size != self._size else "")
            self._shown, self._entered, self._size = [], True, size
        for index in range(max(len(lines), len(self._shown))):
            old = self._shown[index] if index < len(self._shown) else None
            new = lines[index] if index < len(lines) else Text("")
            if old is None or old != new:
                parts.append(f"\x1b[{index + 1};1H\x1b[2K{self.ansi(new)}")
        self._shown = list(lines)
        if parts:
            self._out.write("".join(parts))
            self._out.settle(FRAME_S)

    def leave(self, last: Sequence[Text] = ()) -> None:
        """Back to the terminal as it was, with lines that stay."""
        text = LEAVE if self._entered else ""
        text += "".join(f"{self.ansi(line)}\n" for line in last)
        self._entered = False
        self._out.write(text)
        self._out.drain(PATIENCE_S)
        self._out.close()

    def ansi(self, line: Text) -> str:
        """A line with the codes for its styles, as far as the terminal has them."""
        system = SYSTEMS.get(self._console.color_system or "")
        if system is None:
            return line.plain
        parts = []
        for segment in line.render(self._console):
            style = segment.style
            if style is not None and self._console.no_color:
                style = style.without_color
            parts.append(style.render(segment.text, color_system=system) if style else segment.text)
        return "".join(parts)
