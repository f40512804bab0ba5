"""The straight line through what was measured, and what its slope may be.

line = trend(updates, accuracies)
line.rises(0.1)          whether a slope of 0 is refused at that level
line.most(0.025)         the steepest slope that is not
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from budgetrl.student_t import t_quantile

LEAST_SPREAD = 0.002
"""Of accuracies around a line: what stands still by chance is not known that well."""


class Trend(NamedTuple):
    """A line by least squares."""

    slope: float
    """Change for each update."""
    error: float
    """Its standard error, by how the values scatter around the line."""
    freedom: int
    """Values less two."""

    def rises(self, level: float) -> bool:
        """Whether it rises, by a one-sided test."""
        return self.slope > t_quantile(self.freedom, 1 - 2 * level) * self.error

    def most(self, level: float) -> float:
        """Upper bound of the slope, exceeded by the true one at that level."""
        return self.slope + t_quantile(self.freedom, 1 - 2 * level) * self.error


def trend(updates: ArrayLike, values: ArrayLike) -> Trend | None:
    """The line through values; None through fewer than three.

    Args:
        updates: (n,), not all the same.
        values: (n,); nan is left out.
    """
    x, y = np.asarray(updates, dtype=float), np.asarray(values, dtype=float)
    x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    if len(x) < 3:
        return None
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    left = y - y.mean() - slope * x
    spread = max(LEAST_SPREAD, math.sqrt(float(left @ left) / (len(x) - 2)))
    return Trend(slope, spread / math.sqrt(float(x @ x)), len(x) - 2)
