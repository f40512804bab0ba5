"""Figures of many lines: every name stands inside the picture, and no two lines look alike."""

import re

from budgetrl.report.ink import SERIES
from budgetrl.report.plots import Line, Panel, draw

LETTER = 4.6
"""Points of a letter in a legend, at the least."""
NAMES = [f"rank {rank}, learning_rate {rate}" for rank in (8, 32, 64) for rate in (1e-3, 3e-3, 1)]
LEGEND = re.compile(r'<text style="font-size: 9px[^>]* x="(\S+)" y="(\S+)"[^>]*>([^<]*)</text>')


def drawn(names: list[str], points: bool = False) -> str:
    lines = [
        Line(name, [0, 1], [0, i], points=points, ink=SERIES[i % len(SERIES)])
        for i, name in enumerate(names)
    ]
    return draw(Panel("a sweep", "update", lines, size=(4.6, 2.9)))


def size(svg: str) -> tuple[float, float]:
    box = re.search(r'viewBox="0 0 (\S+) (\S+)"', svg)
    assert box
    return float(box[1]), float(box[2])


def test_long_names_stay_inside_and_leave_the_plot_its_height() -> None:
    svg = drawn(NAMES)
    width, height = size(svg)
    placed = LEGEND.findall(svg)
    assert sorted(name for _, _, name in placed) == sorted(NAMES)
    for x, y, name in placed:
        assert 0 < float(x) < width - LETTER * len(name)
        assert 0 < float(y) < height
    assert height > size(drawn(NAMES[:2]))[1]


def test_no_two_lines_of_many_look_alike() -> None:
    curves = re.findall(r'style="fill: none; ([^"]*stroke-width: 1\.8)', drawn(NAMES))
    assert len(set(curves)) == len(NAMES)
    markers = re.findall(r'<use xlink:href="(#\S+)"[^>]*"fill: (\S+);', drawn(NAMES, points=True))
    assert len(set(markers)) == len(NAMES)
