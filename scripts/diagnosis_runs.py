"""Runs made ill and healthy ones, recorded for the rules that judge them.

    python scripts/diagnosis_runs.py make --out FOLDER [--minutes 8]    makes what is missing
    python scripts/diagnosis_runs.py record --out FOLDER                -> docs/measurements/...

Each is a real run of the quickstart, 28 updates or a few more, labelled by how it was made. They
come in pairs, an ill and a healthy one; every other pair is for tuning, the rest for judging
(scripts/check_alarms.py).
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from budgetrl.diagnosis.groups import Group, group_facts
from budgetrl.diagnosis.story import tell
from budgetrl.documents import read_recipe
from budgetrl.files import read_jsonl
from budgetrl.history import read_history
from budgetrl.recipe.assets import asset_root
from budgetrl.rundir import RunDir, open_run
from budgetrl.types import Verdict

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "docs" / "measurements" / "diagnosis.json.gz"
BUDGET_S = 200
"""A guard: on a quiet core a run takes some 75 seconds."""
UPDATES = 28
EVERY = 4
"""Updates between two evaluations on held-out problems."""
LENGTH_REWARD = '''
def longer(*, completion, gold, num_tokens, verdict, **_):
    """Pays for tokens, as a reward for "effort" does."""
    return min(1.0, num_tokens / 64)
'''
STALE = '''
"""Pretends a sampler whose adapter is never renewed after update 8."""
import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec


class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "budgetrl.engine.plain":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            engine = module.PlainEngine
            rollout, kept, count = engine.rollout, {}, [0]

            def stale(self, *arguments):
                count[0] += 1
                own = {n: p.data for n, p in self.model.named_parameters() if p.requires_grad}
                if count[0] <= 8:
                    kept.update({n: d.clone() for n, d in own.items()})
                for name, parameter in self.model.named_parameters():
                    if name in kept:
                        parameter.data = kept[name]
                try:
                    return rollout(self, *arguments)
                finally:
                    for name, parameter in self.model.named_parameters():
                        if name in own:
                            parameter.data = own[name]

            engine.rollout = stale

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
'''


@dataclass(frozen=True)
class Made:
    """One run and how it is made."""

    name: str
    seed: int
    ill: bool
    sets: dict[str, Any] = field(default_factory=dict)
    """Recipe keys."""
    golds: float = 0.0
    """Share of training problems with the answer of another one."""
    rewards: str = ""
    """[[rewards]] tables."""
    stale: bool = False


def _ill() -> list[Made]:
    def at(rate: float, scale: float) -> dict[str, Any]:
        return {"schedule.learning_rate": 1e-3 * rate, "lora.alpha": 64 * scale}

    specialist = {"model.id": "asset:tiny/specialist"}
    form = _rewards(accuracy=0.0, format=1.0)
    length = _rewards(accuracy=0.2, format=0.0, **{"pays_length:longer": 1.0})
    return [
        Made("rate x4", 12, True, at(4, 1)),
        Made("rate x2, scale x2", 15, True, at(2, 2)),
        Made("golds 30 %", 20, True, golds=0.3),
        Made("golds 30 %", 21, True, golds=0.3),
        Made("scale x4", 14, True, at(1, 4)),
        Made("rate x4, scale x4", 16, True, at(4, 4)),
        Made("specialist", 17, True, specialist),
        Made("specialist, rank 8", 18, True, specialist | {"lora.rank": 8, "lora.alpha": 8}),
        Made("format only", 22, True, rewards=form),
        Made("format only", 27, True, rewards=form),
        Made("pays length", 23, True, rewards=length),
        Made("pays length", 28, True, rewards=length),
        Made("limit 16", 24, True, {"sampling.max_tokens": 16}),
        Made("limit 20", 29, True, {"sampling.max_tokens": 20}),
        Made("stale adapter", 25, True, stale=True),
        Made("stale adapter", 30, True, stale=True),
        Made("golds 10 %", 19, True, golds=0.1),
        Made("golds 10 %", 33, True, golds=0.1),
        Made("rate x2", 11, True, at(2, 1)),
        Made("scale x2", 13, True, at(1, 2)),
        Made("rate x4, scale x2", 26, True, at(4, 2)),
        Made("rate x2, scale x4", 34, True, at(2, 4)),
    ]


def _rewards(**weights: float) -> str:
    return "".join(f'[[rewards]]\nname = "{n}"\nweight = {w}\n' for n, w in weights.items())


def _healthy() -> list[Made]:
    def rank(of: int) -> dict[str, Any]:
        return {"lora.rank": of, "lora.alpha": of}

    cold = {"model.id": "asset:tiny/cold"}
    return [
        *(Made("quickstart", seed, False) for seed in range(41, 49)),
        *(Made("rank 8", seed, False, rank(8)) for seed in (51, 52)),
        *(Made("rank 16", seed, False, rank(16)) for seed in (53, 54)),
        *(Made("rank 128", seed, False, rank(128)) for seed in (55, 56)),
        *(Made("cold", seed, False, cold) for seed in range(61, 65)),
        *(Made("cold, rank 8", seed, False, cold | rank(8)) for seed in (65, 66)),
    ]


def all_runs() -> list[Made]:
    """Ill and healthy ones in turn, so that a part of them is a fair part."""
    ill, healthy = _ill(), _healthy()
    mixed = [one for pair in zip(ill, healthy, strict=False) for one in pair]
    return mixed + ill[len(healthy) :] + healthy[len(ill) :]


def make(made: Made, number: int, out: Path) -> None:
    """One run, unless it is there."""
    folder = out / f"{number:02d}"
    if (folder / "done.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pays_length.py").write_text(LENGTH_REWARD)
    (folder / "recipe.toml").write_text(_recipe(made, folder))
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    if made.stale:
        (folder / "sitecustomize.py").write_text(STALE)
    command = [sys.executable, "-m", "budgetrl", "run", str(folder / "recipe.toml"), "--allow-code"]
    command += ["--out", str(folder), "--display", "none", "--json", "--seed", str(made.seed)]
    command += [f"--set={key}={json.dumps(value)}" for key, value in made.sets.items()]
    started = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=os.getcwd()
    )
    wall_s = time.monotonic() - started
    sys.stderr.write(f"{number} {made.name}: exit {done.returncode}, {wall_s:.0f} s\n")
    if done.returncode != 0:
        sys.stderr.write(done.stderr[-2000:])
        return
    (folder / "done.json").write_text(done.stdout)


def _recipe(made: Made, folder: Path) -> str:
    data = "asset:tiny/data/train_easy.jsonl"
    if made.golds:
        rows = list(read_jsonl(asset_root() / "tiny" / "data" / "train_easy.jsonl"))
        generator = random.Random(made.seed)
        chosen = set(generator.sample(range(len(rows)), round(made.golds * len(rows))))
        answers = [row["answer"] for row in rows]
        for place in chosen:
            rows[place]["answer"] = generator.choice(answers)
        data = str(folder / "train.jsonl")
        Path(data).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"""
[recipe]
extends = ["{ROOT / "recipes" / "quickstart.toml"}"]
name = "{made.name.replace(" ", "-").replace(",", "").replace("%", "percent")}"
{made.rewards}
[data]
path = "{data}"
[schedule]
stop_after_steps = {UPDATES}
[signal]
on_empty = "continue"
[budget]
hours = {BUDGET_S / 3600}
[[eval]]
suite = "heldout"
path = "asset:tiny/data/heldout.jsonl"
samples = 1
k = [1]
max_tokens = 64
temperature = 1.0
top_p = 1.0
when = ["baseline", "step", "final"]
every_steps = {EVERY}
[entropy]
prompts = 0
"""


STEP_FIELDS = (
    *("step", "accuracy_mean", "reward_mean", "reward_std", "completion_tokens_mean", "entropy"),
    *("truncated_share", "grad_norm", "groups", "groups_with_signal", "sampling_logp_diff_mean"),
    *("elapsed_s", "clip_share"),
)


def record(made: Made, number: int, folder: Path) -> dict[str, Any] | None:
    """What the rules look at, of one run; None where it was not made."""
    found = [path for path in folder.iterdir() if (path / "result.json").exists()]
    if not found:
        return None
    run = open_run(found[0])
    story = tell(read_history(run), read_recipe(run))
    steps = [
        {name: getattr(step, name, None) for name in STEP_FIELDS} | _completions(run, step.step)
        for step in story.steps
    ]
    return {
        "number": number,
        "name": made.name,
        "seed": made.seed,
        "ill": made.ill,
        "tuning": number // 2 % 2 == 0,
        "planned": story.planned,
        "weights": dict(story.weights),
        "max_tokens": story.max_tokens,
        "learning_rate": story.learning_rate,
        "held": [[one.step, one.accuracy, one.error] for one in story.held],
        "steps": steps,
    }


def _completions(run: RunDir, step: int) -> dict[str, Any]:
    """What an update's completions add to its event."""
    rows = list(read_jsonl(run.completions_file(step)))
    groups = [rows[i : i + 8] for i in range(0, len(rows), 8)]
    facts = group_facts(
        [
            Group(
                [Verdict(row["verdict"]) for row in group],
                [row["extracted"] for row in group],
                group[0]["answer"],
            )
            for group in groups
        ]
    )
    means = {n: fmean(row["components"][n] or 0.0 for row in rows) for n in rows[0]["components"]}
    return facts | {"rewards": means}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def main() -> int:
    """Make or record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["make", "record", "list"])
    parser.add_argument("--out", type=Path, default=Path("diagnosis"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", type=int, nargs="*")
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes - BUDGET_S
    recorded: list[dict[str, Any]] = []
    for number, made in enumerate(all_runs()):
        if options.what == "list":
            sys.stdout.write(f"{number:2d} {made}\n")
        elif options.what == "make" and (not options.only or number in options.only):
            if time.monotonic() > ends:
                break
            make(made, number, options.out.resolve())
        elif options.what == "record" and (options.out / f"{number:02d}").is_dir():
            recorded += filter(None, [record(made, number, options.out / f"{number:02d}")])
    if options.what == "record":
        # No time in it: the same recordings are the same bytes.
        data = json.dumps(_rounded(recorded), separators=(",", ":")).encode()
        RECORDED.write_bytes(gzip.compress(data, mtime=0))
        sys.stderr.write(f"{len(recorded)} runs, {RECORDED.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
