"""Sweeps on a real Ray cluster of two nodes on this machine, through the command line.

    scripts/bench_sweep.py PIECE... [--out DIR]

overhead a 3 x 3 x 2 grid of the quickstart: what the cards cost beside the runs themselves
full     the same with short trials
kills    these; two workers and one of the nodes are killed: all trials end as in `full`
budgets  six sweeps with budgets drawn at random: none may end beyond its own
asha     the grid of `overhead`, after it, with --asha: which trial it keeps, and its cost

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

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "measurements" / "sweep.json"
SHORT = [
    "schedule.stop_after_steps=20", "batch.prompts_per_step=4", "batch.micro_batch=32",
    "eval.heldout.samples=1", "eval.heldout.k=[1]", "entropy.prompts=0",
]  # fmt: skip
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


def asha(out: Path) -> dict[str, Any]:
    """The grid of `overhead` with --asha: which trial it keeps, and its cost."""
    whole = json.loads((out / "overhead.json").read_text())["trials"]
    with cluster(2) as (nodes, _):
        running = sweep(nodes.address, out / "asha", [], "--seeds", "2", "--hours", "60m", "--asha")
        document = outcome(running)
    (out / "asha.json").write_text(json.dumps(document))
    trials, last = document["trials"], document["rungs"][-1]
    kept = max((one for one in trials if one["steps"] == last), key=final)
    best = max(whole, key=final)
    return {
        "rungs": document["rungs"],
        "updates": sum(one["steps"] for one in trials) / sum(one["steps"] for one in whole),
        "runs_s": sum(one["spent"]["wall_s"] for one in trials),
        "whole_s": sum(one["spent"]["wall_s"] for one in whole),
        "kept": [kept["values"], kept["seed"], final(kept)],
        "best": [best["values"], best["seed"], final(best)],
        "place": sorted(map(final, whole), reverse=True).index(final(kept)) + 1,
        "trials": [
            {key: one[key] for key in ("values", "seed", "steps", "final", "scores", "spent")}
            for one in trials
        ],
    }


def final(trial: dict[str, Any]) -> float:
    """Its pass@1 at the end."""
    return float(trial["final"]["heldout"]["pass_at"]["1"])


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "pieces", nargs="+", choices=["overhead", "full", "kills", "budgets", "asha"]
    )
    parser.add_argument("--out", type=Path, default=Path("bench_sweep"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    measured = {
        "overhead": overhead,
        "full": lambda out: overhead(out, "full", SHORT),
        "kills": kills,
        "budgets": budgets,
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
