"""Lines of a frame: cut, filled, wrapped and put side by side, measured in terminal cells."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.cells import cell_len, chop_cells
from rich.text import Text

from budgetrl.display.glyphs import LABEL, TITLE, Glyphs

Part = str | tuple[str, str] | Text


def row(*parts: Part) -> Text:
    """A line of texts, each plain or with a style."""
    return Text.assemble(*parts, no_wrap=True, end="")


def fit(line: Text, width: int, glyphs: Glyphs) -> Text:
    """A line that measures at most `width`; what is cut off leaves an ellipsis."""
    if line.cell_len <= width:
        return line
    cut = line.copy()
    cut.truncate(max(0, width - 1), overflow="crop")
    cut.append(glyphs.ellipsis)
    return cut


def pad(line: Text, width: int) -> Text:
    """A line filled with spaces to `width`."""
    missing = width - line.cell_len
    if missing <= 0:
        return line
    filled = line.copy()
    filled.append(" " * missing)
    return filled


def ends(left: Text, right: Text, width: int, glyphs: Glyphs) -> Text:
    """Two texts at the two ends of a line; the left one gives way."""
    room = width - right.cell_len - 1
    if room < 8:
        return fit(left, width, glyphs)
    return row(pad(fit(left, room, glyphs), room + 1), right)


def rule(title: str, width: int, glyphs: Glyphs, note: str = "") -> Text:
    """A titled line that opens a panel."""
    parts: list[Part] = [(glyphs.rule * 2 + " ", LABEL), (title, TITLE), " "]
    used = 4 + cell_len(title)
    if note and used + cell_len(note) + 5 <= width:
        fill = width - used - cell_len(note) - 4
        parts += [(glyphs.rule * fill + " ", LABEL), note, (" " + glyphs.rule * 2, LABEL)]
    else:
        parts.append((glyphs.rule * max(0, width - used), LABEL))
    return fit(row(*parts), width, glyphs)


def wrap(text: str, width: int) -> list[str]:
    """Words in lines of at most `width` cells; longer words are broken."""
    lines: list[str] = []
    line, used = "", 0
    for word in text.split():
        size = cell_len(word)
        if line and used + 1 + size <= width:
            line, used = f"{line} {word}", used + 1 + size
            continue
        if line:
            lines.append(line)
        *whole, word = chop_cells(word, max(1, width)) or [""]
        lines += whole
        line, used = word, cell_len(word)
    return [*lines, line] if line else lines


def clip(lines: list[str], rows: int, glyphs: Glyphs) -> list[str]:
    """At most `rows` lines; an ellipsis says that more followed."""
    if len(lines) <= rows:
        return lines
    return [*lines[: rows - 1], f"{lines[rows - 1]} {glyphs.ellipsis}"] if rows > 0 else []


def labelled(label: str, text: Part, label_width: int = 10) -> Text:
    """A fact: its name, dimmed, and its text."""
    return row((f"{label:<{label_width}} ", LABEL), text)


def side_by_side(left: Sequence[Text], right: Iterable[Text], left_width: int) -> list[Text]:
    """Two blocks next to each other."""
    empty = Text("")
    pairs = zip_longest(left, right, fillvalue=empty)
    return [row(pad(a, left_width), b) for a, b in pairs]
