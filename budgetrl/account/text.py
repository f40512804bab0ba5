"""Foreign text made harmless, one escaper per target, and numbers as every face writes them.

    scrub(text)       one line for a terminal
    readable(text)    for a page; escaping for HTML or Markdown is the renderers' part

Completions, problems and error messages are untrusted: a model may write escape sequences that
move the cursor or set the clipboard, overrides that turn the line around, marks that stack up over
other lines. What is left has one look everywhere; letters of all scripts stay.
"""

import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from budgetrl.masking import masked
from budgetrl.units import duration, gib, percent, usd

if TYPE_CHECKING:  # every command imports this module
    from budgetrl.events import StageEvent
    from budgetrl.types import Interval

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[]P^_X]|[\x90\x9d\x9e\x9f\x98]).*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS, PM, APC, SOS
    r"|\x1b[ -/]*[0-~]",  # other escapes
    re.DOTALL,
)
_SPACES = re.compile(r"[ \t\r\n\v\f\x85\u2028\u2029]+")
_MARKS_IN_A_LINE = 2
_VARIATION = range(0xFE00, 0xFE10)
"""Selectors that change a character's width on some terminals only."""

_HIDDEN = {"Cf", "Co", "Cn", "Zl", "Zp"}
_JOINERS = {"\u200d", "\u200c", "\ufe0f"}
"""Parts of ordinary letters and emoji."""
_MARKS_PER_LETTER = 4
LIMIT = 6000
"""Characters of one completion in a report; the whole one is in the file it comes from."""


def scrub(text: str) -> str:
    """One line of printable text: no escapes, control or invisible characters."""
    if not (text.isascii() and text.isprintable()):
        text = _printable(_SPACES.sub(" ", _ESCAPES.sub("", text)))
    return _SPACES.sub(" ", text)


def _printable(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        if category in ("Mn", "Me"):
            marks += 1
            if marks <= _MARKS_IN_A_LINE and kept and ord(character) not in _VARIATION:
                kept.append(character)
        elif category in ("Cs", "Co", "Cn"):
            kept.append("?")
            marks = 0
        elif category not in ("Cc", "Cf"):
            kept.append(" " if category == "Zs" else character)
            marks = 0
    return "".join(kept)


def readable(text: str) -> str:
    """Text without control, invisible or direction-changing characters, and without secrets."""
    text = masked(text)
    if text.isascii() and text.isprintable():
        return text
    shown, marks = [], 0
    for character in text.replace("\r\n", "\n"):
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > _MARKS_PER_LETTER:
            continue
        shown.append(_sign(character, category))
    return "".join(shown)


def _sign(character: str, category: str) -> str:
    if character in "\n\t" or character in _JOINERS:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if category in ("Cc", "Cs") or category in _HIDDEN:
        return f"<U+{code:04X}>"
    return character


def shortened(text: str, limit: int = LIMIT) -> str:
    """The beginning and the end of a long text."""
    if len(text) <= limit:
        return text
    left_out = len(text) - limit
    head, tail = text[: limit // 3], text[-(limit - limit // 3) :]
    return f"{head}\n\n[... {left_out:,} characters left out ...]\n\n{tail}"


def suite_name(suite: str) -> str:
    """The name by which people know a suite."""
    from budgetrl.recipe.base import SuiteName  # not at the top: pydantic takes its time

    return suite.upper() if suite in set(SuiteName) else suite


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of shares in percentage points, signed, zero without a sign; "-" for None."""
    if difference is None:
        return "-"
    rounded = round(100 * difference, digits)
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"


def interval_text(interval: "Interval | None", signed: bool = False) -> str:
    """ "-1.0 to +13.4" in percent; "no interval" for None."""
    if interval is None:
        return "no interval"
    low, high = (points(v) if signed else f"{100 * v:.1f}" for v in interval)
    return f"{low} to {high}"


def score(value: float | None, interval: "Interval | None") -> str:
    """A share with its interval: "38.1 % (34.0 to 42.2)"; without one where there is none."""
    return percent(value) + (f" ({interval_text(interval)})" if interval else "")


def gate_words(event: "StageEvent") -> str:
    """What a gate found, and what follows: "10 of 16 groups have signal, ..."."""
    found = f"{percent(event.signal_share, 0)} of the groups have signal"
    if event.groups is not None:
        found = f"{event.groups_with_signal} of {event.groups} groups have signal"
    if event.wanted_share is not None:
        found += f", {percent(event.wanted_share, 0)} wanted"
    decided = {"extend": "the stage is made once more", "stop": "training ends"}
    return f"{found}: {decided.get(event.decision or '', 'the next stage may begin')}"


def counted(number: int, what: str) -> str:
    """A number of things: "1 model", "1,200 models"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def updates(count: int) -> str:
    """A number of updates."""
    return counted(count, "update")


def clipped(text: str, room: int) -> str:
    """A text in so many characters; an ellipsis says that more followed."""
    return text if len(text) <= room else f"{text[: room - 1]}…"


def money(seconds: float | None, dollars: float | None) -> str:
    """Time, and money where a price is known: "5 m 02 s ($0.44)"."""
    return duration(seconds) if dollars is None else f"{duration(seconds)} ({usd(dollars)})"


def downloading(repo: str, done: float, total: float, seconds: float) -> str:
    """How far a download is: "a/b: 0.4 GiB of 1.2 GiB, 85.0 MiB/s, about 9.8 s left"."""
    text = f"{repo}: {gib(done)} of {gib(total)}"
    if seconds <= 0 or done <= 0:
        return text
    rate = done / seconds
    left = f", about {duration((total - done) / rate)} left" if done < total else ""
    return f"{text}, {gib(rate)}/s{left}"


def short_path(path: Path) -> str:
    """A path as one would type it here."""
    try:
        relative = os.path.relpath(path)
    except FileNotFoundError:  # the current folder is gone
        return str(path)
    return relative if len(relative) < len(str(path)) else str(path)
