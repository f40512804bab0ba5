"""CPU seconds until a model answers held-out problems: plain TRL, an older build, this one.

    git worktree add --detach OLD 2efa2f2
    python scripts/time_to_accuracy.py OLD --mix hard --seeds 1,2,3 --json FILE

The sides train as in `scripts/bench_signal.py`, each in a process of its own on one thread, all at
once: what else the machine does slows a CPU second of all alike. The clock is the CPU time of that
process without its evaluations, of which there is one every two seconds, and later after each 5 %
more; it ends at the first of two evaluations in a row that reach the goal. What FILE has of other
sides, seeds and mixes is kept, so a measurement can be made piece by piece.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
GOALS = {"hard": 0.85, "easy": 0.90}
"""Held-out accuracy."""
EVERY_S, EVERY_SHARE = 2.0, 0.05
"""Seconds of training between two evaluations; or a share of the time so far, if that is more."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "trl": (),
    "old": (),
    "new": (),
    "most": ("signal.keep_rows=4",),
}
"""Of each side beside those of bench_signal's `ours`: the older build, this one in the same way,
and this one with what it has for the most learning."""


@dataclass
class Watch:
    """Evaluates on the way, off the clock, and ends a training when its goal is reached.

    Args:
        accuracy: of an engine as it is.
        goal: of two evaluations in a row.
        limit_s: seconds of training that end it as well.
        clock: the one that a tally's seconds are of.
    """

    accuracy: Callable[[Any], float]
    goal: float
    limit_s: float
    clock: Callable[[], float] = time.process_time
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    """Seconds, updates and accuracy at each evaluation."""
    seconds: float = 0.0
    _off_s: float = 0.0

    def is_over(self, engine: Any, tally: Any) -> bool:
        """Asked after each update."""
        self.seconds = tally.cpu_s - self._off_s
        last = self.curve[-1][0] if self.curve else 0.0
        if self.seconds - last >= max(EVERY_S, EVERY_SHARE * last):
            before = self.clock()
            self.curve.append((self.seconds, tally.steps, self.accuracy(engine)))
            self._off_s += self.clock() - before
        return self.reached is not None or self.seconds >= self.limit_s

    @property
    def reached(self) -> float | None:
        """Seconds at the first of two evaluations in a row that reach the goal."""
        return next(
            (
                first[0]
                for first, second in zip(self.curve, self.curve[1:], strict=False)
                if min(first[-1], second[-1]) >= self.goal
            ),
            None,
        )


def train(side: str, mix: str, seed: int, limit_s: float) -> dict[str, Any]:
    """One row, by the budgetrl that this process imports."""
    import bench_signal as bench

    kind = "trl" if side == "trl" else "ours"
    recipe = bench.recipe_of(mix, kind, seed, bench.LEARNING_RATE, *SETTINGS[side])
    with bench.GradingPool() as pool, tempfile.TemporaryDirectory() as name:
        pool.start()
        watch = Watch(
            lambda engine: bench.held_out_accuracy(engine, recipe, mix, pool), GOALS[mix], limit_s
        )
        if side == "trl":
            found = json.loads((HERE / "docs/measurements/signal.json").read_text(encoding="utf-8"))
            best = found["trl_settings"]
            bench.train_trl(
                recipe, pool, Path(name), watch.is_over, best["merge"], best["micro_batch"]
            )
        else:
            bench.train_ours(recipe, pool, Path(name), watch.is_over)
    curve = [[round(seconds, 2), steps, accuracy] for seconds, steps, accuracy in watch.curve]
    row = {"mix": mix, "seed": seed, "side": side, "goal": GOALS[mix], "seconds": watch.reached}
    return row | {
        "learning_rate": recipe.schedule.learning_rate,
        "trained_s": watch.seconds,
        "curve": curve,
    }


def train_by(checkout: Path, *question: str) -> dict[str, Any]:
    """One row, in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--one", *question]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout)
    reached, goal = row["seconds"], f"{100 * row['goal']:.0f} %"
    said = f"{reached:.1f} s" if reached else f"not within {row['trained_s']:.0f} s"
    print(f"{row['mix']} seed {row['seed']} {row['side']}: {goal} {said}", file=sys.stderr)
    return row


def main() -> None:
    """Measure and say; or be one side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, nargs="?", help="a checkout of the older build")
    parser.add_argument("--mix", choices=GOALS, default="hard")
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--sides", default=",".join(SETTINGS), help="comma-separated")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds of a side, at the most")
    parser.add_argument("--json", type=Path, help="rows in this file are kept")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        answers, sys.stdout = sys.stdout, sys.stderr
        side, mix, seed, limit_s = options.one
        print(json.dumps(train(side, mix, int(seed), float(limit_s))), file=answers)
        return
    if options.old is None or options.json is None:
        parser.error("a checkout of the older build and --json are needed")
    checkouts = dict.fromkeys(SETTINGS, HERE) | {"old": options.old.resolve()}
    sides = options.sides.split(",")
    for seed in options.seeds.split(","):
        with ThreadPoolExecutor(len(sides)) as pool:
            runs = [
                pool.submit(train_by, checkouts[side], side, options.mix, seed, f"{options.limit}")
                for side in sides
            ]
            for run in as_completed(runs):
                report = _report(run.result(), options.json)
                options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _report(row: dict[str, Any], file: Path) -> dict[str, Any]:
    from budgetrl.processor import cpu_model

    known = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    place = ("mix", "seed", "side")
    rows = [one for one in known if any(one[key] != row[key] for key in place)] + [row]
    sides = list(SETTINGS)
    rows.sort(key=lambda one: (one["mix"] != "hard", one["seed"], sides.index(one["side"])))
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_model(),
        "learning_rate": row.pop("learning_rate"),
        "old": "2efa2f2",
        "settings": SETTINGS,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
