"""A report as one HTML file that needs nothing else: styles, pictures and all inside.

No scripts, and a policy that forbids them: completions are foreign text. Light and dark follow
the reader's system; narrow screens get one column; printing is light and
opens what is folded.
"""

from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from itertools import groupby

from budgetrl.account.text import readable
from budgetrl.report.document import (
    Bar,
    Block,
    Cell,
    Code,
    Document,
    Figure,
    Figures,
    Listing,
    Pair,
    Part,
    Sample,
    Section,
    Table,
    Text,
    Tiles,
)
from budgetrl.report.ink import on_page
from budgetrl.types import Interval

DENSE = 8
"""Columns; tables with more are set closer, so that the paper's Table 1 fits on a page."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(document: Document) -> str:
    """The whole page."""
    return "\n".join(_page(document)) + "\n"


def text(value: str) -> str:
    """Foreign text, harmless in HTML."""
    return escape(readable(value), quote=True)


def _page(document: Document) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{text(document.title)} - budgetrl report</title>"
    style = resources.files("budgetrl.report").joinpath("style.css").read_text(encoding="utf-8")
    yield f"<style>\n{style}</style></head><body><main>"
    yield '<header><p class="brand">budgetrl report</p>'
    yield f"<h1>{text(document.title)}"
    if document.status:
        yield f' <span class="status {document.status_tone}">{text(document.status)}</span>'
    yield f'</h1><p class="subtitle">{text(document.subtitle)}</p>'
    for notice in document.notices:
        yield f'<p class="notice">{text(notice)}</p>'
    for sentence in document.headline:
        yield f'<p class="headline {sentence.tone}">{text(sentence.text)}</p>'
    yield "</header>"
    for section in document.sections:
        yield from _section(section)
    yield f"<footer>{text(document.footer)}</footer></main></body></html>"


def _section(section: Section) -> Iterator[str]:
    yield f"<section><h2>{text(section.title)}</h2>"
    if section.intro:
        yield f'<p class="intro">{text(section.intro)}</p>'
    for block in section.blocks:
        yield from _block(block)
    yield "</section>"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text():
            yield f'<p class="text {block.tone}">{text(block.text)}</p>'
        case Table():
            yield from _table(block)
        case Listing():
            yield from _listing(block)
        case Tiles():
            yield from _tiles(block)
        case Figures():
            yield from _figures(block)
        case Bar():
            yield from _bar(block)
        case Pair():
            yield from _pair(block)
        case Code():
            yield f"<details><summary>{text(block.title)}</summary>"
            yield f"<pre>{text(block.text)}</pre></details>"


def _table(table: Table) -> Iterator[str]:
    dense = ' class="dense"' if len(table.head) > DENSE else ""
    yield f'<div class="scroll"><table{dense}><thead>'
    if table.super_head:
        cells = [f'<th colspan="{span}">{text(title)}</th>' for title, span in table.super_head]
        yield f'<tr class="super">{"".join(cells)}</tr>'
    cells = [
        f"<th{_class('text' if i < table.text_columns else '')}>{text(title)}</th>"
        for i, title in enumerate(table.head)
    ]
    yield f"<tr>{''.join(cells)}</tr></thead><tbody>"
    scale = _scale(table)
    for row in table.rows:
        cells = [_cell(cell, i < table.text_columns, scale) for i, cell in enumerate(row)]
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"
    for footnote in table.footnotes:
        yield f'<p class="footnote">{text(footnote)}</p>'
    if table.caption:
        yield f'<p class="caption">{text(table.caption)}</p>'


def _scale(table: Table) -> Interval:
    """From the lowest to the highest end of an interval, zero among them: one for a table."""
    drawn = [cell.interval for row in table.rows for cell in row if isinstance(cell, Cell)]
    ends = [end for interval in drawn if interval for end in interval]
    return min([0.0, *ends]), max([0.0, *ends])


def _cell(cell: Cell | str, is_text: bool, scale: Interval) -> str:
    if isinstance(cell, str):
        cell = Cell(cell)
    classes = " ".join(filter(None, ["text" if is_text else "", cell.tone]))
    inner = text(cell.text)
    if cell.strong:
        inner = f"<strong>{inner}</strong>"
    if cell.marks:
        inner += f"<sup>{text(cell.marks)}</sup>"
    if cell.interval:
        inner += _whisker(cell.interval, scale)
    if cell.note:
        inner += f"<small>{text(cell.note)}</small>"
    return f"<td{_class(classes)}>{inner}</td>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _whisker(interval: tuple[float, float, float], scale: Interval) -> str:
    """A difference and its interval as a small picture beside zero."""
    low, high = scale
    zero, x0, x, x1 = (6 + 108 * (end - low) / max(high - low, 1e-9) for end in (0.0, *interval))
    return (
        '<svg class="whisker" viewBox="0 0 120 14" aria-hidden="true">'
        f'<path class="zero" d="M{zero:.1f} 0V14"/>'
        f'<path d="M{x0:.1f} 7H{x1:.1f}M{x0:.1f} 3V11M{x1:.1f} 3V11"/>'
        f'<circle cx="{x:.1f}" cy="7" r="2.6"/></svg>'
    )


def _listing(listing: Listing) -> Iterator[str]:
    if listing.items:
        items = (f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in listing.items)
        yield f"<dl>{''.join(items)}</dl>"


def _tiles(tiles: Tiles) -> Iterator[str]:
    yield '<div class="tiles">'
    for tile in tiles.tiles:
        note = f"<small>{text(tile.note)}</small>" if tile.note else ""
        yield (
            f'<div class="tile {tile.tone}"><span>{text(tile.label)}</span>'
            f"<b>{text(tile.value)}</b>{note}</div>"
        )
    yield "</div>"


def _figures(figures: Figures) -> Iterator[str]:
    for wide, row in groupby(figures.figures, key=lambda figure: figure.wide):
        yield f'<div class="figures{" wide" if wide else ""}">'
        yield from (f'<figure class="card">{_inline(figure)}</figure>' for figure in row)
        yield "</div>"
    if figures.caption:
        yield f'<p class="caption">{text(figures.caption)}</p>'


def _inline(figure: Figure) -> str:
    """The picture with colours that follow the page."""
    opening = f'<svg role="img" aria-label="{text(figure.alt)}"'
    return on_page(figure.svg).replace("<svg", opening, 1)


def _bar(bar: Bar) -> Iterator[str]:
    total = sum(part.size for part in bar.parts) or 1.0
    yield f'<div class="bar card"><h3>{text(bar.title)}</h3><div class="track">'
    for part in bar.parts:
        title = text(f"{part.name}: {part.text}")
        yield f'<i style="{_colour(part)};flex-grow:{part.size / total:.5f}" title="{title}"></i>'
    yield '</div><ul class="legend">'
    for part in bar.parts:
        named = f"{text(part.name)} <b>{text(part.text)}</b>"
        yield f'<li><i style="{_colour(part)}"></i>{named}</li>'
    yield "</ul></div>"


def _colour(part: Part) -> str:
    return f"background:var(--{part.ink});opacity:{part.depth:g}"


def _pair(pair: Pair) -> Iterator[str]:
    yield '<div class="pair card">'
    if pair.problem:
        yield f'<p class="problem">{text(pair.problem)}</p>'
        yield f'<p class="answer">Answer: {text(pair.answer)}</p>'
    yield '<div class="columns">'
    yield from _samples(pair.samples)
    yield "</div></div>"


def _samples(samples: Sequence[Sample]) -> Iterator[str]:
    for sample in samples:
        tone = "good" if sample.verdict == "correct" else "bad"
        yield (
            f"<div><h3>{text(sample.title)} "
            f'<span class="status {tone}">{text(sample.verdict)}</span></h3>'
            f"<pre>{text(sample.text)}</pre><small>{text(sample.details)}</small></div>"
        )
