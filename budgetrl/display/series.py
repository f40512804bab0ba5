"""Curves of any length in bounded memory, for sparklines.

A curve holds at most `LIMIT` points. When it is full, neighbours are averaged and every point
stands for twice as many updates as before.
"""

from dataclasses import dataclass, field
from itertools import pairwise

LIMIT = 512
"""Points of one curve; no terminal is wider."""


@dataclass(slots=True)
class _Point:
    first_step: int
    total: float
    count: int


@dataclass(slots=True)
class Series:
    """One measured quantity over the updates. None means "not measured" and leaves no point."""

    last: float | None = None
    _points: list[_Point] = field(default_factory=list)
    _stride: int = 1

    def add(self, step: int, value: float | None) -> None:
        """Note the value after an update."""
        self.last = value
        if value is None:
            return
        if not self._points or self._points[-1].count >= self._stride:
            self._points.append(_Point(step, value, 1))
        else:
            point = self._points[-1]
            point.total, point.count = point.total + value, point.count + 1
        if len(self._points) >= LIMIT:
            self._halve()

    def drop_after(self, step: int) -> None:
        """Forget the points of updates that a resumed attempt makes again."""
        while self._points and self._points[-1].first_step > step:
            self._points.pop()
        values = self.values(1)
        self.last = values[-1] if values else None

    def values(self, width: int) -> list[float]:
        """The curve in at most `width` values, averaged where it has more points."""
        points = self._points
        if len(points) <= width:
            return [point.total / point.count for point in points]
        edges = [round(i * len(points) / width) for i in range(width + 1)]
        groups = [points[a:b] for a, b in pairwise(edges)]
        return [sum(p.total for p in g) / sum(p.count for p in g) for g in groups]

    def _halve(self) -> None:
        pairs = zip(self._points[::2], self._points[1::2], strict=True)
        self._points = [
            _Point(a.first_step, a.total + b.total, a.count + b.count) for a, b in pairs
        ]
        self._stride *= 2
