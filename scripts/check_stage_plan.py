"""Hold the plan of each stage of a CPU run against its bill: a warm-up, its GRPO, a distillation.

    python scripts/check_stage_plan.py [--seeds 1,2] [--minutes 1.7] [--set KEY=VALUE] [--out FILE]
    python scripts/check_stage_plan.py --runs RUN_DIRECTORY...

Each recipe is run once on what a new machine plans with, and again on what that run has taught it.
`alone` is the plan of an update over the CPU seconds of the worker, for which other work does not
count, at the speed that the processor was planned with: neighbours on it change that by half.
`wall` is the plan that the run began with over the seconds that its updates were billed. --runs
prints the latter of runs that are there already. Of a budget both are per update: a stage that is
faster than planned makes more of them. The rows go to docs/measurements/stage_plans.json.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from check_cpu_plan import child_of, cpu_seconds

from budgetrl.account.bill import stage_rows
from budgetrl.account.run import Account
from budgetrl.files import parse_json, write_json
from budgetrl.history import read_history
from budgetrl.phases import UPDATE_PHASES
from budgetrl.processor import cpu_model, cpu_speed
from budgetrl.rundir import open_run

OUT = Path(__file__).resolve().parents[1] / "docs" / "measurements" / "stage_plans.json"
_LOOK_EVERY_S = 1.0
_SPEED = re.compile(r"\((\d+) GFLOP/s (?:here|a thread)")
"""Of a plan on a new machine."""
RECIPES = ("quickstart_warm", "quickstart_distill")


def of_run(folder: str | Path) -> list[dict[str, Any]]:
    """Each stage of a finished run: its plan and its bill, per update."""
    run = open_run(folder)
    planned = run.read_json("plan.json")
    times = {stage["name"]: stage["times"] for stage in planned["stages"]}
    rows = []
    history = read_history(run)
    for stage in stage_rows(Account(run, history)):
        phases = {name: times[stage.name][f"{name}_s"] for name in UPDATE_PHASES}
        planned_s = sum(phases.values())
        paid = [step.phase_s for step in history.steps if step.stage == stage.name]
        rows.append(
            {
                "stage": stage.name,
                "kind": stage.kind,
                "source": planned["times"]["source"],
                "busy": planned["slow"],
                "updates": stage.steps,
                "planned_s": planned_s,
                "paid_s": stage.paid_s / stage.steps,
                "wall": planned_s / (stage.paid_s / stage.steps),
                "planned_phases_s": phases,
                "paid_phases_s": {
                    name: statistics.fmean(s.get(name, 0.0) for s in paid) for name in phases
                },
            }
        )
    return rows


def run_recipe(
    recipe: str, seed: int, options: Sequence[str], cache: Path, before: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """One real run, watched from outside.

    Args:
        recipe: its name.
        seed: of the run.
        options: more of `budgetrl run`.
        cache: in the place of the user's.
        before: the processor's speed in each stage of the run that taught this plan; in the end,
            in this run.
    """
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "budgetrl", "run", recipe, "--seed", str(seed)]
        command += [*options, "--out", out, "--display", "none", "--json"]
        child = subprocess.Popen(
            command, env=os.environ | {"XDG_CACHE_HOME": str(cache)}, stdout=subprocess.PIPE
        )
        cpu, speeds = _watched(child, Path(out))
        told, _ = child.communicate()
        if child.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {told!r}")
        run_dir = parse_json(told)["run_dir"]
        slow = parse_json((Path(run_dir) / "plan.json").read_text())["slow"]
        for row in of_run(run_dir):
            alone_s = row["planned_s"] / slow if "busy now" in row["source"] else row["planned_s"]
            cpu_s, gflops = statistics.fmean(cpu[row["stage"]]), speeds[row["stage"]]
            here = _SPEED.search(row["source"])
            planned = float(here[1]) if here else before[row["stage"]]
            yield {
                "recipe": recipe,
                "seed": seed,
                **row,
                "alone_s": alone_s,
                "cpu_s": cpu_s,
                "gflops": gflops,
                "gflops_planned": planned,
                "alone": alone_s / cpu_s * planned / gflops,
            }
        before.update(speeds)


def _watched(
    supervisor: "subprocess.Popen[bytes]", out: Path
) -> tuple[Mapping[str, list[float]], dict[str, float]]:
    """By stage: CPU seconds of the worker between two updates, and the processor's mean speed."""
    found: dict[str, list[float]] = {}
    speeds: dict[str, list[float]] = {}
    before: tuple[str, float] | None = None
    seen, looked = 0, 0.0
    while supervisor.poll() is None:
        time.sleep(0.02)
        if before is not None and time.monotonic() - looked > _LOOK_EVERY_S:
            speeds.setdefault(before[0], []).append(cpu_speed(0.03))
            looked = time.monotonic()
        worker, file = child_of(supervisor.pid), next(out.glob("*/events.jsonl"), None)
        if worker is None or file is None:
            continue
        new = file.read_bytes()[seen:]
        whole = new[: new.rfind(b"\n") + 1]
        seen += len(whole)
        steps = [e for line in whole.splitlines() if (e := json.loads(line))["kind"] == "step"]
        if not steps:
            continue
        spent, stage = cpu_seconds(worker), steps[-1]["stage"]
        if before is not None and before[0] == stage:
            each = (spent - before[1]) / len(steps)
            found.setdefault(stage, []).extend([each] * len(steps))
        before = stage, spent
    return found, {stage: statistics.harmonic_mean(each) for stage, each in speeds.items()}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The plan over the CPU seconds, by kind of stage and by what it was planned with."""
    made: dict[str, list[float]] = {}
    for row in rows:
        learnt = "run" if "last finished run" in row["source"] else "new machine"
        made.setdefault(f"{row['kind']}, {learnt}", []).append(row["alone"])
    return {name: statistics.median(ratios) for name, ratios in sorted(made.items())}


def main() -> None:
    """Run, or read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", nargs="+", type=Path, default=[])
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--minutes", default="1.7")
    parser.add_argument("--set", action="append", default=[], help="as of `budgetrl run`")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    for folder in options.runs:
        for row in of_run(folder):
            print(f"{row['wall']:.2f} of the bill: {json.dumps(row)}")
    if options.runs:
        return
    more = ["--hours", f"{options.minutes}m"]
    more += [word for value in options.set for word in ("--set", value)]
    rows: list[dict[str, Any]] = []
    for recipe in options.recipes.split(","):
        with tempfile.TemporaryDirectory() as cache:
            before: dict[str, float] = {}
            for seed in map(int, options.seeds.split(",")):
                for row in run_recipe(recipe, seed, more, Path(cache), before):
                    print(json.dumps(row), file=sys.stderr, flush=True)
                    rows.append(row)
    date = datetime.now(UTC).date().isoformat()
    found = {"date": date, "cpu": cpu_model(), "summary": summary(rows), "rows": rows}
    write_json(options.out, found)
    print(json.dumps(found["summary"], indent=1))


if __name__ == "__main__":
    main()
