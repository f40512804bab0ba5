"""A report as Markdown, with its pictures as files beside it. Foreign text is escaped or fenced."""

import re
from collections.abc import Iterator

from budgetrl.account.text import readable
from budgetrl.report.document import (
    Bar,
    Block,
    Cell,
    Code,
    Document,
    Figures,
    Listing,
    Pair,
    Section,
    Table,
    Text,
    Tiles,
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")


def render(document: Document, figures_folder: str) -> str:
    """The whole text.

    Args:
        document: what to say.
        figures_folder: where the pictures are, as seen from the Markdown file.
    """
    return "\n\n".join(_page(document, figures_folder)) + "\n"


def text(value: str) -> str:
    """Foreign text as one line that Markdown takes literally."""
    return _SPECIAL.sub(r"\\\1", " ".join(readable(value).split()))


def _page(document: Document, folder: str) -> Iterator[str]:
    status = f" ({text(document.status)})" if document.status else ""
    yield f"# {text(document.title)}{status}"
    yield text(document.subtitle)
    for notice in document.notices:
        yield f"> **Note**: {text(notice)}"
    for sentence in document.headline:
        line = text(sentence.text)
        yield line if sentence.tone == "muted" else f"**{line}**"
    for section in document.sections:
        yield from _section(section, folder)
    yield f"---\n\n{text(document.footer)}"


def _section(section: Section, folder: str) -> Iterator[str]:
    yield f"## {text(section.title)}"
    if section.intro:
        yield text(section.intro)
    for block in section.blocks:
        yield from _block(block, folder)


def _block(block: Block, folder: str) -> Iterator[str]:
    match block:
        case Text():
            yield text(block.text)
        case Table():
            yield from _table(block)
        case Listing():
            if block.items:
                yield "\n".join(f"- {text(name)}: {text(value)}" for name, value in block.items)
        case Tiles():
            lines = (f"- {text(t.label)}: **{text(t.value)}** {text(t.note)}" for t in block.tiles)
            yield "\n".join(line.rstrip() for line in lines)
        case Figures():
            yield "\n\n".join(
                f"![{text(figure.alt)}]({folder}/{figure.name}.svg)" for figure in block.figures
            )
            if block.caption:
                yield text(block.caption)
        case Bar():
            parts = ", ".join(f"{text(part.name)} {text(part.text)}" for part in block.parts)
            yield f"{text(block.title)}: {parts}"
        case Pair():
            yield from _pair(block)
        case Code():
            yield f"<details><summary>{text(block.title)}</summary>"
            yield fenced(block.text)
            yield "</details>"


def _table(table: Table) -> Iterator[str]:
    head = [text(title) for title in table.head]
    if table.super_head:
        prefixes = [title for title, span in table.super_head for _ in range(span)]
        pairs = zip(prefixes, head, strict=True)
        head = [f"{text(prefix)} {title}".strip() for prefix, title in pairs]
    align = ["---" if i < table.text_columns else "---:" for i in range(len(head))]
    lines = [head, align, *([_cell(cell) for cell in row] for row in table.rows)]
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    yield from (text(footnote) for footnote in table.footnotes)
    if table.caption:
        yield text(table.caption)


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return text(cell)
    shown = text(cell.text)
    if cell.strong and shown:
        shown = f"**{shown}**"
    shown += text(cell.marks)
    return f"{shown} ({text(cell.note)})" if cell.note else shown


def _pair(pair: Pair) -> Iterator[str]:
    if pair.problem:
        yield f"**{text(pair.problem)}** Answer: {text(pair.answer)}"
    for sample in pair.samples:
        yield f"{text(sample.title)}: {text(sample.verdict)}; {text(sample.details)}"
        yield fenced(sample.text)


def fenced(value: str) -> str:
    """Verbatim text in a fence that the text itself cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{readable(value)}\n{fence}"
