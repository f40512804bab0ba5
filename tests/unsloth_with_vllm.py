"""Unsloth and vLLM on a pretended GPU, for test_unsloth_with_vllm.py, in a process of its own.

    python unsloth_with_vllm.py FOLDER MODEL LOSSES

Prints one JSON of what was found, also with each model of FOLDER/shapes, and leaves one file of
gradients in FOLDER for each loss.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe

FOLDER, MODEL, LOSSES = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
ENGINE = {
    "model.id": MODEL,
    "model.dtype": "bfloat16",
    "engine.name": "unsloth",
    "engine.device": "cuda",
}


def recipe_with(**settings: Any) -> Recipe:
    named = ENGINE | {key.replace("__", "."): value for key, value in settings.items()}
    return load_recipe("quickstart", [f"{key}={value}" for key, value in named.items()]).recipe


from budgetrl.engine.unsloth import UnslothEngine, import_unsloth  # noqa: E402

import_unsloth(recipe_with(), FOLDER)

sys.path.insert(0, str(Path(__file__).resolve().parent / "training"))

import test_grpo_oracle as harness  # noqa: E402
import torch  # noqa: E402
import unsloth_zoo.rl_replacements  # noqa: E402

from budgetrl.engine.base import Rollout, SamplingSpec  # noqa: E402
from budgetrl.evaluation.run import evaluate  # noqa: E402
from budgetrl.evaluation.suite import PromptedProblem, Suite, protocol_of  # noqa: E402
from budgetrl.types import Problem, Verdict  # noqa: E402

SPEC = SamplingSpec(temperature=1.0, top_p=1.0, max_tokens=12)
ROWS = 24


class Lab:
    """One engine, and its rollouts on a prompt."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.engine = UnslothEngine.open(recipe, FOLDER)
        self.prompt = self.engine.tokenizer("12 + 7 =")["input_ids"]

    def rollout(
        self, after: int | None = None, prompts: Sequence[int] = (), fold: bool = False
    ) -> list[Any]:
        """Sampled rows; None where a stop after that many steps of vLLM came first."""
        steps = itertools.count(1)
        drawn = dict(
            self.engine._draw(
                [prompts or self.prompt] * ROWS,
                list(range(ROWS)),
                SPEC,
                lambda: after is not None and next(steps) >= after,
                fold,
            )
        )
        return [drawn.get(row) for row in range(ROWS)]

    def gap(self, rows: list[Any]) -> float:
        rollout = Rollout([row.ids for row in rows], [row.logps for row in rows], None)
        return self.engine.logp_gap([self.prompt] * len(rows), rollout, 1.0) or 0.0

    def train_a_little(self, seed: int, size: float = 0.05) -> None:
        """Other values in every B matrix."""
        noise = torch.Generator().manual_seed(seed)
        for name, weight in self.engine.model.named_parameters():
            if ".lora_B." in name:
                weight.data.copy_(size * torch.randn(weight.shape, generator=noise))

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.engine.model.named_parameters()}


class NothingIsRight:
    """A grader."""

    def grade(self, rows: Sequence[tuple[str, str]]) -> list[Any]:
        return [SimpleNamespace(verdict=Verdict.WRONG, extracted=None) for _ in rows]


def evaluated(lab: Lab) -> dict[str, Any]:
    """What is asked of vLLM by an evaluation of more completions than are stored at once."""
    llm, calls = lab.engine.llm, list[str]()
    problems = [Problem(f"p{i}", f"{i} + 7 =", "0") for i in range(5)]
    items = [
        PromptedProblem(p, p.text, tuple(lab.engine.tokenizer(p.text)["input_ids"]))
        for p in problems
    ]
    protocol = protocol_of(
        "suite", items, temperature=0.6, top_p=1.0, max_tokens=8, seed=1, grader="none"
    )
    real = {name: getattr(llm, name) for name in ("wake_up", "enqueue", "sleep")}
    for name, call in real.items():
        setattr(
            llm, name, lambda *a, name=name, call=call, **k: (calls.append(name), call(*a, **k))[1]
        )
    result = evaluate(
        lab.engine, Suite(items, protocol, 16, (1,), 5), grader=NothingIsRight(),
        folder=FOLDER / "suite", when="final", step=0,
    )  # fmt: skip
    for name, call in real.items():
        setattr(llm, name, call)
    return {"calls": calls, "samples": result.samples if result else 0}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def gaps(lab: Lab) -> dict[str, float]:
    """Between sampler and trainer, with what the adapter holds and how it is served."""
    found = {"fresh": lab.gap(lab.rollout())}
    lab.train_a_little(1)
    first = lab.rollout()
    found["trained"] = lab.gap(first)
    lab.train_a_little(2)
    found["stale"] = lab.gap(first)
    found["trained on"] = lab.gap(lab.rollout())
    found["folded"] = lab.gap(lab.rollout(fold=True))
    assert lab.engine._kept_share is None, "so large an adapter is folded"
    lab.train_a_little(3, size=1e-4)
    found["not folded"] = lab.gap(lab.rollout(fold=True))
    assert lab.engine._kept_share is not None and lab.engine._kept_share < 0.98
    return found


def rollouts() -> dict[str, Any]:
    """Gaps between sampler and trainer, and what a stop leaves behind."""
    lab = Lab(recipe_with())
    found: dict[str, Any] = {"describe": lab.engine.describe(), "gaps": {"one layer": gaps(lab)}}
    first = lab.rollout()
    before = lab.weights()
    lab.rollout(fold=True)
    found["bits after folding"] = same(before, lab.weights())
    again = lab.rollout()
    found["drawn again"] = [row.ids for row in again] == [row.ids for row in first]

    stopped = lab.rollout(after=4)
    found["finished in four steps"] = [row is not None for row in stopped]
    found["short in the whole"] = [len(row.ids) <= 4 for row in first]
    llm = lab.engine.llm
    found["left behind"] = llm.llm_engine.has_unfinished_requests()
    found["asleep"] = llm.llm_engine.is_sleeping()
    after = lab.rollout()
    found["after a stop"] = [row.ids for row in after] == [row.ids for row in first]

    window = llm.llm_engine.vllm_config.model_config.max_model_len
    crowded = lab.rollout(prompts=(lab.prompt * window)[: window - 5])
    found["room"] = max(len(row.ids) for row in crowded)
    found["evaluation"] = evaluated(lab)
    found["ends"] = sorted(lab.engine.end_ids)
    found["pad"] = lab.engine.tokenizer.pad_token_id
    return found


class Dictated(UnslothEngine):
    """Completions of the test's choice."""

    @classmethod
    def open(cls, recipe: Recipe) -> "Dictated":  # type: ignore[override]
        return super().open(recipe, FOLDER)  # type: ignore[return-value]

    rollout = harness.DictatedEngine.rollout  # type: ignore[assignment]


def train() -> None:
    """One update for each loss, kept for the oracle, which needs a process without Unsloth."""
    harness.DictatedEngine = Dictated  # type: ignore[misc, assignment]
    harness.REWARDS = harness.SKIPPING
    engine = {key.replace(".", "__"): value for key, value in ENGINE.items()}
    for name, settings in LOSSES.items():
        made = harness.train(FOLDER, **engine | settings)
        kept = {
            "recipe": made.recipe.model_dump(mode="json"),
            "prompts": made.prompts,
            "completions": made.completions,
            "weights": made.updates[0].weights,
            "gradients": made.updates[0].gradients,
            "cells": max(one.rows * one.columns for one in made.forwards),
        }
        torch.save(kept, FOLDER / f"{name}.pt")


def main() -> None:
    """Everything, as JSON on the last line."""
    found = rollouts()
    for shape in sorted((FOLDER / "shapes").iterdir()):
        found["gaps"][shape.name] = gaps(Lab(recipe_with(model__id=shape)))
    train()
    scoring = unsloth_zoo.rl_replacements.chunked_hidden_states_selective_log_softmax_recompute
    found["logits recomputed"] = hasattr(scoring, "_autograd_function")
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
