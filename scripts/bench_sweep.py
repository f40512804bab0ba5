"""Sweeps on a real Ray cluster of two nodes on this machine, through the command line.

    scripts/bench_sweep.py PIECE... [--out DIR]

overhead a 3 x 3 x 2 grid of the quickstart: what the cards cost beside the runs themselves
full     the same with short trials
kills    these; two workers and one of the nodes are killed: all trials end as in `full`
budgets  six sweeps with budgets drawn at random: none may end beyond its own
repeats  the quickstart's grid to its end with five seeds, evaluated at the first rung too: which
         trial --asha would have kept of each seed's nine, by its own code, and which was the best
asha     one seed of it with --asha, after `repeats`: whether it keeps those trials, and its cost

Each piece takes minutes on two cores; what was measured is kept in docs/measurements/sweep.json.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from budgetrl.processor import cpu_model
from budgetrl.study.asha import next_trial, rungs_of

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "measurements" / "sweep.json"
SHORT = [
    "schedule.stop_after_steps=20", "batch.prompts_per_step=4", "batch.micro_batch=32",
    "eval.heldout.samples=1", "eval.heldout.k=[1]", "entropy.prompts=0",
]  # fmt: skip
HALF = [
    "batch.prompts_per_step=8", "eval.heldout.samples=1", "eval.heldout.k=[1]", "entropy.prompts=0",
]  # fmt: skip
"""Of the quickstart, so that the whole grid fits eight minutes of two cores."""
REPEATS = 5
RUNGS = rungs_of(60, 9)
JUDGED = [f"eval.heldout.every_steps={RUNGS[0]}", 'eval.heldout.when=["baseline","step","final"]']
GRID = ["lora.rank=8,32,64", "schedule.learning_rate=3e-4,1e-3,3e-3"]
PRICE = 0.5


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """A head that runs no trials, and nodes of one core; each can be killed alone."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 100 << 20}
    head = {"num_cpus": 0, "include_dashboard": False, **store}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    added = [nodes.add_node(num_cpus=1, **store) for _ in range(workers)]
    try:
        yield nodes, added
    finally:
        nodes.shutdown()


def sweep(
    address: str, out: Path, sets: list[str], *flags: str, grid: list[str] = GRID
) -> subprocess.Popen[str]:
    """The command, started."""
    command = [sys.executable, "-m", "budgetrl", "sweep", "quickstart", "--json", "--on", address]
    command += [word for text in grid for word in ("--grid", text)]
    command += [word for text in sets for word in ("--set", text)]
    command += ["--price", str(PRICE), "--out", str(out), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def outcome(running: subprocess.Popen[str]) -> dict[str, Any]:
    """What it printed."""
    text, _ = running.communicate()
    document: dict[str, Any] = json.loads(text)
    return document | {"exit_code": running.returncode}


def table(document: dict[str, Any]) -> list[Any]:
    """What the trials came out with, whatever they cost."""
    return [
        [t["values"], t["seed"], t["status"], t["steps"], t["final"]] for t in document["trials"]
    ]


def overhead(out: Path, name: str = "overhead", sets: list[str] | None = None) -> dict[str, Any]:
    """What a sweep without faults costs beside its runs."""
    with cluster(2) as (nodes, _):
        started = time.monotonic()
        running = sweep(nodes.address, out / name, sets or [], "--seeds", "2", "--hours", "60m")
        document = outcome(running)
        wall_s = time.monotonic() - started
    (out / f"{name}.json").write_text(json.dumps(document))
    runs_s = sum(trial["spent"]["wall_s"] for trial in document["trials"])
    return {
        "trials": len(document["trials"]),
        "finished": sum(trial["status"] == "finished" for trial in document["trials"]),
        "wall_s": wall_s,
        "paid_s": document["spent"]["wall_s"],
        "runs_s": runs_s,
        "overhead": document["spent"]["wall_s"] / runs_s - 1,
    }


def kills(out: Path) -> dict[str, Any]:
    """The same with two workers and a node killed."""
    whole = json.loads((out / "full.json").read_text())
    count, killed = len(whole["trials"]), []
    with cluster(2) as (nodes, added):
        running = sweep(nodes.address, out / "kills", SHORT, "--seeds", "2", "--hours", "30m")
        for number, ended in enumerate((count // 6, 2 * count // 5)):
            wait_for(running, out / "kills", ended)
            found: list[int] = []
            while not found and running.poll() is None:
                found = trial_processes()
            os.kill(random.Random(number).choice(found), signal.SIGKILL)
            killed.append("worker")
        wait_for(running, out / "kills", 3 * count // 5)
        nodes.remove_node(added[1], allow_graceful=False)
        killed.append("node")
        document = outcome(running)
    (out / "kills.json").write_text(json.dumps(document))
    return {
        "killed": killed,
        "trials": count,
        "finished": sum(trial["status"] == "finished" for trial in document["trials"]),
        "run_directories": sum(1 for _ in (out / "kills").glob("*/recipe.resolved.json")),
        "attempts": sum(attempts(Path(t["run_dir"])) for t in document["trials"] if t["run_dir"]),
        "same_table": table(document) == table(whole),
        "differing": sum(a != b for a, b in zip(table(document), table(whole), strict=True)),
        "same_best": document["best"]["values"] == whole["best"]["values"],
        "paid_s": document["spent"]["wall_s"],
        "budget_s": document["budget"]["wall_s"],
    }


def attempts(run: Path) -> int:
    """How often a run was begun or gone on with."""
    lines = (run / "events.jsonl").read_text().splitlines()
    return sum(json.loads(line)["kind"] in ("run_started", "run_resumed") for line in lines)


def wait_for(running: subprocess.Popen[str], folder: Path, ended: int) -> None:
    """Until so many trials have ended and another one trains."""
    while running.poll() is None:
        if len(list(folder.glob("*/result.json"))) >= ended and trial_processes():
            time.sleep(2.0)
            return
        time.sleep(0.2)


def trial_processes() -> list[int]:
    """Workers of this script's own cluster that run trials."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
            if title.startswith(b"ray::TrialActor"):
                raylet = parent(int(entry.name))
                found += [int(entry.name)] if parent(raylet) == os.getpid() else []
        except OSError:
            continue
    return found


def parent(pid: int) -> int:
    """Of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def budgets(out: Path) -> list[dict[str, Any]]:
    """Six budgets, drawn evenly between what hardly fits and more than enough."""
    generator, found = random.Random(6), []
    with cluster(2) as (nodes, _):
        for number in range(6):
            budget_s = generator.uniform(100.0, 300.0)
            started = time.monotonic()
            running = sweep(
                nodes.address, out / f"budget_{number}", SHORT, "--hours", f"{budget_s:.1f}s",
                grid=["lora.rank=8,32", "schedule.learning_rate=3e-4,1e-3"],
            )  # fmt: skip
            document = outcome(running)
            wall_s = time.monotonic() - started
            row = {"budget_s": budget_s, "exit_code": document["exit_code"], "wall_s": wall_s}
            if "trials" in document:
                statuses = [trial["status"] for trial in document["trials"]]
                row |= {
                    "paid_s": document["spent"]["wall_s"],
                    "over": document["spent"]["wall_s"] > budget_s or 2 * wall_s > budget_s,
                    "finished": statuses.count("finished"),
                    "steps": [trial["steps"] for trial in document["trials"]],
                }
            found.append(row)
    return found


def repeats(out: Path) -> list[dict[str, Any]]:
    """Each seed of the quickstart's grid by itself: what successive halving would have chosen."""
    with cluster(2) as (nodes, _):
        running = sweep(
            nodes.address, out / "grid", [*HALF, *JUDGED], "--seeds", str(REPEATS),
            "--hours", "90m",
        )  # fmt: skip
        document = outcome(running)
    (out / "grid.json").write_text(json.dumps(document))
    return [replayed(seed, grid_of(document, seed)) for seed in range(1, REPEATS + 1)]


def grid_of(document: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Trials of a seed: values, pass@1 after RUNGS, seconds without the evaluation between."""
    rows = []
    for trial in document["trials"]:
        if trial["seed"] == seed:
            lines = (Path(trial["run_dir"]) / "events.jsonl").read_text().splitlines()
            told = [event for event in map(json.loads, lines) if event["kind"] == "evaluation"]
            between = [event for event in told if event["when"] == "step"]
            # One that collapsed has stopped by itself, and is judged by its end.
            scores = dict.fromkeys(RUNGS, trial["final"]["heldout"]["pass_at"]["1"])
            scores |= {e["step"]: e["pass_at"]["1"] for e in between if e["step"] in RUNGS}
            rows.append(
                {
                    "values": trial["values"],
                    "scores": scores,
                    "wall_s": trial["spent"]["wall_s"] - sum(e["seconds"] for e in between),
                }
            )
    return rows


def replayed(seed: int, grid: list[dict[str, Any]]) -> dict[str, Any]:
    """The rule of --asha over what all trials came out with."""
    scores: list[dict[int, float]] = [{} for _ in grid]
    while (chosen := next_trial(scores, RUNGS, {})) is not None:
        index, rung = chosen
        scores[index][rung] = grid[index]["scores"][rung]
    kept = [index for index, found in enumerate(scores) if RUNGS[-1] in found]
    finals = [row["scores"][RUNGS[-1]] for row in grid]
    best = max(kept, key=finals.__getitem__)
    return {
        "seed": seed,
        "kept": [grid[index]["values"] for index in kept],
        "found": finals[best] == max(finals),
        "best": max(finals),
        "found_best": finals[best],
        "grid": grid,
    }


def asha(out: Path) -> dict[str, Any]:
    """One seed by --asha, beside the same of `repeats`."""
    grid = grid_of(json.loads((out / "grid.json").read_text()), 1)
    with cluster(2) as (nodes, _):
        running = sweep(
            nodes.address, out / "asha", HALF, "--seeds", "1", "--hours", "60m", "--asha"
        )
        document = outcome(running)
    trials = document["trials"]
    whole = [trial["values"] for trial in trials if trial["steps"] == RUNGS[-1]]
    return {
        "rungs": document["rungs"],
        "updates": sum(trial["steps"] for trial in trials) / (RUNGS[-1] * len(trials)),
        "runs_s": sum(trial["spent"]["wall_s"] for trial in trials),
        "grid_s": sum(row["wall_s"] for row in grid),
        "as_replayed": whole == replayed(1, grid)["kept"],
        "trials": [
            {key: trial[key] for key in ("values", "steps", "final", "scores", "spent")}
            for trial in trials
        ],
    }


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "pieces", nargs="+", choices=["overhead", "full", "kills", "budgets", "repeats", "asha"]
    )
    parser.add_argument("--out", type=Path, default=Path("bench_sweep"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    measured = {
        "overhead": overhead,
        "full": lambda out: overhead(out, "full", SHORT),
        "kills": kills,
        "budgets": budgets,
        "repeats": repeats,
        "asha": asha,
    }
    for piece in options.pieces:
        kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
        found = {
            "date": time.strftime("%Y-%m-%d"),
            "cpu": cpu_model(),
            "found": measured[piece](options.out),
        }
        KEPT.write_text(json.dumps(kept | {piece: found}, indent=1) + "\n")
        print(json.dumps({piece: found["found"]})[:2000])


if __name__ == "__main__":
    main()
