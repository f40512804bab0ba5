"""How often do our 95 % intervals hold the truth? Coverage over a grid of made-up suites.

    python scripts/check_intervals.py [--draws 2000] [--json]
    python scripts/check_intervals.py --adaptive --draws 10000    rounds until it is narrow
    python scripts/check_intervals.py --saved EVAL.json...        completions that this saves

A suite of P problems is drawn with Beta solve rates, each problem is sampled n = 16 times, and the
interval is asked for the mean over all problems that might have been drawn. 92 to 97 % is the
goal; cells outside are printed with the reason. Rounds that end by the width are drawn by the very
functions that an evaluation uses; 93.5 to 96.5 % is the goal there.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from budgetrl.evaluation.passk import RESAMPLES, pass_interval
from budgetrl.evaluation.rounds import judge_rounds, next_target, width_of
from budgetrl.evaluation.rows import EvalRow, load_eval
from budgetrl.evaluation.summary import by_problem
from budgetrl.recipe.eval_tables import Rounds

PROBLEMS = (30, 40, 500)
MEANS = (0.1, 0.3, 0.5, 0.7, 0.9)
STRENGTHS = (1.0, 4.0)
"""a + b of the Beta: 1 makes most problems all-or-nothing, 4 spreads them out."""
SAMPLES = 16
GOAL = (0.92, 0.97)
ADAPTIVE_GOAL = (0.935, 0.965)
UNTIL = {30: 30.0, 256: 10.0, 500: 7.0}
"""Points that are wanted of a suite of so many problems: within reach of some cells, not of all."""
MOST = 32


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


@dataclass(frozen=True)
class AdaptiveCell:
    """One combination with rounds that end by the width."""

    problems: int
    mean: float
    strength: float
    until: float
    coverage: float
    rounds_mean: float
    narrow: float
    """Share of draws whose interval became so narrow."""
    draws: int


def until_narrow(
    generator: np.random.Generator, rates: np.ndarray, wanted: Rounds
) -> tuple[list[int], int]:
    """Right answers of each problem and rounds, as `evaluation.rounds` has them drawn."""
    made, target = 0, wanted.min
    right = np.zeros(len(rates), dtype=np.int64)
    while True:
        right += generator.binomial(target - made, rates)
        made = target
        width = width_of(right.tolist(), made, wanted.until_width or 0.0)
        following = next_target(made, wanted, width)
        if following is None:
            return right.tolist(), made
        target = following


def measure_adaptive(problems: int, mean: float, strength: float, draws: int) -> AdaptiveCell:
    """Coverage of pass@1's interval where its own width says when to end."""
    generator = np.random.default_rng([problems, round(100 * mean), round(strength), 77])
    a, b = mean * strength, (1 - mean) * strength
    wanted = Rounds(min=2, max=MOST, until_width=UNTIL[problems])
    held = narrow = rounds = 0
    for rates in generator.beta(a, b, size=(draws, problems)):
        right, made = until_narrow(generator, rates, wanted)
        interval = pass_interval(right, made, 1)
        assert interval is not None
        held += interval[0] <= mean <= interval[1]
        narrow += 100 * (interval[1] - interval[0]) <= UNTIL[problems]
        rounds += made
    return AdaptiveCell(
        problems, mean, strength, UNTIL[problems],
        held / draws, rounds / draws, narrow / draws, draws,
    )  # fmt: skip


def print_adaptive(draws: int) -> int:
    """The grid with rounds that end by the width."""
    cells = [
        measure_adaptive(problems, mean, strength, draws)
        for problems in UNTIL
        for strength in STRENGTHS
        for mean in MEANS[1:4]
    ]
    for cell in cells:
        inside = ADAPTIVE_GOAL[0] <= cell.coverage <= ADAPTIVE_GOAL[1]
        print(
            f"P = {cell.problems:3d}, a+b = {cell.strength:.0f}, mean {cell.mean}: coverage "
            f"{cell.coverage:.4f}{' ' if inside else '*'} rounds {cell.rounds_mean:5.1f}, "
            f"{cell.until:g} points reached in {cell.narrow:.0%}"
        )
    print(
        f"all cells: {sum(cell.coverage for cell in cells) / len(cells):.4f} ({draws} draws each)"
    )
    return 0


def print_saved(files: list[Path], until: float) -> int:
    """Completions for one width over several suites: rounds by need against one fixed number.

    Args:
        files: evaluations of many rounds, of which both take the first.
        until: points that are wanted; a suite whose floor lies above ends where that is known.
    """
    wanted = Rounds(min=2, max=MOST, until_width=until)
    needed, adaptive, problems = 0, 0, 0
    for file in files:
        stored = load_eval(file)
        ids = stored.problem_ids
        made = judge_rounds(stored.rows, ids, wanted)
        assert made.stopped_by is not None and made.width is not None, f"{file}: too few rounds"
        reached = max(made.width.now, until)
        fixed = next(
            n for n in range(1, made.target + 1) if _width(stored.rows, ids, n) <= reached + 1e-9
        )
        print(
            f"  {file.parent.name}: {len(ids)} problems, {made.target} rounds, "
            f"{made.width.now:.1f} points; as narrow with {fixed} fixed ones"
        )
        needed, problems = max(needed, fixed), problems + len(ids)
        adaptive += made.target * len(ids)
    print(
        f"{until:g} points: {adaptive} completions; {needed * problems} with {needed} rounds for "
        f"all: {needed * problems / adaptive:.2f}x"
    )
    return 0


def _width(rows: Sequence[EvalRow], ids: Sequence[str], rounds: int) -> float:
    right = [sum(row.correct for row in one) for one in by_problem(rows, ids, rounds).values()]
    interval = pass_interval(right, rounds, 1)
    assert interval is not None
    return 100 * (interval[1] - interval[0])


def main() -> int:
    """Print the grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--adaptive", action="store_true")
    parser.add_argument("--saved", type=Path, nargs="+", metavar="EVAL.json")
    parser.add_argument("--until", type=float, default=8.0)
    options = parser.parse_args()
    started = time.monotonic()
    if options.saved:
        return print_saved(options.saved, options.until)
    if options.adaptive:
        return print_adaptive(options.draws)
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
