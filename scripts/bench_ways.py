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
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil

from budgetrl.account.result import result_of
from budgetrl.account.run import Account
from budgetrl.events import Evaluation, Event, Step
from budgetrl.history import read_history
from budgetrl.processor import cpu_model
from budgetrl.rundir import open_run

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"grpo": "quickstart", "warm": "quickstart_warm", "distil": "quickstart_distill"}
STARTS = {"quickstart": 180, "cold": 100, "mute": 100}
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


class CpuClock(threading.Thread):
    """CPU seconds that a process and all below it had used by a Unix time."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._times, self._used = [time.time()], [0.0]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Look twice a second."""
        while not self._over.wait(0.5):
            used = 0.0
            with suppress(psutil.Error):  # one of them has just ended
                # Those that ended are in their parents' times.
                below = self._root.children(recursive=True)
                used = sum(sum(one.cpu_times()[:4]) for one in (self._root, *below))
            if used >= self._used[-1]:
                self._times.append(time.time())
                self._used.append(used)

    def at(self, t: float) -> float:
        """Between two looks: a straight line."""
        return float(np.interp(t, self._times, self._used))


def run_way(start: str, way: str, seed: int, out: Path) -> dict[str, Any]:
    """One run, and what it did."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{start}_{way}.toml"
        text = RECIPE.format(recipe=WAYS[way], start=start, way=way)
        file.write_text(text + (ON_THE_WAY if start == "quickstart" else ""))
        command = [sys.executable, "-m", "budgetrl", "run", str(file), "--seed", str(seed)]
        command += ["--set", "schedule.stop_after_steps=unset", "--hours", f"{STARTS[start]}s"]
        command += ["--out", str(out / "runs"), "--display", "none", "--json"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with CpuClock(process.pid) as clock:
            printed, errors = process.communicate()
    row: dict[str, Any] = {"start": start, "way": way, "seed": seed, "budget_s": STARTS[start]}
    row |= {"exit_code": process.returncode, "wall_s": round(time.monotonic() - began, 1)}
    row["cpu_s"] = round(clock.at(time.time()), 1)
    try:
        result = json.loads(printed)
        events = list(open_run(result["run_dir"]).events())
    except (ValueError, KeyError):
        return row | {"said": (errors or printed).strip()[-500:]}
    suites = {side: (result[side] or {}).get("heldout") for side in ("baseline", "final")}
    suites["difference"] = (result["difference"] or {}).get("heldout")
    row |= {"stop_reason": result["stop_reason"], "train_s": result["spent"]["train_s"]}
    return row | suites | {"updates": _updates(events), "on_the_way": _on_the_way(events, clock)}


def _updates(events: Sequence[Event]) -> dict[str, int]:
    """Of each stage; an extended one counts as one."""
    made: dict[str, int] = {}
    for event in events:
        if isinstance(event, Step):
            name = event.stage or "rl"
            made[name] = made.get(name, 0) + 1
    return made


def _on_the_way(events: Sequence[Event], clock: CpuClock) -> list[dict[str, float]]:
    """Held-out accuracy by seconds since the first update began, evaluations left out.

    `s` by the wall, `cpu_s` of all the run's processes, which other work does not lengthen.
    """
    found: list[dict[str, float]] = []
    wall = cpu = 0.0
    for event in events:
        if isinstance(event, Step) and not wall:
            wall = event.t - sum(event.phase_s.values())
            cpu = clock.at(wall)
        if isinstance(event, Evaluation) and event.suite == "on_the_way":
            began = event.t - event.seconds
            seconds = {"s": round(began - wall, 2), "cpu_s": round(clock.at(began) - cpu, 2)}
            found.append({"step": event.step} | seconds | {"pass@1": event.pass_at[1]})
            wall += event.seconds
            cpu += clock.at(event.t) - clock.at(began)
    return found


def seconds_to(goal: float, row: dict[str, Any], unit: str) -> float | None:
    """Training seconds at which a line through the evaluations first meets the goal."""
    points = [(0.0, row["baseline"]["pass_at"]["1"])] if row.get("baseline") else []
    points += [(one[unit], one["pass@1"]) for one in row.get("on_the_way", ())]
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
        row["goal_s"] = {unit: seconds_to(GOAL, row, unit) for unit in ("s", "cpu_s")}
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
