"""Several optimiser steps per rollout batch: exact, charged, given up whole, refused if wrong."""

from pathlib import Path
from typing import Any

import pytest
import test_grpo_oracle as harness
import torch
from test_passes import TOLERANCE, check_forwards
from test_preflight import SMALL, workbench

from budgetrl.errors import RecipeError
from budgetrl.estimation.scenario import make_scenario
from budgetrl.events import Step
from budgetrl.hardware import find_gpu
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import RunDir
from budgetrl.training.callbacks import StepCallback, merged_logs
from budgetrl.training.course import Course
from budgetrl.training.loop import _learn
from budgetrl.training.setup import Prepared, build_follower


@pytest.mark.parametrize("kind", ["dapo", "grpo"])
def test_each_optimiser_step_takes_whole_groups_and_is_clipped(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One group a step; the second and fourth have no advantages, and Adam goes on all the same."""
    monkeypatch.setattr(harness, "REWARDS", harness.SKIPPING)
    settings = {"grpo__loss_type": kind, "grpo__beta": 0.001, "grpo__epsilon_high": 0.3}
    settings |= {"batch__updates_per_rollout": 5, "batch__micro_batch": 2}
    made = harness.train(tmp_path, schedule__learning_rate=0.003, **settings)
    assert len(made.updates) == 5
    check_forwards(made.recipe, made.forwards)
    for update in (0, 2, 4):
        wanted = harness.expected_gradients(made, update)
        # Off the policy that sampled, ratios are exponentials of differences: found at 2 to 7e-6.
        assert harness.distance(made.updates[update].gradients, wanted) <= 2 * TOLERANCE
    unclipped = harness.Training(**(vars(made) | {"recipe": harness.with_epsilon(made.recipe, 9)}))
    assert harness.distance(harness.expected_gradients(unclipped, 4), wanted) > 0.01


def test_a_step_that_is_given_up_between_two_optimiser_steps_is_made_anew(tmp_path: Path) -> None:
    sets = [*SMALL, "batch.micro_batch=4", "batch.updates_per_rollout=2"]
    recipe = load_recipe("quickstart", [*sets, "schedule.stop_after_steps=3"]).recipe
    whole, _ = attempt(tmp_path, recipe)
    one, run = attempt(tmp_path, recipe, stopped_at=2)
    given_up, _ = attempt(tmp_path, recipe, stopped_at=3, run=run)
    newest = run.newest_checkpoint()
    assert newest is not None and newest.step == 1, "of the second step nothing is kept"
    assert all(torch.equal(weight, given_up[name]) for name, weight in one.items())
    resumed, _ = attempt(tmp_path, recipe, run=run)
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
    assert any(bool(weight.any()) for name, weight in whole.items() if "lora_B" in name)
    steps = [event for event in run.events() if isinstance(event, Step)]
    assert [(event.step, event.optimizer_steps) for event in steps] == [(1, 2), (2, 2), (3, 2)]


def both(prepared: Prepared, recipe: Any) -> tuple[Prepared, StepCallback]:
    return prepared, build_follower(prepared, recipe)


def attempt(
    folder: Path, recipe: Any, stopped_at: int | None = None, run: RunDir | None = None
) -> tuple[dict[str, torch.Tensor], RunDir]:
    """One attempt, stopped after so many optimiser steps; the adapter then, and its run."""
    with workbench(folder, recipe, both, run=run) as (run, _, _, build):
        prepared, follower = build()
        trainer = follower.trainer
        if stopped_at is not None:
            follower.parts.must_stop = lambda: trainer.state.global_step == stopped_at
        _learn(Course(prepared, recipe), follower, {})
        weights = {n: p.detach() for n, p in trainer.model.named_parameters() if "lora" in n}
        assert run is not None
        return weights, run


def test_logs_of_optimiser_steps_are_means() -> None:
    logs = [
        {"loss": 1.0, "grad_norm": 2.0, "kl": 0.5, "learning_rate": 0.1},
        {"loss": 3.0, "grad_norm": 4.0, "learning_rate": 0.1},
    ]
    merged = merged_logs(logs)
    assert merged == {"loss": 2.0, "grad_norm": 3.0, "kl": 0.5, "learning_rate": 0.1}


def test_an_estimate_charges_the_pass_and_the_optimiser() -> None:
    one, two = (
        make_scenario(
            load_recipe("qwen2.5_math_r256", [f"batch.updates_per_rollout={k}"]).recipe, A40
        )
        for k in (1, 2)
    )
    assert (one.passes().no_grad_passes, two.passes().no_grad_passes) == (1, 2)
    assert two.passes().to_json() | {"no_grad_rows": 0} == {
        "grad": 1,
        "grad_rows": 256,
        "grad_forwards": 32,
        "no_grad_passes": 2,
        "no_grad_rows": 0,
        "no_grad_forwards": 64,
        "optimizer_steps": 2,
    }


A40 = find_gpu("A40")


@pytest.mark.parametrize(
    ("name", "sets", "said"),
    [
        ("qwen3_r8", ["batch.updates_per_rollout=3"], "3 does not divide batch.prompts_per_step"),
        ("qwen3_r8", ["batch.updates_per_rollout=0"], "greater than or equal to 1"),
        ("qwen3_r8", ["batch.updates_per_rollout=1.5"], "integer"),
        (
            "qwen3_r8",
            ["batch.updates_per_rollout=8", "batch.micro_batch=64"],
            "does not divide 32 completions per optimiser step",
        ),
        (
            "quickstart",
            ["batch.updates_per_rollout=2", "engine.name=scripted", "engine.script=a.jsonl"],
            "cannot train",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(name: str, sets: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(name, sets)


def test_leaving_out_groups_without_any_advantage_stays_sound() -> None:
    recipe = load_recipe(
        "qwen3_r8", ["batch.updates_per_rollout=2", "signal.skip=exact", "grpo.beta=0"]
    ).recipe
    assert recipe.completions_per_update == 128
    assert recipe.smaller_micro_batch() == 4
