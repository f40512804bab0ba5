"""Gives the rows of a terminal to panels: the important ones first, the rest in proportion.

Each panel says how few rows it can live with and how many it can use. Where even the fewest do
not fit, panels are left out from the least important on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from budgetrl.display.typeset import side_by_side

Draw = Callable[[int, int], list[Text]]
"""Columns and rows -> at most that many lines."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the frame."""

    priority: int
    """0 is the most important."""
    least: int
    """Rows below which it is left out."""
    most: int
    """Rows beyond which it has no use for more."""
    draw: Draw


def share_rows(panels: Sequence[Panel], height: int) -> list[int]:
    """Rows for each panel; 0 leaves it out."""
    rows = [0] * len(panels)
    order = sorted(range(len(panels)), key=lambda index: panels[index].priority)
    left = height
    for index in order:
        if panels[index].least <= left:
            rows[index] = panels[index].least
            left -= panels[index].least
    for index in order:
        # A row or two that complete a panel are worth more than a taller chart.
        wish = panels[index].most - rows[index]
        if rows[index] and wish <= min(2, left):
            rows[index] += wish
            left -= wish
    growing = [index for index in order if rows[index]]
    while left > 0 and growing:
        growing = [index for index in growing if rows[index] < panels[index].most]
        for index in growing[:left]:
            rows[index] += 1
        left -= min(left, len(growing))
    return rows


def stack(panels: Sequence[Panel], width: int, height: int) -> list[Text]:
    """Panels below each other."""
    lines: list[Text] = []
    for panel, rows in zip(panels, share_rows(panels, height), strict=True):
        if rows:
            lines += panel.draw(width, rows)[:rows]
    return lines


def beside(left: Sequence[Panel], right: Sequence[Panel], priority: int, share: float) -> Panel:
    """Two stacks next to each other, as one panel; the left one gets a share of the width."""

    def draw(width: int, rows: int) -> list[Text]:
        left_width = round(width * share)
        drawn = stack(left, left_width - 2, rows)
        return side_by_side(drawn, stack(right, width - left_width, rows), left_width)

    return Panel(
        priority,
        least=max(max(panel.least for panel in side) for side in (left, right)),
        most=max(sum(panel.most for panel in side) for side in (left, right)),
        draw=draw,
    )
