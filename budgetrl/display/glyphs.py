"""The characters and colours of the live view, with and without UTF-8 and colour.

Where there is no colour, the parts of the budget bar differ by character.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from budgetrl.account.outcome import Tone


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One character for each job."""

    levels: str
    """Heights within one row, lowest first; the first one is empty."""
    rule: str
    setup: str
    baseline: str
    train: str
    end: str
    """Paid for the final evaluation and the report."""
    ahead: str
    """Expected training."""
    reserve: str
    """Kept for the end."""
    free: str
    """Not expected to be used."""
    done: str
    now: str
    todo: str
    dot: str
    """Between parts of a line."""
    warning: str
    ellipsis: str


UNICODE = Glyphs(
    levels=" ▁▂▃▄▅▆▇█",
    rule="─",
    setup="█",
    baseline="█",
    train="█",
    end="█",
    ahead="░",
    reserve="░",
    free="·",
    done="✓",
    now="▸",
    todo="·",
    dot="·",
    warning="▲",
    ellipsis="…",
)
MONOCHROME = replace(UNICODE, setup="▚", baseline="▓", end="▞", reserve="▒")
ASCII = Glyphs(
    levels=" ._-=+*%#",
    rule="-",
    setup="s",
    baseline="b",
    train="#",
    end="e",
    ahead="=",
    reserve="r",
    free=".",
    done="x",
    now=">",
    todo=".",
    dot="|",
    warning="!",
    ellipsis="~",
)

SETUP = "blue"
BASELINE = "cyan"
TRAIN = "green"
END = "magenta"
LABEL = "dim"
"""No colour: "bright_black" is the background itself in some palettes (Solarized)."""
TITLE = "bold"
STRONG = "bold"
GOOD = "green"
BAD = "red"
WARN = "yellow"
TONES: Mapping[Tone, str] = {"good": GOOD, "bad": BAD, "noise": WARN, "muted": LABEL, "": ""}
"""Colours of what `account.outcome` says."""
CURVES = {
    "accuracy": "green",
    "reward": "cyan",
    "loss": "cyan",
    "token_accuracy": "green",
    "length": "blue",
    "entropy": "magenta",
    "kl_teacher": "cyan",
    "top1_agreement": "green",
    "signal": "yellow",
}


def glyphs_for(encoding: str, colour: bool) -> Glyphs:
    """The richest set that an encoding can carry."""
    try:
        "".join(getattr(UNICODE, name) for name in Glyphs.__slots__).encode(encoding)
    except (UnicodeError, LookupError):
        return ASCII
    return UNICODE if colour else MONOCHROME
