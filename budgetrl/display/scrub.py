"""Makes foreign text harmless on a terminal: completions, problems, error messages.

A model may write anything: escape sequences that move the cursor or set the clipboard, overrides
that turn the line around, marks that stack up over other lines. What is left has one look on
every terminal; letters of all scripts stay.
"""

import re
import unicodedata

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[]P^_X]|[\x90\x9d\x9e\x9f\x98]).*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS, PM, APC, SOS
    r"|\x1b[ -/]*[0-~]",  # other escapes
    re.DOTALL,
)
_SPACES = re.compile(r"[ \t\r\n\v\f\x85\u2028\u2029]+")
_MARKS_PER_LETTER = 2
_VARIATION = range(0xFE00, 0xFE10)
"""Selectors that change a character's width on some terminals only."""


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
            if marks <= _MARKS_PER_LETTER and kept and ord(character) not in _VARIATION:
                kept.append(character)
        elif category in ("Cs", "Co", "Cn"):
            kept.append("?")
            marks = 0
        elif category not in ("Cc", "Cf"):
            kept.append(" " if category == "Zs" else character)
            marks = 0
    return "".join(kept)
