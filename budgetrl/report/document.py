"""What a report consists of, before it is Markdown or HTML.

    run_document(run) -> [Section(title, blocks)] --> markdown.render | html.render

Every text in here is plain text: renderers escape it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from budgetrl.account.outcome import Tone as Tone
from budgetrl.masking import shareable


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    tone: Tone = ""
    strong: bool = False
    note: str = ""
    """A smaller second line, such as an interval."""
    marks: str = ""
    """Footnote signs."""
    interval: tuple[float, float, float] | None = None
    """(low, value, high) drawn as a small bar around zero; shares, not percent."""
    number: Mapping[str, Any] | None = None
    """What the text says, for programs: value (a share), interval_95, samples and the like."""

    def to_json(self) -> dict[str, Any] | None:
        """The number, with its footnote signs; None for a text."""
        return None if self.number is None else {**self.number, "mark": self.marks or None}


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head; the first column is text, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    footnotes: Sequence[str] = ()
    text_columns: int = 1
    """Leading columns that are text."""
    super_head: Sequence[tuple[str, int]] = ()
    """Titles above several columns: (title, number of columns)."""

    def to_json(self) -> dict[str, Any]:
        """Texts of the first columns, then numbers; null where there is none."""
        return {
            "head": list(self.head),
            "groups": [list(group) for group in self.super_head],
            "rows": [
                [c if isinstance(c, str) else c.text for c in row[: self.text_columns]]
                + [None if isinstance(c, str) else c.to_json() for c in row[self.text_columns :]]
                for row in self.rows
            ],
            "footnotes": list(self.footnotes),
        }


@dataclass(frozen=True, slots=True)
class Listing:
    """Names and values side by side."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Headline numbers in a row."""

    tiles: Sequence[Tile]


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture."""

    name: str
    """File name without suffix."""
    title: str
    svg: str
    """Colours are the placeholders of `ink`; renderers replace them."""
    alt: str
    wide: bool = False
    """Two of them are a row; of others three."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Pictures side by side where there is room."""

    figures: Sequence[Figure]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a total."""

    name: str
    size: float
    text: str
    ink: str
    """Its colour, a name of `ink.INK`."""
    depth: float = 1.0
    """How much of the colour, up to 1."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A total and its parts."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion."""

    title: str
    verdict: str
    text: str
    details: str
    """Tokens, reward, where it is stored."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Completions to be read side by side."""

    problem: str
    answer: str
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Code:
    """Verbatim text behind a title that opens it."""

    title: str
    text: str


Block = Text | Table | Listing | Tiles | Figures | Bar | Pair | Code


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part."""

    title: str
    blocks: Sequence[Block]
    intro: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    title: str
    status: str
    status_tone: Tone
    subtitle: str
    headline: Sequence[Text]
    sections: Sequence[Section]
    notices: Sequence[str] = field(default_factory=list)
    """Shown at the top: crashed, damaged files."""
    footer: str = ""


_VERBATIM = (Pair, Sample, Figure)
"""What models wrote, and drawings."""


def shareable_document(document: Document) -> Document:
    """The same without secrets, machine paths and user names; completions stay as they are."""
    shared: Document = _shareable(document)
    return shared


def _shareable(value: Any) -> Any:
    if isinstance(value, str):
        return shareable(value)
    if isinstance(value, list | tuple) and not isinstance(value, str):
        inner = [_shareable(part) for part in value]
        return tuple(inner) if isinstance(value, tuple) else inner
    if is_dataclass(value) and not isinstance(value, (type, *_VERBATIM)):
        names = [field.name for field in fields(value)]
        return replace(value, **{name: _shareable(getattr(value, name)) for name in names})
    return value
