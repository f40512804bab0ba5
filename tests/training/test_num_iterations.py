"""Several passes over the same completions: asked once, counted once, exact, and charged."""

from pathlib import Path

import pytest
import test_grpo_oracle as harness
from test_passes import TOLERANCE
from test_preflight import SMALL
from test_updates_per_rollout import attempt

from budgetrl.estimation.scenario import make_scenario
from budgetrl.events import Step
from budgetrl.files import read_jsonl
from budgetrl.hardware import find_gpu
from budgetrl.recipe.load import load_recipe
from budgetrl.training.checkpoints import read_state

STEPS = 3


def test_each_batch_of_problems_is_asked_once_and_its_completions_are_counted_once(
    tmp_path: Path,
) -> None:
    """With the same seed the first step of both runs draws the same, and no batch is left out."""
    asked, counted = {}, {}
    for iterations in (1, 2):
        sets = [*SMALL, f"grpo.num_iterations={iterations}", f"schedule.stop_after_steps={STEPS}"]
        sets += ["batch.micro_batch=8", "signal.order=difficulty", "signal.explore=1.0"]
        recipe = load_recipe("quickstart", sets).recipe
        _, run = attempt(tmp_path / str(iterations), recipe)
        steps = [event for event in run.events() if isinstance(event, Step)]
        assert [(e.step, e.optimizer_steps) for e in steps] == [
            (number, iterations) for number in range(1, STEPS + 1)
        ]
        assert {e.completions for e in steps} == {recipe.completions_per_step}
        rows = [list(read_jsonl(run.completions_file(e.step))) for e in steps]
        asked[iterations] = [[row["problem_id"] for row in step] for step in rows]
        newest = run.newest_checkpoint()
        assert newest is not None and newest.step == STEPS
        counted[iterations] = len(read_state(newest)["solve_rates"])
    assert asked[1] == asked[2], "the problems of a step do not depend on how often they are used"
    assert len({tuple(step) for step in asked[2]}) == STEPS
    assert counted[1] == counted[2]


@pytest.mark.parametrize("iterations", [2, 3])  # one is what every other test has
def test_every_pass_agrees_with_grpo_written_out(iterations: int, tmp_path: Path) -> None:
    made = harness.train(
        tmp_path,
        grpo__num_iterations=iterations,
        grpo__epsilon_high=0.3,
        schedule__learning_rate=0.003,
    )
    assert len(made.updates) == iterations
    for update in range(iterations):
        wanted = harness.expected_gradients(made, update)
        assert harness.distance(made.updates[update].gradients, wanted) <= TOLERANCE


def test_an_estimate_counts_what_is_updated() -> None:
    once, twice = (
        make_scenario(load_recipe("qwen3_r8", [f"grpo.num_iterations={n}"]).recipe, find_gpu("A40"))
        .passes()
        .to_json()
        for n in (1, 2)
    )
    assert twice["grad"] == 2 * once["grad"]
    assert twice["optimizer_steps"] == 2 * once["optimizer_steps"]
