"""Three ways to spend the same seconds: GRPO, a warm-up and GRPO, and distillation.

    python scripts/bench_ways.py run --start cold --way distil --seed 1 --out DIR    one run
    python scripts/bench_ways.py memory --out DIR                                    see below
    python scripts/bench_ways.py table DIR > docs/measurements/ways.json             all of them

Every run is the real command on a bundled recipe, from one of three embedded starts; one that is
in DIR already is left as it is. From the start `quickstart` accuracy is measured on the way, too,
so that the training seconds to an accuracy can be read; those evaluations are on the run's bill,
as are the first and the last, and not in its training seconds. `memory` is the peak of one
micro-batch at a vocabulary of 152k over what was held before it, of GRPO and of a distillation.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from budgetrl.account.result import result_of
from budgetrl.account.run import Account
from budgetrl.events import Evaluation, Event, Step
from budgetrl.history import read_history
from budgetrl.processor import cpu_model
from budgetrl.rundir import open_run

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"grpo": "quickstart", "warm": "quickstart_warm", "distil": "quickstart_distill"}
STARTS = {"quickstart": 120, "cold": 100, "mute": 100}
"""Seconds of each run: some 20 of the first go to evaluations on the way."""
RECIPE = """[recipe]
extends = ["{recipe}"]
name = "{start}_{way}"
[model]
id = "asset:tiny/{start}"
"""
ON_THE_WAY = """[[eval]]
suite = "on_the_way"
path = "asset:tiny/data/heldout.jsonl"
samples = 1
k = [1]
temperature = 1.0
top_p = 1.0
when = ["step"]
every_steps = 3
"""
GOAL = 0.85
MEASURED = ("grpo", "distil")
MICRO_BATCH = 16, 64, 512
"""Rows, prompt tokens, completion tokens."""
TEACHER = ROOT / "docs" / "example_run"


def run_way(start: str, way: str, seed: int, out: Path) -> dict[str, Any]:
    """One run, and what it did."""
    before, began = os.times(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{start}_{way}.toml"
        text = RECIPE.format(recipe=WAYS[way], start=start, way=way)
        file.write_text(text + (ON_THE_WAY if start == "quickstart" else ""))
        command = [sys.executable, "-m", "budgetrl", "run", str(file), "--seed", str(seed)]
        command += ["--set", "schedule.stop_after_steps=unset", "--hours", f"{STARTS[start]}s"]
        command += ["--out", str(out / "runs"), "--display", "none", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s, after = time.monotonic() - began, os.times()
    cpu_s = sum(after[2:4]) - sum(before[2:4])
    row: dict[str, Any] = {"start": start, "way": way, "seed": seed, "exit_code": done.returncode}
    row |= {"wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1), "budget_s": STARTS[start]}
    try:
        result = json.loads(done.stdout)
        events = list(open_run(result["run_dir"]).events())
    except (ValueError, KeyError):
        return row | {"said": (done.stderr or done.stdout).strip()[-500:]}
    suites = {side: (result[side] or {}).get("heldout") for side in ("baseline", "final")}
    suites["difference"] = (result["difference"] or {}).get("heldout")
    row |= {"stop_reason": result["stop_reason"], "train_s": result["spent"]["train_s"]}
    return row | suites | {"updates": _updates(events), "on_the_way": _on_the_way(events)}


def _updates(events: Sequence[Event]) -> dict[str, int]:
    """Of each stage; an extended one counts as one."""
    made: dict[str, int] = {}
    for event in events:
        if isinstance(event, Step):
            name = event.stage or "rl"
            made[name] = made.get(name, 0) + 1
    return made


def _on_the_way(events: Sequence[Event]) -> list[dict[str, float]]:
    """Held-out accuracy by updates and by seconds since the first began, evaluations left out."""
    found, left_out = [], None
    for event in events:
        if isinstance(event, Step) and left_out is None:
            left_out = event.elapsed_s - sum(event.phase_s.values())
        if isinstance(event, Evaluation) and event.suite == "on_the_way" and left_out is not None:
            left_out += event.seconds
            trained_s = round(event.elapsed_s - left_out, 2)
            found.append({"step": event.step, "s": trained_s, "pass@1": event.pass_at[1]})
    return found


def seconds_to(goal: float, row: dict[str, Any]) -> float | None:
    """Training seconds at which a line through the evaluations first meets the goal."""
    points = [(0.0, row["baseline"]["pass_at"]["1"])] if row.get("baseline") else []
    points += [(one["s"], one["pass@1"]) for one in row.get("on_the_way", ())]
    for (before_s, before), (after_s, after) in pairwise(points):
        if before < goal <= after:
            return before_s + (after_s - before_s) * (goal - before) / (after - before)
    return None


def peak_bytes(way: str) -> int:
    """Of one micro-batch, in this process, which has to be new."""
    from bench_engine import Case, Side
    from fit_cpu_plan import random_model

    with tempfile.TemporaryDirectory() as folder:
        model = random_model("wide-vocabulary", Path(folder) / "model")
        side = Side(str(model), distils=way == "distil")
        rows, prompt, completion = MICRO_BATCH
        case = Case("memory", "wide-vocabulary", "memory", rows, prompt, completion)
        return int(side.update(case, folder)["peak"])


def memory() -> dict[str, Any]:
    """Peaks of both ways, each in a process of its own."""
    command = [sys.executable, __file__, "peak"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    peaks = {
        way: int(subprocess.check_output([*command, way], text=True, env=env).split()[-1])
        for way in MEASURED
    }
    rows, prompt, completion = MICRO_BATCH
    return {"rows": rows, "prompt": prompt, "completion": completion, "peak_bytes": peaks}


def table(out: Path) -> dict[str, Any]:
    """All rows of a folder, and what the teacher cost."""
    rows = [json.loads(file.read_text()) for file in out.glob("*_seed*.json")]
    order, ways = list(STARTS), list(WAYS)
    rows.sort(key=lambda row: (order.index(row["start"]), row["seed"], ways.index(row["way"])))
    for row in rows:
        row["goal_s"] = seconds_to(GOAL, row)
    run = open_run(TEACHER)
    taught = result_of(Account(run, read_history(run)))
    teacher = {name: taught["spent"][name] for name in ("wall_s", "train_s")}
    teacher |= {"updates": taught["steps"], "final": taught["final"]["heldout"]}
    made = {"date": datetime.now(UTC).date().isoformat(), "cpu": cpu_model(), "goal": GOAL}
    if (file := out / "memory.json").exists():
        made["memory"] = json.loads(file.read_text())
    return made | {"teacher": teacher, "rows": rows}


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("--start", choices=STARTS, required=True)
    one.add_argument("--way", choices=WAYS, required=True)
    one.add_argument("--seed", type=int, required=True)
    one.add_argument("--out", type=Path, required=True)
    peaks = commands.add_parser("memory")
    peaks.add_argument("--out", type=Path, required=True)
    commands.add_parser("peak").add_argument("way", choices=MEASURED)
    commands.add_parser("table").add_argument("out", type=Path)
    options = parser.parse_args()
    match options.command:
        case "peak":
            print(peak_bytes(options.way))
        case "table":
            print(json.dumps(table(options.out), indent=1))
        case "memory":
            _write(options.out / "memory.json", memory())
        case "run":
            name = f"{options.start}_{options.way}_seed{options.seed}.json"
            if not (options.out / name).exists():
                row = run_way(options.start, options.way, options.seed, options.out)
                _write(options.out / name, row)


def _write(file: Path, found: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
