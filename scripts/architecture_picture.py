"""The picture of the house, docs/pictures/rooms.svg, from the import graph of budgetrl/.

    python scripts/architecture_picture.py            # draw it
    python scripts/architecture_picture.py --print    # rooms and all their arrows as text

Rows are the layers of the import contract in pyproject.toml. Of the arrows only those are drawn
that do not follow from others (the transitive reduction): where A imports B and B imports C, an
import of C by A has no arrow of its own. Order within a row by the barycentre method (Sugiyama,
Tagawa and Toda 1981), so that few arrows cross.
"""

import argparse
import re
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import NamedTuple
from xml.sax.saxutils import escape

import grimp
import networkx

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"]
ROW, BOX, LANE, GAP, MARGIN = 48, 26, 18, 8, 24
SWEEPS = 400


class Spot(NamedTuple):
    """A room, or a point where a long arrow passes a row (`until` is where it ends)."""

    name: str
    row: int
    until: str = ""

    @property
    def half(self) -> float:
        """Half of the width that it takes."""
        return LANE / 2 if self.until else 4.2 * len(self.name) + 12


def imports() -> networkx.DiGraph:
    """Room -> the rooms that it imports; a room is a module or package directly below budgetrl."""
    graph = grimp.build_graph("budgetrl", exclude_type_checking_imports=True, cache_dir=None)
    rooms = networkx.DiGraph()
    for module in sorted(graph.modules - {"budgetrl"}):
        room = module.split(".")[1]
        rooms.add_node(room)
        for other in graph.find_modules_directly_imported_by(module):
            if other.count(".") and other.split(".")[1] != room:
                rooms.add_edge(room, other.split(".")[1])
    return rooms


def contract(name: str) -> dict[str, list[str]]:
    """One import contract of pyproject.toml."""
    return next(found for found in CONTRACTS if found["id"] == name)


def layers() -> list[list[str]]:
    """The rows of the house from top to bottom."""
    return [re.findall(r"\w+", line) for line in contract("rooms")["layers"]]


def chains(arrows: networkx.DiGraph) -> list[list[Spot]]:
    """Every arrow as spots in successive rows, the first and last of them rooms."""
    row = {name: number for number, names in enumerate(layers()) for name in names}
    return [
        [
            Spot(a, row[a]),
            *(Spot(a, between, b) for between in range(row[a] + 1, row[b])),
            Spot(b, row[b]),
        ]
        for a, b in sorted(arrows.edges)
    ]


def placed(arrows: networkx.DiGraph) -> dict[Spot, float]:
    """The horizontal middle of every spot."""
    rows = [[Spot(name, number) for name in names] for number, names in enumerate(layers())]
    beside: dict[Spot, list[Spot]] = {}
    for chain in chains(arrows):
        for spot in chain[1:-1]:
            rows[spot.row].append(spot)
        for upper, lower in pairwise(chain):
            beside.setdefault(upper, []).append(lower)
            beside.setdefault(lower, []).append(upper)
    x = {spot: 60.0 * at for spots in rows for at, spot in enumerate(spots)}
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for spots in rows if down else reversed(rows):
            for spot in spots:
                near = beside.get(spot, [])
                if sweep < SWEEPS // 2:  # order first, then straighten
                    near = [other for other in near if (other.row < spot.row) == down]
                if near:
                    x[spot] = fmean(x[other] for other in near)
            _spread(spots, x)
    left = min(x[spot] - spot.half for spot in x)
    return {spot: MARGIN + at - left for spot, at in x.items()}


def _spread(spots: list[Spot], x: dict[Spot, float]) -> None:
    """Move what overlaps in a row, in all as little as can be (isotonic regression)."""
    spots.sort(key=lambda spot: x[spot])
    offsets = [0.0]
    for left, right in pairwise(spots):
        offsets.append(offsets[-1] + left.half + right.half + GAP)
    blocks: list[list[float]] = []
    for spot, offset in zip(spots, offsets, strict=True):
        blocks.append([x[spot] - offset])
        while len(blocks) > 1 and fmean(blocks[-2]) >= fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    starts = [fmean(block) for block in blocks for _ in block]
    for spot, start, offset in zip(spots, starts, offsets, strict=True):
        x[spot] = start + offset


def drawn(rooms: networkx.DiGraph) -> str:
    """The whole picture as SVG."""
    arrows = networkx.transitive_reduction(rooms)
    x = placed(arrows)
    y = {spot: MARGIN + spot.row * ROW + BOX / 2 for spot in x}
    width = MARGIN + max(x[spot] + spot.half for spot in x)
    height = 2 * MARGIN + (len(layers()) - 1) * ROW + BOX + 34
    readers = {name.removeprefix("budgetrl.") for name in contract("readers")["source_modules"]}
    lines = [_arrow([(x[spot], y[spot]) for spot in chain]) for chain in chains(arrows)]
    boxes = [
        _box(spot.name, x[spot], y[spot], spot.half, "reader" if spot.name in readers else "room")
        for spot in x
        if not spot.until
    ]
    legend = (
        f'<rect class="reader" x="{MARGIN}" y="{height - 34}" width="16" height="12" rx="3"/>'
        f'<text class="note" x="{MARGIN + 24}" y="{height - 24}">reads run directories, knows '
        "nothing of engines, data or rewards. An arrow: imports.</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" role="img">\n'
        "<title>The rooms of budgetrl and which imports which</title>\n"
        f"{STYLE}\n"
        f'<rect class="paper" width="{width:.0f}" height="{height}" rx="8"/>\n'
        + "\n".join([*lines, *boxes, legend])
        + "\n</svg>\n"
    )


STYLE = """<style>
.paper { fill: #ffffff } .room { fill: #eef2f8; stroke: #8a93a3 }
.reader { fill: #dcebdc; stroke: #3f9b6c } .arrow { fill: none; stroke: #8a93a3 }
text { font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #1d2430 }
.name { text-anchor: middle; dominant-baseline: central } .note { font-size: 12px; fill: #4a5262 }
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
orient="auto"><path d="M0 0 8 4 0 8Z" fill="#8a93a3"/></marker></defs>"""


def _arrow(points: list[tuple[float, float]]) -> str:
    """A smooth line from the lower edge of the first box to the upper edge of the last."""
    points[0] = (points[0][0], points[0][1] + BOX / 2)
    points[-1] = (points[-1][0], points[-1][1] - BOX / 2)
    ends = [points[0], *points, points[-1]]
    path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for before, (x0, y0), (x1, y1), after in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        third = (y1 - y0) / 3
        out = 0 if before == (x0, y0) else (x1 - before[0]) / 6
        into = 0 if after == (x1, y1) else (after[0] - x0) / 6
        path += (
            f"C{x0 + out:.0f} {y0 + third:.0f} {x1 - into:.0f} {y1 - third:.0f} {x1:.0f} {y1:.0f}"
        )
    return f'<path class="arrow" d="{path}" marker-end="url(#head)"/>'


def _box(name: str, x: float, y: float, half: float, kind: str) -> str:
    return (
        f'<rect class="{kind}" x="{x - half:.0f}" y="{y - BOX / 2:.0f}" width="{2 * half:.0f}" '
        f'height="{BOX}" rx="6"/><text class="name" x="{x:.0f}" y="{y:.0f}">{escape(name)}</text>'
    )


def main() -> int:
    """Draw, or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--print", action="store_true", help="print rooms and arrows, draw nothing")
    rooms = imports()
    if parser.parse_args().print:
        for name in (name for row in layers() for name in row):
            print(name, "->", *sorted(rooms.successors(name)))
        return 0
    PICTURE.write_text(drawn(rooms), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
