"""Runs made ill and healthy ones, recorded for the rules that judge them.

    python scripts/diagnosis_runs.py make --out FOLDER [--minutes 8]    makes what is missing
    python scripts/diagnosis_runs.py record --out FOLDER       adds them to docs/measurements/...

Each is a real run of the quickstart, 24 updates of 64 completions, labelled by how it was made.
They come in pairs, an ill and a healthy one. The last of the sets with seeds of their own (JUDGING)
judges the rules (scripts/check_alarms.py); the others are for tuning.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from budgetrl.budget import Limits
from budgetrl.diagnosis.groups import Group, group_facts
from budgetrl.diagnosis.story import tell
from budgetrl.files import read_jsonl
from budgetrl.history import read_history
from budgetrl.plan import create_run, make_plan
from budgetrl.recipe.assets import asset_root
from budgetrl.recipe.load import load_recipe
from budgetrl.run_files import read_recipe
from budgetrl.rundir import RunDir, open_run
from budgetrl.training.attempt import Attempt
from budgetrl.training.stopper import Stopper
from budgetrl.types import Verdict

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "docs" / "measurements" / "diagnosis.json.gz"
HOUR_S = 3600.0
"""A budget that ends nothing: runs end by their updates, however busy the machine is."""
UPDATES = 24
EVERY = 4
"""Updates between two evaluations on held-out problems."""
LENGTH_REWARD = '''
def longer(*, completion, gold, num_tokens, verdict, **_):
    """Pays for tokens, as a reward for "effort" does."""
    return min(1.0, num_tokens / 64)
'''
JUDGING = (100, 200, 300, 400)
"""First numbers of runs that judge, and what their seeds have more than the same runs for tuning.

The last of them judges. When the rules were changed after those before it had judged, these began
to tune, and the next was made.
"""
STALE_AFTER = 6
"""Updates after which a pretended sampler has no newer adapter."""


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


def all_runs() -> dict[int, Made]:
    """By number: those for tuning, and of each kind those that judge."""
    ill, healthy = _ill(), _healthy()
    kinds = list({made.name: made for made in reversed(ill)}.values())[::-1]  # the first of each
    runs = dict(enumerate(_in_turn(ill, healthy)))
    for first in JUDGING:
        mixed = [replace(made, seed=made.seed + first) for made in _in_turn(kinds, healthy)]
        runs |= dict(enumerate(mixed, first))
    return runs


def _in_turn(ill: list[Made], healthy: list[Made]) -> list[Made]:
    """Ill and healthy ones in turn, so that a part of them is a fair part."""
    mixed = [one for pair in zip(ill, healthy, strict=False) for one in pair]
    return mixed + ill[len(healthy) :] + healthy[len(ill) :]


def make(made: Made, number: int, out: Path) -> None:
    """One run, unless it is there: the worker's own function, in this process."""
    from budgetrl.training.__main__ import _train

    folder = out / f"{number:02d}"
    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "pays_length.py").write_text(LENGTH_REWARD)
    (folder / "recipe.toml").write_text(_recipe(made, folder))
    os.chdir(folder)  # where a reward of one's own is looked for
    sets = [f"{key}={json.dumps(value)}" for key, value in made.sets.items()]
    loaded = load_recipe(str(folder / "recipe.toml"), sets, made.seed)
    run = create_run(make_plan(loaded, Limits(HOUR_S)), folder, ["diagnosis_runs"])
    attempt = Attempt.first(run, time.monotonic(), allow_code=True)
    started = time.process_time()
    with stale_sampler() if made.stale else nullcontext():
        code = _train(run, attempt, Stopper())
    cpu_s = time.process_time() - started
    sys.stderr.write(f"{number} {made.name}: exit {code}, {cpu_s:.0f} CPU s\n")
    if code == 0:
        (folder / "done").touch()


@contextmanager
def stale_sampler() -> Iterator[None]:
    """Pretends a sampler that gets no newer adapter after a few updates."""
    from budgetrl.engine.plain import PlainEngine

    own, kept, drawn = PlainEngine.rollout, {}, [0]

    def rollout(engine: Any, *arguments: Any) -> Any:
        drawn[0] += 1
        adapter = [p for p in engine.model.parameters() if p.requires_grad]
        if drawn[0] <= STALE_AFTER:
            kept.update({i: p.data.clone() for i, p in enumerate(adapter)})
        newest = [p.data for p in adapter]
        for i, parameter in enumerate(adapter):
            parameter.data = kept[i]
        try:
            return own(engine, *arguments)
        finally:
            for parameter, data in zip(adapter, newest, strict=True):
                parameter.data = data

    PlainEngine.rollout = rollout  # type: ignore[method-assign]
    try:
        yield
    finally:
        PlainEngine.rollout = own  # type: ignore[method-assign]


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
[batch]
prompts_per_step = 8
[signal]
on_empty = "continue"
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
    found = [path for path in folder.iterdir() if (path / "events.jsonl").exists()]
    if not found or not (folder / "done").exists():
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
    levels = _levels()
    facts = group_facts(
        [
            Group(
                [Verdict(row["verdict"]) for row in group],
                [row["extracted"] for row in group],
                group[0]["answer"],
                levels[group[0]["problem_id"]],
            )
            for group in groups
        ]
    )
    means = {n: fmean(row["components"][n] or 0.0 for row in rows) for n in rows[0]["components"]}
    return facts | {"rewards": means}


@cache
def _levels() -> dict[str, str]:
    rows = read_jsonl(asset_root() / "tiny" / "data" / "train_easy.jsonl")
    return {row["id"]: str(row["level"]) for row in rows}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def _with_earlier(new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is recorded already, of other numbers, and the new ones."""
    numbers = {run["number"] for run in new}
    earlier = json.loads(gzip.decompress(RECORDED.read_bytes()))
    kept = [run for run in earlier if run["number"] not in numbers]
    return [run | {"tuning": run["number"] < JUDGING[-1]} for run in (*kept, *new)]


def main() -> int:
    """Make or record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["make", "record", "list"])
    parser.add_argument("--out", type=Path, default=Path("diagnosis"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", type=int, nargs="*")
    options = parser.parse_args()
    options.out = options.out.resolve()  # a run is made in a folder of its own
    ends = time.monotonic() + 60 * options.minutes
    recorded: list[dict[str, Any]] = []
    for number, made in all_runs().items():
        if options.what == "list":
            sys.stdout.write(f"{number:2d} {made}\n")
        elif options.what == "make" and (not options.only or number in options.only):
            if time.monotonic() > ends:
                break
            make(made, number, options.out)
        elif options.what == "record":
            folder = options.out / f"{number:02d}"
            recorded += filter(None, [record(made, number, folder)] if folder.is_dir() else [])
    if options.what == "record":
        recorded = _with_earlier(recorded)
        # No time in it: the same recordings are the same bytes.
        data = json.dumps(_rounded(recorded), separators=(",", ":")).encode()
        RECORDED.write_bytes(gzip.compress(data, mtime=0))
        sys.stderr.write(f"{len(recorded)} runs, {RECORDED.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
