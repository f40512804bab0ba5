"""Does a warm-up help a cold model? RL alone, warm-up alone, and both, in the same time each.

    python scripts/bench_stages.py run --seed 1 --side both --out DIR    one run of four minutes
    python scripts/bench_stages.py table DIR > docs/stages.json          all of them, for the docs

Every run is the real command in its own process; the sides are recipes that differ in their stages
alone. `rl`: GRPO for the whole time. `warm`: SFT on the worked demonstrations for the whole time.
`brief`: the warm-up of `both` and nothing after it. `both`: recipes/quickstart_warm.toml.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from budgetrl.events import Step
from budgetrl.processor import cpu_model
from budgetrl.rundir import open_run

SIDES = ("rl", "warm", "brief", "both")
HEAD = '[recipe]\nextends = ["quickstart"]\nname = "mute_{side}"\n[model]\nid = "asset:tiny/mute"\n'
RL = '[[stages]]\nname = "rl"\nkind = "grpo"\nshare = 1.0\n'
WARM = """[[stages]]
name = "warm"
kind = "sft"
{length}
data.path = "asset:tiny/data/worked.jsonl"
sft.max_tokens = 128
sft.rows_per_step = 32
sft.micro_batch = 16
"""
STAGES = {
    "rl": RL,
    "warm": WARM.format(length="share = 1.0"),
    "brief": WARM.format(length="steps = 20"),
}


def run_side(side: str, seed: int, out: Path) -> dict[str, Any]:
    """One run, and what it did."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = "quickstart_warm"
        if side != "both":
            file = Path(folder) / f"mute_{side}.toml"
            file.write_text(HEAD.format(side=side) + STAGES[side])
            recipe = str(file)
        command = [sys.executable, "-m", "budgetrl", "run", recipe, "--seed", str(seed)]
        command += ["--out", str(out / "runs"), "--display", "none", "--json"]
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    result = json.loads(done.stdout)
    steps = [event for event in open_run(result["run_dir"]).events() if isinstance(event, Step)]
    stages = dict.fromkeys(step.stage for step in steps)
    return {
        "side": side,
        "seed": seed,
        "wall_s": round(time.monotonic() - start, 1),
        "budget_s": result["budget"]["wall_s"],
        "updates": {name: sum(step.stage == name for step in steps) for name in stages},
        "baseline": result["baseline"]["heldout"],
        "final": result["final"]["heldout"],
        "difference": result["difference"]["heldout"],
    }


def table(out: Path) -> dict[str, Any]:
    """All rows of a folder."""
    rows = [json.loads(file.read_text()) for file in sorted(out.glob("*_seed*.json"))]
    rows.sort(key=lambda row: (SIDES.index(row["side"]), row["seed"]))
    return {"date": datetime.now(UTC).date().isoformat(), "cpu": cpu_model(), "rows": rows}


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("--side", choices=SIDES, required=True)
    one.add_argument("--seed", type=int, required=True)
    one.add_argument("--out", type=Path, required=True)
    commands.add_parser("table").add_argument("out", type=Path)
    options = parser.parse_args()
    if options.command == "table":
        print(json.dumps(table(options.out), indent=1))
        return
    row = run_side(options.side, options.seed, options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{options.side}_seed{options.seed}.json"
    file.write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row["difference"]))


if __name__ == "__main__":
    main()
