"""Kill a run in three stages at random moments, resume it, and hold it against one left alone.

    python scripts/torture_stages.py --kills 40 --seed 1

SFT, GRPO, GRPO with longer answers, a gate between the first two. Each attempt is a process of its
own that is ended by SIGKILL; it is forked after the imports, which would otherwise be most of the
time. Prints JSON: kills by where they fell, and whether every series and the last adapter are equal
bit for bit.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # no threads of torch's before the fork

from safetensors.torch import load_file

from budgetrl.budget import Budget, Ledger, Limits
from budgetrl.history import read_history
from budgetrl.plan import create_run, make_plan
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import RunDir
from budgetrl.training.log import RunLog, stamp_of
from budgetrl.training.loop import train
from budgetrl.training.stopper import Stopper

SAME = ("loss", "grad_norm", "entropy", "tokens", "learning_rate", "reward_mean", "stage")
STEPS = {"warm": 6, "rl": 5, "long": 5}
RECIPE = f"""
[recipe]
extends = ["quickstart"]
name = "three"
[model]
id = "asset:tiny/mute"
[lora]
rank = 8
dropout = 0.1
[batch]
prompts_per_step = 2
micro_batch = 8
[checkpoint]
every_steps = 2
[entropy]
prompts = 0
[[eval]]
suite = "heldout"
path = "short.jsonl"
samples = 1
k = [1]
[[stages]]
name = "warm"
kind = "sft"
steps = {STEPS["warm"]}
data.path = "asset:tiny/data/worked.jsonl"
sft.max_tokens = 128
sft.rows_per_step = 8
sft.micro_batch = 2
gate = {{ signal_share = 0.001, prompts = 4 }}
on_fail = "go_on"
[[stages]]
name = "rl"
kind = "grpo"
steps = {STEPS["rl"]}
sampling.max_tokens = 24
[[stages]]
name = "long"
kind = "grpo"
steps = {STEPS["long"]}
sampling.max_tokens = 40
"""


def make(folder: Path) -> RunDir:
    """A run that has not begun."""
    folder.mkdir(parents=True)
    held = Path(__file__).parents[1] / "budgetrl/assets/tiny/data/heldout.jsonl"
    (folder / "short.jsonl").write_text("".join(held.read_text().splitlines(True)[:8]))
    (folder / "three.toml").write_text(RECIPE)
    return create_run(make_plan(load_recipe(folder / "three.toml"), Limits(36000)), folder, [])


def attempt(run: RunDir) -> int:
    """One attempt in a process of its own: its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        recipe = load_recipe(run.path.parent / "three.toml").recipe
        ledger = Ledger(Budget(36000.0), time.monotonic, time.monotonic())
        number = read_history(run).attempt + 1
        with run.writer(stamp_of(ledger, number)) as writer:
            run.clear_temporary()
            code = train(run, recipe, RunLog(writer, ledger, {}), Stopper()).exit_code
    finally:
        os._exit(code)


def ended(child: int, within_s: float) -> bool:
    """Whether an attempt ended by itself; it is killed after so many seconds."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"an attempt failed with status {status}")
            return True
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def phase_of(run: RunDir) -> str:
    """Where a run was when it was killed."""
    now = read_history(run).phase_now()
    return "between" if now is None else now.name


def series(run: RunDir) -> list[list[Any]]:
    """What has to be equal."""
    return [[getattr(step, name) for name in SAME] for step in read_history(run).steps]


def main() -> None:
    """Straight once, then killed until the kills are used up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw, last = random.Random(options.seed), sum(STEPS.values())
    where: dict[str, int] = {}
    equal: list[bool] = []
    with tempfile.TemporaryDirectory() as name:
        straight = make(Path(name) / "straight")
        begun = time.monotonic()
        assert ended(attempt(straight), 3600)
        whole_s, kills = time.monotonic() - begun, 0
        wanted = series(straight)
        weights = load_file(straight.checkpoint_path(last) / "adapter_model.safetensors")
        while kills < options.kills:
            run = make(Path(name) / f"broken{len(equal)}")
            mine = draw.randint(2, 8)
            while mine and kills < options.kills:
                if ended(attempt(run), draw.uniform(0.1, 0.8) * whole_s):
                    break
                mine, kills = mine - 1, kills + 1
                where[phase_of(run)] = where.get(phase_of(run), 0) + 1
            assert read_history(run).finished or ended(attempt(run), 3600)
            found = load_file(run.checkpoint_path(last) / "adapter_model.safetensors")
            same = all(bool((found[key] == value).all()) for key, value in weights.items())
            equal.append(series(run) == wanted and same)
            sys.stderr.write(f"run {len(equal)}: {kills} kills so far, equal: {equal[-1]}\n")
    result = {"kills": kills, "runs": len(equal), "equal": sum(equal), "in_phase": where}
    print(json.dumps(result | {"attempt_s": round(whole_s, 1)}))


if __name__ == "__main__":
    main()
