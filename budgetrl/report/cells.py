"""Cells of tables that say how good something is: a result, or a difference of two."""

from budgetrl.account.outcome import tone_of
from budgetrl.account.text import interval_text, points
from budgetrl.report.document import Cell
from budgetrl.types import Interval
from budgetrl.units import percent

NOTHING = Cell("-", "muted")


def score_cell(value: float | None, interval: Interval | None) -> Cell:
    """A share of problems solved."""
    return NOTHING if value is None else Cell(percent(value), note=interval_text(interval))


def gain_cell(value: float, interval: Interval | None, more: str = "") -> Cell:
    """A difference in points, with its interval as a bar and its colour."""
    drawn = None if interval is None else (interval[0], value, interval[1])
    note = interval_text(interval, signed=True) + more
    return Cell(points(value), tone_of(interval), strong=True, note=note, interval=drawn)
