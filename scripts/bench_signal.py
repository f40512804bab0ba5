"""Our update loop against plain TRL: groups with signal per minute, and accuracy at equal time.

    python scripts/bench_signal.py --minutes 20 --json

Three sides take turns within one process, on the same model, problems, held-out set and seeds:
`trl`, the GRPOTrainer as its documentation shows it, with the fastest of a few obvious settings;
`skip`, ours with signal.skip = "exact" alone; `ours`, with the order by difficulty as well. All
use the accuracy reward alone and the same grader, so what is dead is the same for all. How long
each takes to an accuracy: `scripts/time_to_accuracy.py`.
"""

import argparse
import gc
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from either_build import GradingPool, TrainerParts, cpu_model, lora_layers, merged, request

from budgetrl.data.difficulty import SolveRates
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import load_problems, load_suite
from budgetrl.data.sampler import ProblemSampler
from budgetrl.engine.base import SamplingSpec, sample_seed
from budgetrl.engine.plain import PlainEngine
from budgetrl.evaluation.passk import mean_interval
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Eval, Recipe
from budgetrl.rewards.registry import build_reward
from budgetrl.training.clock import PhaseClock
from budgetrl.training.trainer import build_trainer
from budgetrl.training.trl_args import UNLIMITED_STEPS, grpo_arguments
from budgetrl.types import Verdict

SIDES = ("trl", "skip", "ours")
MIXES = ("hard", "easy")
HELD_OUT = {"hard": "heldout_hard", "easy": "heldout"}
SEEDS = (1, 2, 3, 4, 5)
LEARNING_RATE = 5e-4
"""Half the quickstart's: with the accuracy reward alone completions may outgrow their limit at 1e-3
and training does not recover, with and without skipping (recipes/LOG.md)."""
EVAL_SAMPLES = 2


@dataclass
class Tally:
    """What one side did in its time."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    """CPU seconds of this process."""
    steps: int = 0
    groups: int = 0
    signal: int = 0
    """Groups with right and wrong completions that entered an update."""
    phases: dict[str, float] = field(default_factory=dict)
    accuracy: float = 0.0

    def add_group(self, right: Sequence[bool]) -> None:
        """Count one trained group."""
        self.groups += 1
        self.signal += any(right) and not all(right)

    @property
    def signal_per_minute(self) -> float:
        """Groups with signal trained per minute."""
        return 60 * self.signal / self.seconds


IsOver = Callable[[Any, Tally], bool]
"""Asked after each update, with the engine: whether to end."""


def recipe_of(mix: str, side: str, seed: int, learning_rate: float, *more: str) -> Recipe:
    """The quickstart with the accuracy reward alone, as a side trains it."""
    sets = ["rewards.format.weight=0", f'data.path="asset:tiny/data/train_{mix}.jsonl"']
    sets += [f"recipe.seed={seed}", "batch.micro_batch=32", 'signal.on_empty="continue"']
    sets.append(f"schedule.learning_rate={learning_rate}")
    if side != "trl":
        sets.append('signal.skip="exact"')
    if side == "ours":
        sets.append('signal.order="difficulty"')
    return load_recipe("quickstart", [*sets, *more]).recipe


def no_longer_than(limit_s: float) -> IsOver:
    """Ends when another update would last beyond the limit."""
    return lambda _, tally: tally.seconds + tally.seconds / tally.steps > limit_s


def train_ours(
    recipe: Recipe, pool: GradingPool, folder: Path, is_over: IsOver
) -> tuple[Any, Tally]:
    """budgetrl's trainer."""
    import transformers

    tally = Tally()
    engine = PlainEngine.open(recipe)
    renderer = PromptRenderer(engine.tokenizer, recipe.prompt)
    problems = load_problems(recipe.data, pool.gold_problems).problems
    by_difficulty = recipe.signal.order == "difficulty"
    rates = SolveRates(recipe.signal.decay) if by_difficulty else None
    sampler = ProblemSampler(
        problems, recipe.seed, recipe.batch.prompts_per_step, rates=rates,
        group_size=recipe.grpo.num_generations, explore=recipe.signal.explore,
    )  # fmt: skip
    reward = build_reward(
        recipe.rewards, prefilled=renderer.prefilled, max_tokens=recipe.sampling.max_tokens,
        pool=pool,
    )  # fmt: skip
    clock = PhaseClock(time.monotonic)
    parts = TrainerParts(
        recipe, engine, sampler, renderer, reward, clock, folder, lambda: False, lambda: False
    )

    class Follow(transformers.TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            state.log_history.clear()
            if "grad_norm" not in (logs or {}):
                return
            record = parts.record
            assert record is not None
            for problem, group in zip(record.problems, record.groups(), strict=True):
                right = [breakdown.verdict is Verdict.CORRECT for breakdown in group]
                tally.add_group(right)
                if rates is not None:
                    rates.observe(problem, sum(right), len(right))
            _count_step(tally, clock, start)
            control.should_training_stop = is_over(engine, tally)

    trainer = build_trainer(parts, UNLIMITED_STEPS, [Follow()])
    start = _now()
    clock.take()
    trainer.train()
    return engine, tally


def train_trl(
    recipe: Recipe, pool: GradingPool, folder: Path, is_over: IsOver, merge: bool, micro: int
) -> tuple[Any, Tally]:
    """TRL's own trainer: its sampler, its generation, all its groups; PEFT's own layers."""
    import datasets
    import peft
    import transformers
    import trl

    tally = Tally()
    engine = PlainEngine.open(recipe)
    for layer in lora_layers(engine.model):
        layer.__class__ = peft.tuners.lora.Linear  # as PEFT makes it
    renderer = PromptRenderer(engine.tokenizer, recipe.prompt)
    problems = load_problems(recipe.data, pool.gold_problems).problems
    size = recipe.grpo.num_generations
    clock = PhaseClock(time.monotonic)

    def accuracy(completion_ids: Any, answer: Any, **_: Any) -> list[float]:
        texts = [engine.decode(ids) for ids in completion_ids]
        graded = pool.grade(list(zip(texts, answer, strict=True)))
        right = [row.verdict is Verdict.CORRECT for row in graded]
        for first in range(0, len(right), size):
            tally.add_group(right[first : first + size])
        return [float(flag) for flag in right]

    class Timed(trl.GRPOTrainer):  # type: ignore[misc, unused-ignore]
        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            with clock.time("rollout"):
                if not merge:
                    return super()._generate_single_turn(*args, **kwargs)
                with merged(self.model):
                    return super()._generate_single_turn(*args, **kwargs)

        def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> Any:
            with clock.time("reward"):
                return super()._generate_and_score_completions(*args, **kwargs)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            with clock.time("update"):
                return super().training_step(*args, **kwargs)

    class Follow(transformers.TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            state.log_history.clear()
            if "grad_norm" in (logs or {}):
                _count_step(tally, clock, start)
                control.should_training_stop = is_over(engine, tally)

    rows = [{"prompt": renderer.messages(p.text), "answer": p.answer} for p in problems]
    accumulation = recipe.completions_per_step // micro
    arguments = grpo_arguments(recipe, folder, UNLIMITED_STEPS) | {
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation,
        "shuffle_dataset": True,
    }
    trainer = Timed(
        model=engine.model,
        reward_funcs=[accuracy],
        args=trl.GRPOConfig(**arguments),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=engine.tokenizer,
        callbacks=[Follow()],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    start = _now()
    clock.take()
    trainer.train()
    return engine, tally


def _now() -> tuple[float, float]:
    """Seconds of the wall's clock, and of this process's."""
    return time.monotonic(), time.process_time()


def _count_step(tally: Tally, clock: PhaseClock, start: tuple[float, float]) -> None:
    tally.steps += 1
    for name, seconds in clock.take().items():
        tally.phases[name] = tally.phases.get(name, 0.0) + seconds
    tally.seconds, tally.cpu_s = (now - then for now, then in zip(_now(), start, strict=True))


def held_out_accuracy(engine: Any, recipe: Recipe, mix: str, pool: GradingPool) -> float:
    """pass@1 on the mix's held-out problems at training temperature."""
    spec = Eval(suite="heldout", path=f"asset:tiny/data/{HELD_OUT[mix]}.jsonl")
    renderer = PromptRenderer(engine.tokenizer, recipe.prompt)
    right = 0
    problems = load_suite(spec, pool.gold_problems).problems
    for sample in range(EVAL_SAMPLES):
        requests = [
            request(p.id, renderer.ids(p), sample, sample_seed(1, p.id, sample)) for p in problems
        ]
        sampling = SamplingSpec(1.0, 1.0, recipe.sampling.max_tokens)
        found = engine.generate(requests, sampling, lambda: False)
        rows = [(c.text, p.answer) for c, p in zip(found, problems, strict=True)]
        right += sum(row.verdict is Verdict.CORRECT for row in pool.grade(rows))
    return right / (EVAL_SAMPLES * len(problems))


def best_trl_settings(
    pool: GradingPool, folder: Path, seconds: float, learning_rate: float
) -> dict[str, Any]:
    """The fastest of merged or unmerged generation and three micro-batch sizes."""
    speeds = {}
    for merge, micro in itertools.product((True, False), (64, 32, 16)):
        recipe = recipe_of("hard", "trl", 1, learning_rate)
        _, tally = train_trl(recipe, pool, folder, no_longer_than(seconds), merge, micro)
        speeds[merge, micro] = tally.steps / tally.seconds
        gc.collect()
    merge, micro = max(speeds, key=lambda key: speeds[key])
    tried = [
        {"merge": m, "micro_batch": b, "steps_per_minute": round(60 * s, 2)}
        for (m, b), s in speeds.items()
    ]
    return {"merge": merge, "micro_batch": micro, "tried": tried}


def run_side(
    recipe: Recipe, side: str, mix: str, pool: GradingPool, folder: Path, limit_s: float, best: Any
) -> Tally:
    """One side on one mix and seed: train for the time, then evaluate."""
    is_over = no_longer_than(limit_s)
    if side == "trl":
        engine, tally = train_trl(recipe, pool, folder, is_over, best["merge"], best["micro_batch"])
    else:
        engine, tally = train_ours(recipe, pool, folder, is_over)
    tally.accuracy = held_out_accuracy(engine, recipe, mix, pool)
    print(
        f"{mix} seed {recipe.seed} {side}: {tally.steps} updates in {tally.seconds:.0f} s, "
        f"{tally.signal} of {tally.groups} groups with signal, accuracy {tally.accuracy:.3f}",
        file=sys.stderr,
    )
    return tally


def summarise(rows: list[dict[str, Tally]]) -> dict[str, Any]:
    """One mix: ratios over all seeds, accuracy paired by seed."""
    trl = [row["trl"] for row in rows]
    steps = sum(tally.steps for tally in trl)
    rollout = sum(tally.phases["rollout"] for tally in trl) / steps
    update = sum(tally.phases["update"] for tally in trl) / steps
    share = sum(tally.signal for tally in trl) / sum(tally.groups for tally in trl)
    gaps = [row["ours"].accuracy - row["trl"].accuracy for row in rows]

    def pace(side: str) -> float:
        return fmean(row[side].signal_per_minute for row in rows)

    def update_pace(side: str) -> float:
        """Updates per minute; a side that learns faster or collapses meets fewer live groups."""
        return fmean(60 * row[side].steps / row[side].seconds for row in rows)

    return {
        "live_share": share,
        "rollout_s": rollout,
        "update_s": update,
        "bound": (rollout + update) / (rollout + share * update),
        "skip_ratio": pace("skip") / pace("trl"),
        "skip_update_ratio": update_pace("skip") / update_pace("trl"),
        "ratio": pace("ours") / pace("trl"),
        "signal_per_minute": {side: pace(side) for side in SIDES},
        "accuracy": {side: fmean(row[side].accuracy for row in rows) for side in SIDES},
        "accuracy_difference": fmean(gaps),
        "interval_95": mean_interval(gaps),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="wall time of the whole bench")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="of all sides")
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    options = parser.parse_args()
    seeds = SEEDS[: options.seeds]
    start = time.monotonic()
    with GradingPool() as pool, tempfile.TemporaryDirectory() as name:
        pool.start()
        folder = Path(name)
        total_s = 60 * options.minutes
        rate = options.learning_rate
        best = best_trl_settings(pool, folder, max(6.0, 0.01 * total_s), rate)
        left_s = total_s - (time.monotonic() - start)
        limit_s = left_s / (len(MIXES) * len(seeds) * len(SIDES)) - 6.0
        mixes = {}
        for mix in MIXES:
            rows = []
            for seed in seeds:
                row = {}
                for side in SIDES if seed % 2 else SIDES[::-1]:
                    recipe = recipe_of(mix, side, seed, rate)
                    row[side] = run_side(recipe, side, mix, pool, folder, limit_s, best)
                    gc.collect()
                rows.append(row)
            mixes[mix] = summarise(rows)
    print(
        json.dumps(
            {
                "date": datetime.now(UTC).date().isoformat(),
                "cpu": cpu_model(),
                "minutes": options.minutes,
                "seeds": len(seeds),
                "learning_rate": rate,
                "seconds_per_side": round(limit_s, 1),
                "trl_settings": best,
                "mixes": mixes,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
