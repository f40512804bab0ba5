"""Figures as SVG text: the only importer of matplotlib.

Colours are placeholders (`ink`), so that one picture serves light and dark pages and files.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from budgetrl.report.ink import INK

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "budgetrl",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK["grid"],
    "axes.labelcolor": INK["muted"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": INK["muted"],
    "ytick.color": INK["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK["fg"],
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify": True,
    "text.parse_math": False,
    "lines.solid_capstyle": "round",
}


WIDE = (4.6, 2.9)
"""Inches of a figure that has half a page for itself."""
MOST_POINTS = 2000
"""Of a line."""
_MARGIN = {
    "left": 0.56,
    "right": 0.22,
    "bottom": 0.46,
    "legend": 0.08,
    "legend_item": 0.56,
    "legend_row": 0.2,
    "top": 0.44,
    "top_axis": 0.64,
}
"""Inches around a plot. Fixed: measuring texts takes longer than drawing them."""
_SHAPES: Sequence[tuple[str, Any]] = (
    ("o", "-"),
    ("s", (0, (5, 1.5))),
    ("^", (0, (1.6, 1.2))),
    ("D", (0, (6, 1.5, 1.5, 1.5))),
    ("v", (0, (3, 1.2))),
)
"""Markers and dashes of the lines of a panel, in order: they differ in print without colour, and
where two of many lines have one ink."""
_MARK_INCHES = 0.07
_LEGEND_INCHES = 0.078
"""Of a letter of a mark's name, and of a line's."""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve or set of points."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    """With `high`: 95 % intervals, drawn as whiskers (points) or as a band (curves)."""
    high: Sequence[float] | None = None
    points: bool = False
    """Markers at each value instead of a smoothed curve."""
    joined: bool = True
    """Markers are joined by a line."""
    ink: str = "a"


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot."""

    title: str
    x_label: str
    lines: Sequence[Line]
    percent: bool = False
    """Shares are written in percent."""
    zero: bool = False
    """The axis begins at zero."""
    second_axis: tuple[str, Sequence[float], Sequence[float]] | None = None
    """An axis on top: its label, and x positions with their values, both rising."""
    stated: Sequence[tuple[float, str]] = ()
    """Horizontal lines: values that a paper states."""
    marks: Sequence[tuple[float, str]] = ()
    """Vertical lines: where stages of the training begin, with their names."""
    size: tuple[float, float] = (3.6, 2.5)


TEXT = 0.3
"""Share of a panel's width that a text takes."""


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Centred running mean; the window shrinks at the ends."""
    if window <= 1:
        return list(values)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    half = window // 2
    means = []
    for i in range(len(values)):
        reach = min(half, i, len(values) - 1 - i)
        means.append((sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1))
    return means


def _thinned(line: Line) -> Line:
    """Means of neighbours where there are more points than a picture can show."""
    every = -(-len(line.x) // MOST_POINTS)
    if every <= 1 or line.low is not None or line.high is not None:
        return line
    starts = np.arange(0, len(line.x), every)
    sizes = np.diff([*starts, len(line.x)])
    x, y = (np.add.reduceat(np.asarray(values), starts) / sizes for values in (line.x, line.y))
    return replace(line, x=x.tolist(), y=y.tolist())


def draw(panel: Panel) -> str:
    """A panel as SVG text with placeholder colours."""
    with matplotlib.rc_context(_STYLE):
        width, height = panel.size
        rows = math.ceil(len(panel.lines) / _legend_columns(panel))
        height += _MARGIN["legend_row"] * max(0, rows - 2)  # many names make no plot flat
        top = _MARGIN["top"] if panel.second_axis is None else _MARGIN["top_axis"]
        bottom = _MARGIN["bottom"]
        if len(panel.lines) > 1:
            bottom += _MARGIN["legend"] + rows * _MARGIN["legend_row"]
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes(
            (
                _MARGIN["left"] / width,
                bottom / height,
                1 - (_MARGIN["left"] + _MARGIN["right"]) / width,
                1 - (bottom + top) / height,
            )
        )
        figure.text(0.02, 1 - 0.1 / height, panel.title, weight="bold", size=11, va="top")
        for number, line in enumerate(panel.lines):
            _draw_line(axes, line, _SHAPES[number % len(_SHAPES)])
        _finish(axes, panel)
        return _svg(figure)


def heat_map(
    title: str,
    across: tuple[str, Sequence[str]],
    down: tuple[str, Sequence[str]],
    cells: Sequence[Sequence[float | None]],
) -> str:
    """Shares over a grid as SVG text: the higher the darker; what was not measured is empty.

    Args:
        title: of the picture.
        across: name and values of the columns.
        down: name and values of the rows; without values there is one row.
        cells: row by row, from the top.
    """
    known = [value for row in cells for value in row if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    with matplotlib.rc_context({**_STYLE, "axes.grid": False, "axes.spines.left": False}):
        width, height = max(3.6, 1.3 + 0.8 * len(across[1])), 1.1 + 0.42 * len(cells)
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((1.0 / width, 0.56 / height, 1 - 1.1 / width, 1 - 1.0 / height))
        figure.text(0.02, 1 - 0.1 / height, title, weight="bold", size=11, va="top")
        for y, row in enumerate(cells):
            for x, value in enumerate(row):
                if value is not None:
                    depth = (value - low) / (high - low) if high > low else 0.5
                    place = Rectangle((x, y), 0.96, 0.92, color=INK["a"], alpha=0.08 + 0.5 * depth)
                    axes.add_patch(place)
                    axes.text(x + 0.48, y + 0.46, f"{100 * value:.1f}", ha="center", va="center")
        axes.set_xlim(0, len(across[1]))
        axes.set_ylim(len(cells), 0)
        axes.set_xticks([x + 0.48 for x in range(len(across[1]))], across[1])
        axes.set_yticks([y + 0.46 for y in range(len(down[1]))], down[1])
        axes.set_xlabel(across[0])
        axes.set_ylabel(down[0].split(".")[-1])
        return _svg(figure)


def _draw_line(axes: Any, line: Line, shape: tuple[str, Any]) -> None:
    colour, (marker, dashes) = INK[line.ink], shape
    if line.points:
        if line.low is not None and line.high is not None:
            below = [y - low for y, low in zip(line.y, line.low, strict=True)]
            above = [high - y for y, high in zip(line.y, line.high, strict=True)]
            axes.errorbar(
                line.x, line.y, yerr=[below, above], fmt="none", ecolor=colour, elinewidth=1.2,
                alpha=0.55, capsize=2.5,
            )  # fmt: skip
        axes.plot(line.x, line.y, color=colour, marker=marker, markersize=4.5, linewidth=1.4,
                  linestyle="-" if line.joined else "none", label=line.label)  # fmt: skip
        return
    line = _thinned(line)
    window = max(1, len(line.x) // 25)
    if line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    if window > 1:
        axes.plot(line.x, line.y, color=colour, linewidth=0.7, alpha=0.3)
    axes.plot(line.x, smoothed(line.y, window), color=colour, linewidth=1.8, linestyle=dashes,
              label=line.label)  # fmt: skip


def _free_side(lines: Sequence[Line], value: float) -> Literal["left", "right"]:
    """The side on which lines are farther away from a value, and a text over none of them."""
    points = [(x, abs(y - value)) for line in lines for x, y in zip(line.x, line.y, strict=True)]
    if not points:
        return "right"
    low, high = min(points)[0], max(points)[0]
    left = min(gap for x, gap in points if x <= low + TEXT * (high - low))
    right = min(gap for x, gap in points if x >= high - TEXT * (high - low))
    return "left" if left > right else "right"


def _finish(axes: Any, panel: Panel) -> None:
    axes.set_xlabel(panel.x_label)
    axes.margins(x=0.03)
    for value, text in panel.stated:
        axes.axhline(value, color=INK["paper"], linewidth=1.1, linestyle=(0, (4, 3)))
        side = _free_side(panel.lines, value)
        axes.annotate(
            text, (0.99 if side == "right" else 0.01, value), xycoords=("axes fraction", "data"),
            ha=side, va="bottom", fontsize=8, color=INK["muted"],
        )  # fmt: skip
    if panel.zero:
        axes.set_ylim(bottom=0)
    _draw_marks(axes, panel)
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    if panel.second_axis is not None:
        _second_axis(axes, *panel.second_axis)
    axes.xaxis.set_major_locator(MaxNLocator(5 if panel.size[0] > 4 else 6))
    if len(panel.lines) > 1:
        axes.figure.legend(
            loc="lower center", ncols=_legend_columns(panel), columnspacing=1.2, handlelength=2.2
        )


def _draw_marks(axes: Any, panel: Panel) -> None:
    """Vertical lines with their names in a free strip at the top, lower where two would meet."""
    if not panel.marks:
        return
    inches = panel.size[0] - _MARGIN["left"] - _MARGIN["right"]
    left, right = axes.get_xlim()
    ends: list[float] = []  # of the names in each row, in inches
    for x, text in sorted(panel.marks):
        at = inches * (x - left) / (right - left)
        row = next((i for i, end in enumerate(ends) if end < at), len(ends))
        ends[row : row + 1] = [at + _MARK_INCHES * (len(text) + 1)]
        axes.axvline(x, color=INK["muted"], linewidth=1.0, linestyle=(0, (2, 2)))
        axes.annotate(
            text, (x, 0.99), xycoords=("data", "axes fraction"), xytext=(3, -10 * row),
            textcoords="offset points", ha="left", va="top", fontsize=8, color=INK["muted"],
        )  # fmt: skip
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.09 * len(ends) * (high - low))


def _legend_columns(panel: Panel) -> int:
    """As many as have room, up to three; four names in two rows, which look better than 3 + 1."""
    letters = [len(line.label) for line in panel.lines]
    for columns in range(2 if len(letters) == 4 else min(3, len(letters)), 1, -1):
        rows = math.ceil(len(letters) / columns)
        widest = [max(letters[i : i + rows]) for i in range(0, len(letters), rows)]
        needed = sum(_LEGEND_INCHES * count + _MARGIN["legend_item"] for count in widest)
        if needed <= panel.size[0]:
            return columns
    return 1


def _second_axis(axes: Any, label: str, x: Sequence[float], values: Sequence[float]) -> None:
    """Round values of a quantity that rises with x, above the plot.

    Plain texts: a second matplotlib axis takes as long to lay out as the whole figure.
    """
    low, high = axes.get_xlim()
    above = axes.get_xaxis_transform()
    first, last = np.interp((low, high), x, values)  # of a curve that may end before x does
    ticks = MaxNLocator(4).tick_values(first, last)
    for tick, at in zip(ticks, np.interp(ticks, values, x), strict=True):
        if first <= tick <= last:
            axes.text(float(at), 1.03, f"{tick:.4g}", transform=above, ha="center", size=8,
                      color=INK["muted"])  # fmt: skip
    axes.text(high, 1.13, label, transform=above, ha="right", size=8, color=INK["muted"])
    axes.set_xlim(low, high)


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Groups are never referred to, and their names repeat between the pictures of one page.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text)
    )
