"""Tables of how fast the plain engine is beside an earlier build, for `scripts/update_readme.py`.

Each takes a file of docs/measurements; `speed_goals` sets what was wanted beside what they hold.
"""

import json
import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from bench_engine import CASES

from budgetrl.estimation.learning import paces, signal_pace
from budgetrl.estimation.request import Request, answer
from budgetrl.recipe.load import load_recipe
from budgetrl.units import gib

MEASUREMENTS = Path(__file__).resolve().parent.parent / "docs" / "measurements"
LEAST_PAIRS = 4
"""Of a build whose mean gain is told as that."""
TO_ACCURACY = {
    "trl": "plain TRL",
    "old": "commit 2efa2f2",
    "new": "now",
    "most": "now, with `keep_rows`",
}


Measured = dict[str, Any]


def engine(found: Measured) -> str:
    """The plain engine against an earlier one."""
    lines = ["| model | what | before | now | ratio |", "|---|---|---|---|---|"]
    shown: dict[str, Callable[[float], str]] = {
        "bytes": gib,
        "tokens/s": lambda value: f"{value:.0f}",
        "updates/s": lambda value: f"{value:.2f}",
    }
    for row in found["rows"]:
        sizes = " | ".join(shown[row["unit"]](row[side]) for side in ("old", "new"))
        lines.append(f"| {row['model']} | {row['measure']} | {sizes} | {row['ratio']:.2f}x |")
    return (
        f"Against commit {found['old']}, in turn, tokens or passes of an update for a CPU second "
        f"of one thread, medians; {found['cpu']}, {found['date']}, with other work on the machine "
        "(`scripts/bench_engine.py`). Greedy texts are the same, gradients to 5e-6:\n\n"
        + "\n".join(lines)
    )


def quickstart_pairs(found: Measured) -> str:
    """Whole quickstarts by two builds: speed and gain of each newer one."""
    lines = ["| build | seeds | ratio | mean gain, difference |", "|---|---|---|---|"]
    for build in found["builds"]:
        seeds = ", ".join(map(str, build["seeds"]))
        lines.append(f"| {build['build']} | {seeds} | {build['faster']:.2f}x | {_gain(build)} |")
    first = found["rows"][0]
    starts = " and ".join(
        f"{100 * first[side]['baseline']['heldout']['pass_at']['1']:.1f} %"
        for side in ("old", "new")
    )
    return (
        f"The whole quickstart, CPU seconds of commit {found['old']} over those of a later build, "
        f"median of pairs with the same seed, and its gain of pass@1 ({found['cpu']}, "
        f"{found['date']}, `scripts/bench_quickstart.py --old`). Both sides start with the same "
        f"model; that it measures {starts} are two draws of one evaluation, and that difference "
        "is in every gain:\n\n" + "\n".join(lines)
    )


def _gain(build: Measured) -> str:
    """Of a build's pairs, with the interval where there are two or more."""
    if build["interval_95"] is None:
        return f"{100 * build['gain_difference']:+.1f} points"
    return points(build["gain_difference"], build["interval_95"])


def time_to_accuracy(found: Measured) -> str:
    """CPU seconds until a held-out accuracy, side by side."""
    mixes = list(dict.fromkeys(row["mix"] for row in found["rows"]))
    lines = [
        "| problems | seed | plain TRL | before | now | now, with `keep_rows` |",
        "|---|---|---|---|---|---|",
    ]
    for mix in mixes:
        rows = [row for row in found["rows"] if row["mix"] == mix]
        for seed in sorted({row["seed"] for row in rows}):
            cells = {row["side"]: _reached(row) for row in rows if row["seed"] == seed}
            shown = " | ".join(cells.get(side, "not run") for side in TO_ACCURACY)
            goal = f"{mix}, {100 * rows[0]['goal']:.0f} %"
            lines.append(f"| {goal} | {seed} | {shown} |")
    most = ", ".join(f"`{setting.replace('=', ' = ')}`" for setting in found["settings"]["most"])
    return (
        "CPU seconds of training until held-out accuracy is reached, evaluations not counted, all "
        f"at a rate of {found['learning_rate']:g}. Before (commit {found['old']}) and now with "
        '`signal.skip = "exact"` and `signal.order = "difficulty"`; in the last column with '
        f"{most} as well, the most that can be set on a CPU. {found['cpu']}, {found['date']} "
        "(`scripts/time_to_accuracy.py`):\n\n" + "\n".join(lines)
    )


def _reached(row: Measured) -> str:
    if row["seconds"] is None:
        return f"not within {row['trained_s']:.0f} s"
    return f"{row['seconds']:.0f} s"


def speed_goals() -> str:
    """What was to be reached, and what was: one row for each goal."""
    files = ("engine", "quickstart_pairs", "time_to_accuracy")
    engine_, pairs, times = (
        json.loads((MEASUREMENTS / f"{name}.json").read_text(encoding="utf-8")) for name in files
    )
    ratios = {(row["model"], row["measure"]): row["ratio"] for row in engine_["rows"]}
    lines = ["| measure | goal | measured | |", "|---|---|---|---|"]

    def add(measure: str, goal: str, measured: str, reached: bool) -> None:
        lines.append(f"| {measure} | {goal} | {measured} | {'' if reached else 'missed'} |")

    for case in CASES:
        ratio = ratios.get((case.model, case.measure))
        if case.goal is not None:
            sign = "at most" if case.what == "memory" else "at least"
            told = "not measured" if ratio is None else f"{ratio:.2f}x"
            reached = ratio is None or (ratio <= case.goal) == (case.what == "memory")
            add(f"{case.model}: {case.measure}", f"{sign} {case.goal:g}x", told, reached)
    newest = pairs["builds"][-1]
    faster = newest["faster"]
    add("quickstart: whole run, newest build", "at least 1.35x", f"{faster:.2f}x", faster >= 1.35)
    for build in pairs["builds"]:
        if len(build["seeds"]) < LEAST_PAIRS:
            continue
        low, high = build["interval_95"]
        add(
            f"quickstart: mean gain over {len(build['seeds'])} pairs of {build['build']}",
            "at most 2 points lower, or a 95 % interval around 0 that is narrower than +/- 4",
            _gain(build),
            build["gain_difference"] >= -0.02 or (low <= 0 <= high and high - low < 0.08),
        )
    shares = [r["new"]["own_share"] for r in pairs["rows"] if r["build"] == newest["build"]]
    share = 100 * median(shares)
    add("quickstart: own share of an update's time", "below 3 %", f"{share:.1f} %", share < 3)
    for (other, goal), side in product((("old", 0.55), ("trl", 0.25)), ("most", "new")):
        here, there = TO_ACCURACY[side], TO_ACCURACY[other]
        measure, wanted = f"seconds to 85 % on `hard`, {here}; {there} = 1", f"at most {goal}x"
        if (found := time_ratio(times, "hard", side, other)) is None:
            add(measure, wanted, "not measured", True)
            continue
        ratio, bound = found
        add(measure, wanted, f"{'at most ' if bound else ''}{ratio:.2f}x", ratio <= goal)
    for row in _card_goals():
        add(*row)
    return "\n".join(lines)


def time_ratio(found: Measured, mix: str, side: str, other: str) -> tuple[float, bool] | None:
    """Median over seeds of seconds to the goal over another side's; whether it is a bound.

    None: they have no seed in common. A side that did not reach it takes more than it has trained.
    """
    by_seed: dict[int, dict[str, Measured]] = {}
    for row in found["rows"]:
        if row["mix"] == mix:
            by_seed.setdefault(row["seed"], {})[row["side"]] = row
    pairs = [rows for rows in by_seed.values() if side in rows and other in rows]
    ratios = [
        (one[side]["seconds"] or math.inf) / (one[other]["seconds"] or one[other]["trained_s"])
        for one in pairs
    ]
    if not ratios:
        return None
    return median(ratios), any(one[other]["seconds"] is None for one in pairs)


def _card_goals() -> list[tuple[str, str, str, bool]]:
    """Groups with signal per hour that the model of a card's time promises."""
    paper = signal_pace(answer(Request(load_recipe("deepscaler_r256").recipe))).per_hour
    best = answer(Request(load_recipe("best/deepscaler").recipe))
    rows = answer(Request(load_recipe("best/deepscaler", ["signal.keep_rows=4"]).recipe))
    ordered = [paces(made)[-1].per_hour / paper for made in (best, rows)]
    same = signal_pace(best).per_hour / paper
    what = "modelled, best/deepscaler on an A40, groups with signal per hour, deepscaler_r256 = 1"
    return [
        (f"{what}: same share", "at least 1.7x", f"{same:.2f}x", same >= 1.7),
        (f"{what}: share of its order", "at least 2.3x", f"{ordered[0]:.2f}x", ordered[0] >= 2.3),
        (f"{what}: and `keep_rows`", "at least 3x", f"{ordered[1]:.2f}x", ordered[1] >= 3),
    ]


def points(difference: float, interval: Sequence[float]) -> str:
    """A difference of shares and its interval, in points."""
    low, high = (100 * end for end in interval)
    return f"{100 * difference:+.1f} points ({low:+.1f} to {high:+.1f})"
