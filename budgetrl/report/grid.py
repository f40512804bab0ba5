"""Pictures of a sweep: the grid as heat maps, accuracy against the bill."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from budgetrl.report import plots
from budgetrl.report.best import Point, point_words, value_word
from budgetrl.report.document import Figure
from budgetrl.report.figures import Drawing, draw_all


def heat_maps(
    grid: Mapping[str, Sequence[Any]], points: Sequence[Point], suite: str
) -> Iterator[Figure]:
    """The two keys with most values as rows and columns; one map for each point of the others."""
    if not grid or not points:
        return
    keys = sorted(grid, key=lambda key: -len(grid[key]))
    across, down, others = keys[0], keys[1] if len(keys) > 1 else None, keys[2:]
    for number, rest in enumerate(itertools.product(*(grid[key] for key in others))):
        fixed = dict(zip(others, rest, strict=True))
        downs = grid[down] if down is not None else [None]
        cells = [
            [
                _score_at(points, fixed | {across: x} | ({down: y} if down else {}))
                for x in grid[across]
            ]
            for y in downs
        ]
        title = ", ".join([f"{suite} pass@1", *point_words(fixed)])
        words = [value_word(x) for x in grid[across]], [value_word(y) for y in downs if down]
        svg = plots.heat_map(title, (across, words[0]), (down or "", words[1]), cells)
        told = [f"{value:.3f}" for row in cells for value in row if value is not None]
        yield Figure(f"grid_{number}", title, svg, f"{title}: {', '.join(told)}")


def _score_at(points: Sequence[Point], values: Mapping[str, Any]) -> float | None:
    return next((point.score for point in points if dict(point.values) == values), None)


def frontier(rows: Sequence[Mapping[str, Any]], front: Sequence[int], suite: str) -> Figure:
    """Every trial's final pass@1 against its bill, and the line of those not beaten."""
    priced = all(row["spent"]["usd"] is not None for row in rows)

    def cost(row: Mapping[str, Any]) -> float:
        return float(row["spent"]["usd"] if priced else row["spent"]["wall_s"] / 60)

    def line(label: str, chosen: Sequence[Mapping[str, Any]], ink: str, joined: bool) -> plots.Line:
        y = [row["final"][suite]["pass_at"]["1"] for row in chosen]
        return plots.Line(label, list(map(cost, chosen)), y, points=True, joined=joined, ink=ink)

    judged = [row for row in rows if suite in (row["final"] or {})]
    early = [row for row in judged if row["stopped_early"]]
    whole = [row for row in judged if not row["stopped_early"]]
    drawn = [("whole", whole, "a", False), ("ended early", early, "muted", False)]
    drawn.append(("nothing cheaper is better", [rows[index] for index in front], "b", True))
    lines = [line(*one) for one in drawn if one[1]]
    panel = plots.Panel(f"{suite} pass@1", "dollars" if priced else "minutes", lines, percent=True)
    told = "; ".join(f"trial {i + 1}: {rows[i]['final'][suite]['pass_at']['1']:.3f}" for i in front)
    (figure,) = draw_all([Drawing("frontier", panel, f"Not beaten by a cheaper one: {told}")])
    return figure
