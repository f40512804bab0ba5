"""The plain engine of this checkout against that of another one, in turn, in CPU seconds.

    git worktree add --detach OLD 2efa2f2
    python scripts/bench_engine.py OLD [--model smollm2=FOLDER] [--json FILE]

Rollouts and updates of three models in three shapes, each side in a process of its own on one
thread, one measurement of each after the other; medians. Exits 1 if greedy texts or gradients
differ. Random models have the shapes of `scripts/fit_cpu_plan.py`.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parents[1]
GROUP = 8
GRADIENTS = 5e-6
"""Relative L2 distance that rounding may make."""


class Case(NamedTuple):
    """One line of the table."""

    measure: str
    model: str
    what: str
    """rollout: tokens a second; update: seconds; memory: peak over the loaded model, in bytes."""
    prompts: int
    """Unique ones; each has a group of completions, but for updates, whose rows these are."""
    prompt: int
    completion: int
    goal: float | None = None
    """Ratio that is wanted: new over old for rollouts and updates, new by old for memory."""
    real: bool = False
    """The quickstart's own problems and end tokens instead of random tokens up to the limit."""


CASES = (
    Case("rollout, 4 x 8, prompt 90, answers 8", "smollm2", "rollout", 4, 90, 8, 2.3),
    Case("rollout, 4 x 8, prompt 24, 64 tokens", "smollm2", "rollout", 4, 24, 64, 1.4),
    Case("rollout, 4 x 8, prompt 256, 32 tokens", "smollm2", "rollout", 4, 256, 32),
    Case("update, 4 x (90 + 8)", "smollm2", "update", 4, 90, 8),
    Case("update, 4 x (24 + 64)", "smollm2", "update", 4, 24, 64),
    Case("rollout, 16 x 8, up to 64 tokens", "quickstart", "rollout", 16, 28, 64, 1.6, True),
    Case("rollout, 4 x 8, prompt 28, 32 tokens", "quickstart", "rollout", 4, 28, 32),
    Case("rollout, 4 x 8, prompt 60, 8 tokens", "quickstart", "rollout", 4, 60, 8),
    Case("update, 64 x (28 + 40)", "quickstart", "update", 64, 28, 40),
    Case("rollout, 4 x 8, prompt 90, answers 8", "random-25m", "rollout", 4, 90, 8),
    Case("rollout, 4 x 8, prompt 24, 64 tokens", "random-25m", "rollout", 4, 24, 64),
    Case("rollout, 4 x 8, prompt 256, 32 tokens", "random-25m", "rollout", 4, 256, 32),
    Case("update, 8 x (128 + 64)", "random-25m", "update", 8, 128, 64),
    Case("update, 8 x 512, peak RSS", "wide-vocabulary", "memory", 8, 64, 512, 0.45),
    Case("update, 8 x (64 + 128)", "wide-vocabulary", "update", 8, 64, 128),
)


# --- one side, in a process of its own


class Side:
    """An engine and a trainer of the budgetrl that this process imports."""

    def __init__(self, model: str, distils: bool = False) -> None:
        import torch
        from either_build import TrainerParts

        from budgetrl.data.prompts import PromptRenderer
        from budgetrl.data.rows import load_problems
        from budgetrl.data.sampler import ProblemSampler
        from budgetrl.engine.plain import PlainEngine
        from budgetrl.estimation.shapes import find_shape
        from budgetrl.recipe.load import load_recipe
        from budgetrl.training.clock import PhaseClock
        from budgetrl.training.trainer import build_trainer

        sets = [f"model.id={model}", "batch.micro_batch=4", "sampling.max_tokens=64"]
        if not model.startswith("asset:"):  # the quickstart's keeps its own
            sets += ["lora.rank=16", "lora.alpha=16"]
        if distils:
            sets += [f"teacher.id={model}", "teacher.adapter=unset"]
            (self.recipe,) = load_recipe("quickstart_distill", sets).recipe.parts
        else:
            self.recipe = load_recipe("quickstart", sets).recipe
        self.engine: Any = PlainEngine.open(self.recipe)
        noise = torch.Generator().manual_seed(1)
        for name, weight in self.engine.model.named_parameters():
            if "lora_B" in name:
                weight.data.copy_(0.02 * torch.randn(weight.shape, generator=noise))
        self._vocabulary = find_shape(self.recipe.model.id).vocab
        self._ends = self.engine.end_ids
        self._renderer = PromptRenderer(self.engine.tokenizer, self.recipe.prompt)
        problems = load_problems(self.recipe.data, lambda golds: [None] * len(golds)).problems
        self._sampler = ProblemSampler(problems, 1, self.recipe.batch.prompts_per_step)
        clock, folder = PhaseClock(time.monotonic), Path(tempfile.gettempdir())
        parts = TrainerParts(
            self.recipe, self.engine, self._sampler, self._renderer, _no_reward, clock, folder,
            lambda: False, lambda: False,
        )  # fmt: skip
        if distils:
            from budgetrl.engine.teacher import open_teacher
            from budgetrl.training.distil import DistilMixin

            parts.teacher = open_teacher(self.recipe, self.engine)
            self._trainer = build_trainer(parts, 1, [], DistilMixin)
        else:
            self._trainer = build_trainer(parts, 1, [])

    def rollout(self, case: Case, seed: int, temperature: float) -> dict[str, Any]:
        """Tokens, their ids, and the CPU seconds that they took."""
        from budgetrl.engine.base import SamplingSpec

        rows = [ids for ids in self._prompts(case, seed) for _ in range(GROUP)]
        self.engine.end_ids = self._ends if case.real else frozenset([self._vocabulary - 1])
        sampling = SamplingSpec(temperature, 1.0, case.completion)
        start = time.process_time()
        drawn = self.engine.draw(rows, range(seed, seed + len(rows)), sampling, lambda: False)
        spent = time.process_time() - start
        return {"seconds": spent, "tokens": sum(map(len, drawn.ids)), "ids": drawn.ids}

    def _prompts(self, case: Case, seed: int) -> list[list[int]]:
        if case.real:
            problems = self._sampler.batch(seed)
            return [list(self._renderer.ids(problem)) for problem in problems]
        rng = random.Random(seed)
        return [[rng.randrange(5, 250) for _ in range(case.prompt)] for _ in range(case.prompts)]

    def update(self, case: Case, folder: str) -> dict[str, Any]:
        """CPU seconds of a forward and backward pass; its gradients go to a file."""
        inputs = self._inputs(case)
        model, trainer = self._trainer.model, self._trainer
        model.train()
        model.zero_grad(set_to_none=True)
        trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
        before = _peak(reset=True)
        start = time.process_time()
        loss = trainer.compute_loss(model, inputs)
        trainer.accelerator.backward(loss)
        spent = time.process_time() - start
        trainer._metrics["train"].clear()
        peak = _peak() - before
        found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        path = Path(folder) / f"{os.getpid()}.npy"
        np.save(path, np.concatenate([one.numpy() for one in found]))
        return {"seconds": spent, "peak": peak, "gradients": str(path)}

    def _inputs(self, case: Case) -> dict[str, Any]:
        import torch

        draw = torch.Generator().manual_seed(1)
        shapes = {"prompt": case.prompt, "completion": case.completion}
        rows, inputs = case.prompts, dict[str, Any]()
        for name, width in shapes.items():
            ids = torch.randint(5, 250, (rows, width), generator=draw)
            inputs |= {f"{name}_ids": ids, f"{name}_mask": torch.ones_like(ids)}
        inputs["advantages"] = torch.randn(rows, generator=draw)
        inputs["num_items_in_batch"] = torch.tensor(float(rows * case.completion))
        return inputs


def _no_reward(*_: Any) -> Any:
    raise AssertionError("nothing is graded here")


def _peak(reset: bool = False) -> int:
    """The most memory that this process has held, in bytes; since the last reset."""
    status = Path("/proc/self/status")
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for line in status.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def serve(model: str) -> None:
    """Measure what stdin asks for, a line of JSON each."""
    import budgetrl

    answers, sys.stdout = sys.stdout, sys.stderr
    side = Side(model)
    print(json.dumps(budgetrl.__file__), file=answers, flush=True)
    for line in sys.stdin:
        name, *rest = json.loads(line)
        rest[0] = Case(*rest[0])
        print(json.dumps(getattr(side, name)(*rest)), file=answers, flush=True)


# --- both sides in turn


class Worker:
    """A side in a process of its own."""

    def __init__(self, checkout: Path, model: str) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", model]
        env = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        imported = self._answer()
        if not Path(imported).is_relative_to(checkout):
            raise SystemExit(f"the side of {checkout} has imported {imported}")

    def ask(self, *question: Any) -> Any:
        """What it measured."""
        assert self._process.stdin is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("a side has ended")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def measure(case: Case, sides: Sequence[Worker], repeats: int, folder: str) -> dict[str, Any]:
    """One row: medians of both sides, the ratio, and whether they computed the same."""
    if case.what == "rollout":
        greedy = [side.ask("rollout", case, 1, 0.0) for side in sides]  # warms up, too
        found = [
            [side.ask("rollout", case, seed, 1.0) for side in sides]
            for seed in range(1, repeats + 1)
        ]
        old, new = (median(r[i]["tokens"] / r[i]["seconds"] for r in found) for i in (0, 1))
        return _row(case, old, new, "tokens/s", greedy[0]["ids"] == greedy[1]["ids"])
    passes = 1 if case.what == "memory" else repeats
    found = [[side.ask("update", case, folder) for side in sides] for _ in range(passes)]
    old_gradients, new_gradients = (np.load(answer["gradients"]) for answer in found[-1])
    away = float(np.linalg.norm(old_gradients - new_gradients) / np.linalg.norm(old_gradients))
    if case.what == "memory":
        old, new = (found[0][i]["peak"] for i in (0, 1))
        return _row(case, old, new, "bytes", away <= GRADIENTS) | {"gradients": away}
    old, new = (1 / median(r[i]["seconds"] for r in found) for i in (0, 1))
    return _row(case, old, new, "updates/s", away <= GRADIENTS) | {"gradients": away}


def _row(case: Case, old: float, new: float, unit: str, same: bool) -> dict[str, Any]:
    keys = {"measure": case.measure, "model": case.model, "unit": unit, "goal": case.goal}
    return keys | {"old": old, "new": new, "ratio": new / old, "same": same}


def rows_of(
    model: str, source: str, old: Path, repeats: int, wanted: Callable[[Case], bool]
) -> Iterator[dict[str, Any]]:
    """All rows of one model."""
    cases = [case for case in CASES if case.model == model and wanted(case)]
    if not cases:
        return
    # What a process has held once stays with it, so memory is measured first.
    cases.sort(key=lambda case: case.what != "memory")
    with tempfile.TemporaryDirectory() as folder:
        sides = [Worker(checkout, source) for checkout in (old, HERE)]
        for case in cases:
            row = measure(case, sides, repeats, folder)
            print(f"{model}: {row['measure']}: {row['ratio']:.2f}x, same {row['same']}",
                  file=sys.stderr)  # fmt: skip
            yield row
        for side in sides:
            side.close()


def main() -> None:
    """Measure and say; or be one side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, nargs="?", help="a checkout of the other build")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--only", default="", help="models, with commas; all where absent")
    parser.add_argument("--what", default="", help="rollout, update or memory; all where absent")
    parser.add_argument("--case", default="", help="a part of its measure's name")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="rows of other models in this file are kept")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if options.old is None:
        parser.error("which checkout is the old build?")
    from fit_cpu_plan import RANDOM, random_model

    models = {"quickstart": "asset:tiny/quickstart"} | dict(m.split("=") for m in options.model)
    only = options.only.split(",") if options.only else None
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        models |= {
            name: str(random_model(name, Path(folder) / name))
            for name in RANDOM
            if any(case.model == name for case in CASES) and (only is None or name in only)
        }
        for name, source in models.items():
            if only is None or name in only:
                for row in rows_of(
                    name, source, options.old.resolve(), options.repeats,
                    lambda case: options.what in ("", case.what) and options.case in case.measure,
                ):  # fmt: skip
                    rows.append(row)
                    if options.json:  # each as soon as it is there
                        text = json.dumps(_report(rows, options.json), indent=1) + "\n"
                        options.json.write_text(text, encoding="utf-8")
    print(json.dumps(_report(rows, options.json), indent=1))
    sys.exit(0 if all(row["same"] for row in rows) else 1)


def _report(rows: list[dict[str, Any]], file: Path | None) -> dict[str, Any]:
    from budgetrl.processor import cpu_model

    old = json.loads(file.read_text(encoding="utf-8"))["rows"] if file and file.exists() else []
    measured = {(row["model"], row["measure"]) for row in rows}
    kept = [row for row in old if (row["model"], row["measure"]) not in measured]
    today = datetime.now(UTC).date().isoformat()
    order = {(case.model, case.measure): place for place, case in enumerate(CASES)}
    rows = sorted([*kept, *rows], key=lambda row: order[row["model"], row["measure"]])
    return {"date": today, "cpu": cpu_model(), "threads": 1, "old": "2efa2f2", "rows": rows}


if __name__ == "__main__":
    main()
