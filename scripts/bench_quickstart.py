"""Measure the quickstart: gain for several seeds, or many small budgets; prints JSON.

    python scripts/bench_quickstart.py --seeds 1,2,3
    python scripts/bench_quickstart.py --budgets 12 --low 20 --high 120
    python scripts/bench_quickstart.py --seeds 1 --old OLD --json FILE    pairs with another build

Every run is the real command in its own process. The result belongs into recipes/LOG.md. Of pairs,
FILE's other seeds are kept.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any

from budgetrl.budget import PhaseTimes
from budgetrl.evaluation.passk import mean_interval
from budgetrl.events import PlanEvent
from budgetrl.history import History, read_history
from budgetrl.processor import cpu_model, cpu_speed
from budgetrl.rundir import open_run


def quickstart_command(out: Path, *options: str) -> list[str]:
    """The real command."""
    command = [sys.executable, "-m", "budgetrl", "run", "quickstart", "--out", str(out)]
    return [*command, "--display", "none", "--json", *options]


def run_quickstart(out: Path, *options: str) -> tuple[int, dict[str, Any], float]:
    """Exit code, final JSON and wall seconds of one `budgetrl run quickstart`."""
    start = time.monotonic()
    command = quickstart_command(out, *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s = time.monotonic() - start
    print(f"  {' '.join(options)}: exit {done.returncode}, {wall_s:.1f} s", file=sys.stderr)
    return done.returncode, json.loads(done.stdout), wall_s


def measure_seed(out: Path, seed: int) -> dict[str, Any]:
    """One full quickstart: accuracy before and after, where the time went, forecast error."""
    code, result, wall_s = run_quickstart(out, "--seed", str(seed))
    if code != 0:
        return {"seed": seed, "exit_code": code, "error": result}
    run = open_run(result["run_dir"])
    history = read_history(run)
    plans = [event for event in run.events() if isinstance(event, PlanEvent) and event.step == 5]
    forecast_s = plans[-1].ends_at_s if plans else None
    planned = PhaseTimes(**run.read_json("plan.json")["times"])
    steps = history.steps
    seconds = [sum(step.phase_s.values()) for step in steps]
    between = (steps[-1].elapsed_s - steps[0].elapsed_s) if len(steps) > 1 else None
    inside = sum(seconds[1:]) + sum(
        c.seconds for c in history.checkpoints if steps[0].step <= c.step < steps[-1].step
    )
    return {
        "seed": seed,
        "exit_code": code,
        "stop_reason": result["stop_reason"],
        "steps": result["steps"],
        "wall_s": round(wall_s, 1),
        "budget_s": result["budget"]["wall_s"],
        "baseline": result["baseline"]["heldout"],
        "final": result["final"]["heldout"],
        "difference": result["difference"]["heldout"],
        "step_s": round(sum(seconds) / len(seconds), 3),
        "planned_step_s": round(planned.step_s, 3),
        "plan_source": planned.source,
        "forecast_at_5_s": None if forecast_s is None else round(forecast_s, 1),
        "forecast_error": None if forecast_s is None else round(forecast_s / wall_s - 1, 4),
        **_phases(history),
        "phases_over_wall": None if between is None else round(inside / between, 4),
    }


def _phases(history: History) -> dict[str, Any]:
    """Where the updates' time went, and the share that is neither torch's nor the grader's."""
    phases = history.step_phase_seconds()
    own = phases["other"] / sum(phases.values())
    return {"phase_s": {k: round(v, 2) for k, v in phases.items()}, "own_share": round(own, 4)}


def measure_pair(out: Path, seed: int, old: Path) -> dict[str, Any]:
    """The same quickstart by two checkouts: CPU seconds of all its processes, and its gain.

    Both at once: what else the machine does slows a CPU second of both alike. Without a limit that
    counts: it would end one of them early.
    """

    def measured(side: str, checkout: Path) -> dict[str, Any]:
        answer = out / f"{side}.json"
        with answer.open("w") as file:
            command = quickstart_command(out / side, "--seed", str(seed), "--hours", "60m")
            env = os.environ | {"PYTHONPATH": str(checkout)}
            run = subprocess.Popen(
                command, env=env, cwd=checkout, stdout=file, stderr=subprocess.DEVNULL
            )
            _, status, used = os.wait4(run.pid, 0)
        if status:
            raise SystemExit(f"{side}, seed {seed}: {answer.read_text()}")
        result = json.loads(answer.read_text())
        row = {key: result[key] for key in ("steps", "baseline", "final", "difference")}
        cpu_s = round(used.ru_utime + used.ru_stime, 1)
        print(f"seed {seed}, {side}: {cpu_s} s of CPU", file=sys.stderr)
        return {"cpu_s": cpu_s} | row | _phases(read_history(open_run(result["run_dir"])))

    sides = {"old": old, "new": Path(__file__).resolve().parents[1]}
    with ThreadPoolExecutor() as pool:
        rows = pool.map(measured, sides, sides.values())
    head = ["git", "-C", str(sides["new"]), "rev-parse", "--short=7", "HEAD"]
    build = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    return {"seed": seed, "build": build} | dict(zip(sides, rows, strict=True))


def paired(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All pairs by build, newest last: how much faster, and by how much the mean gain differs."""

    def summary(build: str) -> dict[str, Any]:
        own = [row for row in rows if row["build"] == build]
        gains = [_gain(row["new"]) - _gain(row["old"]) for row in own]
        return {
            "build": build,
            "seeds": [row["seed"] for row in own],
            "faster": median(row["old"]["cpu_s"] / row["new"]["cpu_s"] for row in own),
            "gain_difference": fmean(gains),
            "interval_95": mean_interval(gains),
        }

    builds = dict.fromkeys(row["build"] for row in rows)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_model(),
        "old": "2efa2f2",
        "builds": [summary(build) for build in builds],
        "rows": list(rows),
    }


def _gain(side: Mapping[str, Any]) -> float:
    gain: float = side["difference"]["heldout"]["pass_at"]["1"]
    return gain


def measure_budget(out: Path, budget_s: float) -> dict[str, Any]:
    """One run under a small budget: did it hold, and was there a final evaluation?"""
    code, result, wall_s = run_quickstart(out, "--hours", f"{budget_s:.0f}s")
    refused = code == 3
    return {
        "budget_s": budget_s,
        "exit_code": code,
        "wall_s": round(wall_s, 1),
        "over_s": round(max(0.0, wall_s - budget_s), 2),
        "refused": refused,
        "steps": None if refused else result["steps"],
        "has_final": None if refused else bool(result["final"]),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated; empty for none")
    parser.add_argument("--budgets", type=int, default=0, help="how many small budgets to try")
    parser.add_argument("--low", type=float, default=20.0)
    parser.add_argument("--high", type=float, default=120.0)
    parser.add_argument("--old", type=Path, help="a checkout to run each seed with as well")
    parser.add_argument("--json", type=Path, help="where pairs are kept")
    options = parser.parse_args()
    if (options.old is None) != (options.json is None):
        parser.error("--old and --json belong together")
    if options.old:
        for seed in map(int, options.seeds.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                row = measure_pair(Path(folder), seed, options.old.resolve())
            known = json.loads(options.json.read_text())["rows"] if options.json.exists() else []
            other = [r for r in known if (r["build"], r["seed"]) != (row["build"], seed)]
            options.json.write_text(json.dumps(paired([*other, row]), indent=1) + "\n")
        return
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_model(),
        "gflops": round(cpu_speed(), 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        seeds = [int(seed) for seed in options.seeds.split(",") if seed]
        report["seeds"] = [measure_seed(out, seed) for seed in seeds]
        count = options.budgets
        spread = (options.high - options.low) / max(1, count - 1)
        tried = [measure_budget(out, options.low + i * spread) for i in range(count)]
        report["budgets"] = tried
        report["overrun"] = sum(row["over_s"] > 0 for row in tried)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
