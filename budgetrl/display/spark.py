"""Curves drawn with block characters: one row is a sparkline, more rows are a small chart."""

from collections.abc import Sequence

from budgetrl.display.glyphs import Glyphs


def chart(values: Sequence[float], width: int, rows: int, glyphs: Glyphs) -> list[str]:
    """Values as columns, from the lowest to the highest; a chart keeps a gap to what is above it.

    Fewer values than columns are stretched; more are the caller's to average.
    """
    if not values or width < 1 or rows < 1:
        return [""] * max(0, rows)
    low, high = min(values), max(values)
    steps = (len(glyphs.levels) - 1) * rows - (2 if rows > 1 else 0)
    heights = [_height(value, low, high, steps) for value in values]
    columns = [heights[i * len(heights) // width] for i in range(width)]
    return [_row(columns, rows - 1 - i, glyphs) for i in range(rows)]


def _height(value: float, low: float, high: float, steps: int) -> int:
    if high <= low:
        return max(1, steps // 2)
    return 1 + round((value - low) / (high - low) * (steps - 1))


def _row(heights: Sequence[int], level: int, glyphs: Glyphs) -> str:
    """One row of the chart; `level` 0 is the lowest."""
    full = len(glyphs.levels) - 1
    return "".join(glyphs.levels[min(full, max(0, height - level * full))] for height in heights)


def bar(parts: Sequence[tuple[float, str]], total: float, width: int) -> list[tuple[int, str]]:
    """A bar of `width` cells in parts of given sizes: cells and name of each part.

    Every part that is above zero gets at least one cell while there are cells for all; the last
    one takes what rounding leaves.
    """
    drawn = [(size, name) for size, name in parts if size > 0]
    if total <= 0 or not drawn:
        return []
    cells: list[tuple[int, str]] = []
    used, summed = 0, 0.0
    for index, (size, name) in enumerate(drawn):
        summed += size
        later = len(drawn) - 1 - index
        end = min(width - later, max(used + 1, round(summed / total * width)))
        count = max(0, end - used)
        cells.append((count, name))
        used += count
    return cells
