"""Measure what generation and updates take on this CPU, and fit the estimator's CPU constants.

    python scripts/fit_cpu_plan.py --measure rows.jsonl [--threads 2] [--model NAME=FOLDER]...
    python scripts/fit_cpu_plan.py rows.jsonl [--write]
    python scripts/fit_cpu_plan.py --bundle 1,2,3

Measured are the engine's own rollouts and the trainer's own forward and backward passes, of the
quickstart's model and of random models, in CPU seconds on one thread (other work on the machine
does not count), in wall seconds on more. Non-negative least squares of relative errors, each
constant held a little to what it was; --write puts them into budgetrl/assets/cpu_estimator.json,
and the factors of the profile that ships over them: what it measured in seconds stays. --bundle
runs the quickstart with these seeds and makes that profile anew.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import harmonic_mean, median
from typing import Any

import numpy as np
import torch
import transformers
from make_random_model import config_of, write_tokenizer

from budgetrl.budget import Budget
from budgetrl.engine.base import SamplingSpec
from budgetrl.engine.plain import PlainEngine
from budgetrl.engine.tested import installed_versions
from budgetrl.estimation.adapters import Adapter
from budgetrl.estimation.cpu_phases import cpu_scenario, predict, read_prompts
from budgetrl.estimation.cpu_profile import BUNDLED, SCHEMA_VERSION, bundled_profile
from budgetrl.estimation.cpu_time import (
    ASSET,
    Batch,
    Machine,
    Passes,
    cpu_constants,
    forget,
    formulas,
    generation,
    reference,
    training,
)
from budgetrl.estimation.machine import this_cpu
from budgetrl.estimation.shapes import ModelShape, find_shape
from budgetrl.files import read_jsonl, write_json
from budgetrl.ledger import Ledger
from budgetrl.processor import cpu_model, cpu_speed
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.rewards.pool import GradingPool
from budgetrl.rundir import RunDir
from budgetrl.training.log import RunLog, stamp_of
from budgetrl.training.preflight import longest_passes
from budgetrl.training.setup import build_follower, prepare
from budgetrl.training.stopper import Stopper

OUT = Path(__file__).resolve().parents[1] / "budgetrl/assets" / ASSET
PROFILE = Path(__file__).resolve().parents[1] / "budgetrl/assets" / BUNDLED
RANKS = {"quickstart": (16, 64)}
"""Of adapters; 16 for all others. A rank of 64 is half the quickstart's width."""
RANDOM = {
    "random-25m": {
        "model_type": "llama", "layers": 10, "hidden": 384, "heads": 6, "kv_heads": 2,
        "head_dim": 64, "intermediate": 1152, "vocab": 16384,
    },
    "random-60m": {
        "model_type": "qwen2", "layers": 12, "hidden": 512, "heads": 8, "kv_heads": 4,
        "head_dim": 64, "intermediate": 1536, "vocab": 49152,
    },
    "wide-vocabulary": {
        "model_type": "qwen2", "layers": 4, "hidden": 128, "heads": 4, "kv_heads": 1,
        "head_dim": 32, "intermediate": 256, "vocab": 151936,
    },
}  # fmt: skip
"""Models of random weights: speed depends on the shape alone."""

_HELD = 0.02
"""Of a row's weight, for each constant being what it was: rows hardly tell some of them apart."""

ROLLOUT, UPDATE = "rollout", "update"
SETTINGS: Mapping[str, Sequence[tuple[str, int, int, int]]] = {
    "quickstart": [
        (ROLLOUT, 128, 28, 32), (ROLLOUT, 32, 28, 64), (ROLLOUT, 256, 28, 32), (ROLLOUT, 8, 60, 32),
        (UPDATE, 64, 28, 40), (UPDATE, 16, 28, 64), (UPDATE, 64, 60, 20),
    ],
    "random-25m": [
        (ROLLOUT, 32, 24, 12), (ROLLOUT, 32, 128, 64), (ROLLOUT, 8, 500, 32),
        (UPDATE, 16, 24, 12), (UPDATE, 8, 128, 64), (UPDATE, 4, 400, 100),
    ],
    "wide-vocabulary": [(ROLLOUT, 32, 64, 32), (UPDATE, 8, 64, 32)],
    "random-60m": [
        (ROLLOUT, 32, 64, 16), (ROLLOUT, 16, 256, 32), (ROLLOUT, 48, 24, 48),
        (UPDATE, 16, 64, 16), (UPDATE, 4, 256, 128), (UPDATE, 2, 500, 12),
    ],
    "smollm2": [
        (ROLLOUT, 32, 90, 9), (ROLLOUT, 8, 24, 64), (ROLLOUT, 32, 24, 40),
        (UPDATE, 16, 90, 9), (UPDATE, 4, 90, 9), (UPDATE, 4, 90, 64),
    ],
}  # fmt: skip
"""(what, rows, prompt tokens, completion tokens); of smollm2 only with --model smollm2=FOLDER."""


def random_model(name: str, folder: Path) -> Path:
    """A folder with a model of random weights and the quickstart's tokenizer."""
    shape = ModelShape(name=name, window=2048, tied=True, **RANDOM[name])
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    write_tokenizer(folder, shape.vocab)
    return folder


def measure(
    model: str, name: str, threads: int, rank: int, whats: Collection[str]
) -> Iterator[dict[str, Any]]:
    """One row per setting of a model, of some kinds of work."""
    sets = [
        *(f"model.id={model}", f"engine.threads={threads}", f"lora.rank={rank}", "lora.alpha=16"),
        *("signal.skip=off", "sampling.max_tokens=32"),
    ]
    recipe = load_recipe("quickstart", sets).recipe
    shape = find_shape(recipe.model.id)
    clock = time.process_time if threads == 1 else time.perf_counter
    engine: Any = PlainEngine.open(recipe)
    run = RunDir.create(Path(tempfile.mkdtemp()), "fit")
    ledger = Ledger(Budget(3600.0), time.monotonic, time.monotonic(), 0.0)
    with run.writer(stamp_of(ledger, 1)) as writer, GradingPool() as pool:
        log, stopper = RunLog(writer, ledger, {}), Stopper()
        prepared = prepare(run, recipe, engine, pool, log, stopper)
        trainer = build_follower(prepared, recipe).trainer
        engine.end_ids = frozenset([shape.vocab - 1])  # answers run to their limit
        for what, rows, prompt, completion in SETTINGS[name]:
            if what not in whats:
                continue
            if what == ROLLOUT:
                call = _rollout(engine, rows, prompt, completion)
            else:
                call = _update(trainer, recipe, rows, prompt, completion)
            row = {"what": what, "rows": rows, "prompt": prompt, "completion": completion}
            where = {"name": name, "threads": threads, "rank": rank}
            spent, speed = _typical(call, clock)
            yield {**where, **row, "seconds": spent, "gflops": speed}


def ranks(name: str) -> Iterator[tuple[int, Collection[str]]]:
    """Ranks of a model's adapter, each with what is measured of it: a sampler merges them all."""
    first, *others = RANKS.get(name, (16,))
    yield first, (ROLLOUT, UPDATE)
    for other in others:
        yield other, (UPDATE,)


def _typical(call: Callable[[], None], clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds, and the processor's speed just then: others on it change both by half."""
    taken = []
    for _ in range(5):
        speed = cpu_speed(0.1)
        start = clock()
        call()
        taken.append((clock() - start, speed))
        if sum(seconds for seconds, _ in taken) > 20:
            break
    return sorted(taken, key=lambda one: one[0] * one[1])[(len(taken) - 1) // 2]


def _rollout(engine: Any, rows: int, prompt: int, completion: int) -> Callable[[], None]:
    rng = random.Random(1)
    prompts = [[rng.randrange(5, 250) for _ in range(prompt)] for _ in range(rows)]
    sampling = SamplingSpec(1.0, 1.0, completion)
    return lambda: engine.draw(prompts, list(range(rows)), sampling, lambda: False)


def _update(
    trainer: Any, recipe: Recipe, rows: int, prompt: int, completion: int
) -> Callable[[], None]:
    longest = recipe.model_copy(
        update={
            "prompt": recipe.prompt.model_copy(update={"max_tokens": prompt}),
            "sampling": recipe.sampling.model_copy(update={"max_tokens": completion}),
            "batch": recipe.batch.model_copy(update={"micro_batch": rows}),
        }
    )

    def call() -> None:
        longest_passes(trainer, longest)
        trainer._metrics["train"].clear()

    return call


def amounts(row: Mapping[str, Any], shape: ModelShape) -> dict[str, float]:
    """What a row consists of."""
    rows, prompt, completion = row["rows"], row["prompt"], row["completion"]
    if row["what"] == ROLLOUT:
        return generation(Batch(rows, prompt, completion), shape)
    return training(Passes(rows, 1, prompt, completion, Adapter(row["rank"])), shape)


def fit(found: Sequence[Mapping[str, Any]], what: str, shapes: Mapping[str, ModelShape]) -> Any:
    """Constants of one kind of work by rows on one thread, and what they predict."""
    rows = [row for row in rows_of_one(found) if row["what"] == what]
    parts = [amounts(row, shapes[row["name"]]) for row in rows]
    names = list(parts[0])
    speed = float(np.median([row["gflops"] for row in rows_of_one(found)]))
    seconds = np.array([row["seconds"] * row["gflops"] / speed for row in rows])
    table = np.array([[part[name] for name in names] for part in parts])
    slower = reference().gflops / speed
    before = np.array([cpu_constants()[name] * slower for name in names])
    held = np.sqrt(_HELD) * np.diag(1 / before)
    wanted = np.concatenate([np.ones(len(rows)), np.full(len(names), np.sqrt(_HELD))])
    solved = _non_negative(np.vstack([table / seconds[:, None], held]), wanted)
    for row, took, predicted in zip(rows, seconds, table @ solved, strict=True):
        print(f"  {row['name']:16} r{row['rank']:<3} {what} {row['rows']:4} x {row['prompt']:4} + "
              f"{row['completion']:4}: {took:7.3f} s, fitted {predicted:7.3f} "
              f"({predicted / took:.2f})")  # fmt: skip
    return dict(zip(names, solved.tolist(), strict=True))


def rows_of_one(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows on one thread."""
    return [row for row in found if row["threads"] == 1]


def _non_negative(table: Any, wanted: Any) -> Any:
    """Least squares without negative values, by coordinate descent."""
    scale = table.max(axis=0)
    table, solved = table / scale, np.zeros(table.shape[1])
    for _ in range(5000):
        for column in range(len(solved)):
            rest = wanted - table @ solved + table[:, column] * solved[column]
            solved[column] = max(0.0, table[:, column] @ rest / (table[:, column] ** 2).sum())
    return solved / scale


def main() -> None:
    """Measure, or fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="?")
    parser.add_argument("--bundle", metavar="SEEDS", help="measure the profile that ships")
    parser.add_argument("--measure", action="store_true", help="append rows to the file")
    parser.add_argument("--only", choices=SETTINGS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.bundle:
        bundle([int(seed) for seed in options.bundle.split(",")])
        return
    models = {"quickstart": "asset:tiny/quickstart"} | dict(m.split("=") for m in options.model)
    with tempfile.TemporaryDirectory() as folder:
        models |= {name: str(random_model(name, Path(folder) / name)) for name in RANDOM}
        shapes = {name: find_shape(model) for name, model in models.items()}
        if options.measure:
            for name, model in models.items():
                if options.only not in (None, name):
                    continue
                for rank, whats in ranks(name):
                    for row in measure(model, name, options.threads, rank, whats):
                        print(json.dumps(row), flush=True)
                        with options.rows.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(row) + "\n")
            return
    found = list(read_jsonl(options.rows))
    values = {**fit(found, ROLLOUT, shapes), **fit(found, UPDATE, shapes)}
    print(json.dumps(values, indent=1))
    if options.write:
        speed = float(np.median([row["gflops"] for row in rows_of_one(found)]))
        asset = json.loads(OUT.read_text(encoding="utf-8"))
        faster = speed / asset["reference"]["gflops"]
        for name, old in asset["constants"].items():
            if f"{name}_serial" in asset["constants"]:  # seconds; those not fitted stay, elsewhere
                times = values.get(name, old["value"] / faster) / old["value"]
                old |= {end: times * old[end] for end in ("value", "low", "high")}
        asset["reference"] = {
            "cpu": cpu_model(),
            "gflops": speed,
            "measured": datetime.now(UTC).date().isoformat(),
        }
        before = predicted_there()
        write_json(OUT, asset)
        forget()
        rescale(before, predicted_there())


def bundle(seeds: Sequence[int]) -> None:
    """The profile of a quickstart on this machine, the median of several runs of it."""
    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "budgetrl", "run", "quickstart", "--seed", str(seed)]
            command += ["--out", folder, "--display", "none"]
            speed = _speed_beside(command, os.environ | {"XDG_CACHE_HOME": folder})
            (file,) = Path(folder).glob("budgetrl/profiles/cpu-*.json")
            one = json.loads(file.read_text(encoding="utf-8"))
        one["factors"] = {n: f * speed / one["gflops"] for n, f in one["factors"].items()}
        found.append(one | {"gflops": round(speed, 2), "versions": installed_versions("plain")})
        print(json.dumps(found[-1]), flush=True)
    middle = {
        name: round(median(one[name] for one in found), 4)
        for name in ("gflops", "tokens_mean", "early")
    }
    factors = {
        name: round(median(one["factors"][name] for one in found), 4)
        for name in found[0]["factors"]
    }
    write_json(PROFILE, found[0] | middle | {"factors": factors})


def _speed_beside(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Run a command; the speed meanwhile, which a look afterwards does not tell."""
    speeds = []
    with subprocess.Popen(command, env=environment) as child:
        while child.poll() is None:
            speeds.append(cpu_speed(0.05))
            time.sleep(2)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {child.returncode}")
    return harmonic_mean(speeds)


def predicted_there() -> Mapping[str, float]:
    """What the formulas say of the run whose profile ships, on the machine that made it."""
    recipe = load_recipe("quickstart").recipe
    machine = Machine(bundled_profile().gflops)
    return predict(cpu_scenario(recipe, this_cpu()), machine, read_prompts(recipe)).seconds


def rescale(before: Mapping[str, float], now: Mapping[str, float]) -> None:
    """Factors of the profile that ships, over new formulas: the seconds stay what they were."""
    profile = json.loads(PROFILE.read_text(encoding="utf-8"))
    profile |= {"schema_version": SCHEMA_VERSION, "formulas": formulas()}
    for name, factor in profile["factors"].items():
        profile["factors"][name] = round(factor * before[name] / now[name], 4)
    write_json(PROFILE, profile)


if __name__ == "__main__":
    main()
