"""Curves of any length in bounded memory, for sparklines.

A curve holds at most `LIMIT` points. When it is full, neighbours are averaged and every point
stands for twice as many updates as before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from budgetrl.events import Step


def signal_share(step: Step) -> float | None:
    """Groups whose rewards can teach; None where none were drawn, or a teacher teaches."""
    if not step.groups or step.kl_teacher is not None:
        return None
    return (step.groups_with_signal or 0) / step.groups


MEASURED: Mapping[str, Callable[[Step], float | None]] = {
    "reward": lambda step: step.reward_mean,
    "accuracy": lambda step: step.accuracy_mean,
    "loss": lambda step: None if step.groups else step.loss,
    "token_accuracy": lambda step: step.token_accuracy,
    "length": lambda step: step.completion_tokens_mean,
    "entropy": lambda step: step.entropy,
    "truncated": lambda step: step.truncated_share,
    "kl_teacher": lambda step: step.kl_teacher,
    "top1_agreement": lambda step: step.top1_agreement,
    "signal": signal_share,
}
"""What the curves of an update's event are, live and in reports; None: not measured."""
LIMIT = 512
"""Points of one curve; no terminal is wider."""


@dataclass(slots=True)
class _Point:
    place: int
    """Number of the update, divided by the stride."""
    total: float
    count: int


@dataclass(slots=True)
class Series:
    """One measured quantity over the updates. None means "not measured" and leaves no point.

    Points have their place by the number of the update, so leaving some out bends nothing.
    """

    last: float | None = None
    _points: list[_Point] = field(default_factory=list)
    _stride: int = 1

    @property
    def measured(self) -> bool:
        """Whether there is a point."""
        return bool(self._points)

    def add(self, step: int, value: float | None) -> None:
        """Note the value after an update."""
        self.last = value
        if value is None:
            return
        self._put(step // self._stride, value, 1)
        if self._points[-1].place - self._points[0].place >= LIMIT:
            self._halve()

    def drop_after(self, step: int) -> None:
        """Forget the points of updates that a resumed attempt makes again."""
        while self._points and self._points[-1].place * self._stride > step:
            self._points.pop()
        self.last = self._points[-1].total / self._points[-1].count if self._points else None

    def values(self, width: int) -> list[float]:
        """The curve in at most `width` values; where nothing was measured it stays level."""
        if not self._points:
            return []
        first = self._points[0].place
        span = self._points[-1].place - first + 1
        columns = min(width, span)
        groups: list[list[_Point]] = [[] for _ in range(columns)]
        for point in self._points:
            groups[(point.place - first) * columns // span].append(point)
        values: list[float] = []
        for group in groups:
            count = sum(point.count for point in group)
            values.append(sum(point.total for point in group) / count if count else values[-1])
        return values

    def _put(self, place: int, total: float, count: int) -> None:
        if self._points and self._points[-1].place == place:
            point = self._points[-1]
            point.total, point.count = point.total + total, point.count + count
        else:
            self._points.append(_Point(place, total, count))

    def _halve(self) -> None:
        self._stride *= 2
        before, self._points = self._points, []
        for point in before:
            self._put(point.place // 2, point.total, point.count)
