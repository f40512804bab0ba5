"""The plan of a run in stages adds up, and says how many answers of each run at once."""

import pytest

from budgetrl.budget import Limits
from budgetrl.plan import Planned, make_plan
from budgetrl.recipe.load import load_recipe


@pytest.fixture(scope="module")
def planned() -> Planned:
    sets = ["batch.prompts_per_step=32", "engine.gpu_memory_utilization=0.3"]
    loaded = load_recipe("deepscaler_staged", sets)
    return make_plan(loaded, Limits(), gpu="A40", dry_run=True, force_fit=True)


def test_stages_add_up_to_the_run(planned: Planned) -> None:
    made = planned.plan
    assert made.steps == made.affordable_steps == sum(stage.steps for stage in made.stages) > 0
    trained_s = made.steps * made.step_s + made.saves_s + made.step_evals_s
    assert sum(stage.seconds for stage in made.stages) == pytest.approx(trained_s, rel=0.005)
    assert made.total_s <= made.budget_s


def test_shorter_answers_run_side_by_side_that_long_ones_could_not(planned: Planned) -> None:
    short, middle, long = [stage.together or 0 for stage in planned.staged]
    assert 256 >= short > middle > long > 0
    assert f"{long} at once" in planned.plan.stages[-1].remark
