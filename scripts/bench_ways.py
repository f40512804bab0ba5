"""Three ways to spend the same seconds: GRPO, a warm-up and GRPO, and distillation.

    python scripts/bench_ways.py run --start cold --way distil --seed 1 --out DIR    one run
    python scripts/bench_ways.py memory --out DIR                                    see below
    python scripts/bench_ways.py table DIR > docs/measurements/ways.json             all of them

Every run is a bundled recipe, trained by the worker's own function from one of three embedded
starts; one that is in DIR already is left as it is. Budget and seconds are CPU seconds of its
process: other work on the machine does not shorten them. From the start `quickstart` accuracy is
measured on the way, too, so that the seconds of updates to an accuracy can be read; the budget pays
for all evaluations. `memory` is the peak of one micro-batch at a vocabulary of 152k over what was
held before it, of GRPO and of a distillation.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from budgetrl.account.result import result_of
from budgetrl.account.run import Account
from budgetrl.budget import Budget, Limits
from budgetrl.errors import BudgetRLError
from budgetrl.history import History, read_history
from budgetrl.ledger import Ledger
from budgetrl.plan import create_run, make_plan
from budgetrl.processor import cpu_model
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import open_run
from budgetrl.training.log import RunLog, stamp_of
from budgetrl.training.stopper import Stopper

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"grpo": "quickstart", "warm": "quickstart_warm", "distil": "quickstart_distill"}
STARTS = ("quickstart", "cold", "mute")
BUDGET_S = 45.0
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
SETS = ("schedule.stop_after_steps=unset", "eval.heldout.samples=2", "eval.heldout.k=[1]")
GOAL = 0.85
MEASURED = ("grpo", "distil")
MICRO_BATCH = 16, 64, 512
"""Rows, prompt tokens, completion tokens."""
TEACHER = ROOT / "docs" / "example_run"


def run_way(start: str, way: str, seed: int, out: Path) -> dict[str, Any]:
    """One run, and what it did."""
    from budgetrl.training.loop import train  # whose imports nobody pays for here

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "way.toml"  # no bundled recipe has that name
        text = RECIPE.format(recipe=WAYS[way], start=start, way=way)
        file.write_text(text + (ON_THE_WAY if start == "quickstart" else ""))
        loaded = load_recipe(str(file), SETS, seed)
        run = create_run(make_plan(loaded, Limits(BUDGET_S)), out / "runs", ["bench_ways"])
    began = time.monotonic()
    ledger = Ledger(Budget(BUDGET_S), time.process_time, time.process_time())
    row: dict[str, Any] = {"start": start, "way": way, "seed": seed}
    with run.writer(stamp_of(ledger, 1)) as writer:
        try:
            train(run, loaded.recipe, RunLog(writer, ledger, {}), Stopper())
        except BudgetRLError as error:
            row["failed"] = error.message
    row |= {"cpu_s": round(ledger.elapsed_s, 1), "wall_s": round(time.monotonic() - began, 1)}
    finished = run.last_finish()
    if finished is None:
        return row
    suites = finished.model_dump(mode="json", include={"baseline", "final", "difference"})
    row |= {side: (found or {}).get("heldout") for side, found in suites.items()}
    history = read_history(run)
    updates = Counter(step.stage or "rl" for step in history.steps)
    row |= {"stop_reason": finished.stop_reason.value, "updates": dict(updates)}
    return row | {"on_the_way": _on_the_way(history)}


def _on_the_way(history: History) -> list[dict[str, float]]:
    """Held-out accuracy by CPU seconds of the updates before it, the final one too."""
    spent = list(accumulate(sum(step.phase_s.values()) for step in history.steps))
    return [
        {"step": one.step, "s": round(spent[one.step - 1], 2), "pass@1": one.pass_at[1]}
        for one in history.evaluations
        if one.step and (one.suite == "on_the_way" or one.when == "final")
    ]


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
    made = {"date": datetime.now(UTC).date().isoformat(), "cpu": cpu_model()}
    made |= {"budget_s": BUDGET_S, "goal": GOAL}
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
