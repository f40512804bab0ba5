"""Kill a run in three stages at random moments, resume it, and hold it against one left alone.

    python scripts/torture_stages.py --kills 40 --seed 1

The run of tests/training/test_stages.py: SFT, GRPO, GRPO with longer answers, and a gate. Each
attempt is a process of its own that is ended by SIGKILL; it is forked after the imports, which
would otherwise be most of the time. Prints JSON: kills by where they fell, and whether every series
and the last adapter are equal bit for bit.
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

os.environ["OMP_NUM_THREADS"] = "1"  # no threads of torch's before the fork

from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "training"))

import test_stages as harness

from budgetrl.budget import Budget
from budgetrl.history import read_history
from budgetrl.ledger import Ledger
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import RunDir
from budgetrl.training.log import RunLog, stamp_of
from budgetrl.training.loop import train
from budgetrl.training.stopper import Stopper

LAST = 8
"""Updates of the run, all stages together."""


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


def main() -> None:
    """Straight once, then killed until the kills are used up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    where: dict[str, int] = {}
    equal: list[bool] = []
    with tempfile.TemporaryDirectory() as name:
        straight = harness.make(Path(name) / "straight")
        begun = time.monotonic()
        assert ended(attempt(straight), 3600)
        whole_s, kills = time.monotonic() - begun, 0
        wanted = harness.series(straight)
        weights = load_file(straight.checkpoint_path(LAST) / "adapter_model.safetensors")
        while kills < options.kills:
            run = harness.make(Path(name) / f"broken{len(equal)}")
            mine = draw.randint(2, 8)
            while mine and kills < options.kills:
                if ended(attempt(run), draw.uniform(0.1, 0.8) * whole_s):
                    break
                mine, kills = mine - 1, kills + 1
                where[phase_of(run)] = where.get(phase_of(run), 0) + 1
            assert read_history(run).finished or ended(attempt(run), 3600)
            found = load_file(run.checkpoint_path(LAST) / "adapter_model.safetensors")
            same = all(bool((found[key] == value).all()) for key, value in weights.items())
            equal.append(harness.series(run) == wanted and same)
            sys.stderr.write(f"run {len(equal)}: {kills} kills so far, equal: {equal[-1]}\n")
    result = {"kills": kills, "runs": len(equal), "equal": sum(equal), "in_phase": where}
    print(json.dumps(result | {"attempt_s": round(whole_s, 1)}))


if __name__ == "__main__":
    main()
