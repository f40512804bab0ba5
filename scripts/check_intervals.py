"""How often do our 95 % intervals hold the truth? Coverage over a grid of made-up suites.

    python scripts/check_intervals.py [--draws 2000] [--json]

A suite of P problems is drawn with Beta solve rates, each problem is sampled n = 16 times, and the
interval is asked for the mean over all problems that might have been drawn. 92 to 97 % is the
goal; cells outside are printed with the reason.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np

from budgetrl.evaluation.passk import RESAMPLES, pass_interval

PROBLEMS = (30, 40, 500)
MEANS = (0.1, 0.3, 0.5, 0.7, 0.9)
STRENGTHS = (1.0, 4.0)
"""a + b of the Beta: 1 makes most problems all-or-nothing, 4 spreads them out."""
SAMPLES = 16
GOAL = (0.92, 0.97)


@dataclass(frozen=True)
class Cell:
    """One combination and how often its interval held the truth."""

    problems: int
    mean: float
    strength: float
    k: int
    truth: float
    coverage: float
    too_low: float
    """Share of draws whose interval lay below the truth."""
    too_high: float
    draws: int

    @property
    def inside(self) -> bool:
        """Whether the goal is met, give or take the simulation's own noise (2 sigma)."""
        noise = 2 * math.sqrt(0.05 * 0.95 / self.draws)
        return GOAL[0] - noise <= self.coverage <= GOAL[1] + noise

    def why(self) -> str:
        """What is behind a coverage outside the goal."""
        if self.coverage > GOAL[1]:
            return "wide on purpose: near an end there are too few rare problems, so Wilson is used"
        side = "below" if self.too_low > self.too_high else "above"
        return (
            f"skewed: of {self.problems} problems at {self.truth:.2f} a few rare ones decide mean "
            f"and spread together, so misses lie {side} the truth"
        )


def true_value(a: float, b: float, k: int) -> float:
    """Mean of 1 - (1 - p)^k for p from Beta(a, b)."""
    return 1 - math.exp(
        math.lgamma(b + k) - math.lgamma(b) + math.lgamma(a + b) - math.lgamma(a + b + k)
    )


def measure(problems: int, mean: float, strength: float, k: int, draws: int) -> Cell:
    """Coverage of pass@k's interval."""
    generator = np.random.default_rng([problems, round(100 * mean), round(strength), k])
    a, b = mean * strength, (1 - mean) * strength
    truth = true_value(a, b, k)
    rates = generator.beta(a, b, size=(draws, problems))
    counts = generator.binomial(SAMPLES, rates)
    low = high = 0
    for row in counts:
        interval = pass_interval(row.tolist(), SAMPLES, k)
        assert interval is not None
        low += interval[1] < truth
        high += interval[0] > truth
    missed = (low + high) / draws
    return Cell(problems, mean, strength, k, truth, 1 - missed, low / draws, high / draws, draws)


def main() -> int:
    """Print the grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    cells = [
        measure(problems, mean, strength, k, options.draws)
        for k in options.k
        for problems in PROBLEMS
        for strength in STRENGTHS
        for mean in MEANS
    ]
    if options.json:
        print(json.dumps([asdict(cell) | {"inside": cell.inside} for cell in cells], indent=1))
        return 0
    print(f"Coverage of 95 % intervals, n = {SAMPLES}, {options.draws} draws per cell; bootstrap")
    print(f"with {RESAMPLES} resamples for k > 1. Marked (*): outside {GOAL[0]} to {GOAL[1]}.\n")
    print("  k    P  a+b   " + "".join(f"mean {mean:<6}" for mean in MEANS))
    for i in range(0, len(cells), len(MEANS)):
        row = cells[i : i + len(MEANS)]
        shown = "".join(f"{cell.coverage:.3f}{' ' if cell.inside else '*'}     " for cell in row)
        print(f"{row[0].k:3d} {row[0].problems:4d}  {row[0].strength:3.0f}   {shown}")
    outside = [cell for cell in cells if not cell.inside]
    print(f"\n{len(cells) - len(outside)} of {len(cells)} cells inside the goal.")
    for cell in outside:
        print(
            f"  pass@{cell.k}, P = {cell.problems}, mean {cell.mean}, a+b = {cell.strength:.0f}: "
            f"{cell.coverage:.3f}. {cell.why()}."
        )
    print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
