"""Recipe and flags become a plan and a run directory, or a refusal that leaves nothing behind."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from budgetrl.budget import Budget, Limits, PhaseTimes
from budgetrl.errors import (
    BudgetError,
    DataError,
    ExitCode,
    HardwareError,
    ModelError,
    RecipeError,
    RunDirError,
    UsageError,
)
from budgetrl.estimation.cpu_profile import store_profile
from budgetrl.pace import free_cores
from budgetrl.plan import Planned, budget_of, create_run, make_plan, plan_document
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import list_runs
from budgetrl.types import RunStatus
from budgetrl.units import parse_duration_s

MeasuredHere = Callable[[PhaseTimes], None]
NAMED = ("recipe.name=measured", "lora.rank=48")
"""A recipe that the bundled profile says nothing of, so that the plan is the last run's alone."""

TIMES = PhaseTimes(
    imports_s=4, model_s=0.5, data_s=0.5, baseline_s=10, rollout_s=1, reward_s=0.25, logprob_s=0,
    update_s=0.5, other_s=0.25, step_eval_s=0, step_evals_every=None, final_s=10, save_s=1,
    saves_every_s=60, report_s=4, source="a test",
)  # fmt: skip
"""Setup 5 s, baseline 10 s, an update 2 s, the end 13 + 1 + 5 s."""


@pytest.fixture
def measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MeasuredHere:
    """Leaves a profile of the recipe in this user's cache, as a finished run does."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def leave(times: PhaseTimes) -> None:
        recipe = load_recipe("quickstart", NAMED).recipe
        store_profile(recipe, times, tmp_path / "cache" / "budgetrl")

    return leave


def planned(*sets: str, **limits: float) -> Planned:
    return make_plan(load_recipe("quickstart", [*NAMED, *sets]), Limits(**limits))


def seconds(number: float) -> dict[str, float]:
    return {"wall_s": number}


# --- budgets


def test_any_limit_on_the_command_line_replaces_both_of_the_recipe() -> None:
    recipe = load_recipe(
        "quickstart", ["budget.hours=2", "budget.usd=1", "budget.usd_per_hour=1"]
    ).recipe

    def wall_s(**limits: float) -> float:
        return budget_of(recipe, Limits(**limits)).wall_s

    assert wall_s() == 3600
    assert wall_s(wall_s=3 * 3600) == 3 * 3600
    assert wall_s(usd=5) == 5 * 3600
    assert wall_s(usd=5, price=0.5) == 10 * 3600
    assert wall_s(price=0.5) == 2 * 3600
    assert wall_s(wall_s=3 * 3600, usd=1) == 3600


def test_dollars_need_a_price_and_a_run_needs_a_budget() -> None:
    with pytest.raises(UsageError, match="price of an hour") as caught:
        planned(usd=5)
    assert caught.value.exit_code == ExitCode.USER
    tables = load_recipe("quickstart").recipe.model_dump(mode="json")
    unlimited = Recipe.model_validate(tables | {"budget": {}}, strict=False)
    with pytest.raises(UsageError, match="has no budget"):
        budget_of(unlimited, Limits())


# --- go or refuse


def test_a_plan_is_made_from_what_the_last_run_here_measured(measured_here: MeasuredHere) -> None:
    measured_here(TIMES)
    made = planned(**seconds(100)).plan
    assert made.affordable_steps == (100 - 5 - 10 - 13 - 1 - 6.2 - 1) // 2
    assert "the last finished run of measured" in made.source
    assert planned("schedule.stop_after_steps=7", **seconds(100)).plan.steps == 7


def test_a_budget_without_an_update_runs_only_if_it_pays_for_an_evaluation(
    measured_here: MeasuredHere,
) -> None:
    measured_here(TIMES)
    assert planned(**seconds(14.0)).plan.steps == 0
    with pytest.raises(BudgetError, match="pays for nothing useful") as caught:
        planned(**seconds(10.8))
    assert caught.value.exit_code == ExitCode.REFUSED
    assert "need 11 s" in str(caught.value)


def test_fewer_rounds_are_planned_before_an_update_is_given_up(
    measured_here: MeasuredHere,
) -> None:
    measured_here(TIMES)
    made = planned(**seconds(21.0)).plan
    assert made.steps == 1
    assert made.baseline_s == pytest.approx(5.0), "two of four rounds"
    assert made.total_s <= 21.0


def test_a_busy_machine_takes_longer_and_the_plan_says_so(measured_here: MeasuredHere) -> None:
    measured_here(TIMES)
    loaded = load_recipe("quickstart", NAMED)
    alone, busy = (make_plan(loaded, Limits(**seconds(300)), slow=slow) for slow in (1.0, 3.0))
    assert busy.plan.setup_s == pytest.approx(3 * alone.plan.setup_s)
    assert busy.exit_s == pytest.approx(3 * alone.exit_s)
    assert "the machine is busy now" in busy.plan.source
    with pytest.raises(BudgetError):
        make_plan(loaded, Limits(**seconds(20)), slow=3.0)


def test_the_smallest_budget_that_a_refusal_names_buys_an_update(
    measured_here: MeasuredHere,
) -> None:
    measured_here(replace(TIMES, imports_s=90.0, final_s=33.0))
    with pytest.raises(BudgetError) as caught:
        planned(**seconds(30))
    named = parse_duration_s(caught.value.hint.rpartition("--hours ")[2].removesuffix("."))
    assert planned(**seconds(named)).plan.steps >= 1


def test_a_gpu_recipe_without_a_gpu_is_refused_and_offers_the_quickstart() -> None:
    with pytest.raises(HardwareError, match="needs an NVIDIA GPU") as caught:
        planned("engine.device=cuda")
    assert caught.value.exit_code == ExitCode.REFUSED
    assert "budgetrl run quickstart" in caught.value.hint


def test_local_files_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    model = tmp_path / "model"
    with pytest.raises(ModelError, match=r"no such model folder .*config\.json"):
        planned(f"model.id={model}")
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="has no tokenizer") as caught:
        planned(f"model.id={model}")
    assert caught.value.exit_code == ExitCode.USER
    with pytest.raises(DataError, match=r"nope\.jsonl: cannot be read"):
        planned(f"data.path={tmp_path / 'nope.jsonl'}")
    empty_answers = tmp_path / "empty.jsonl"
    empty_answers.write_text('{"problem": "1+1", "answer": ""}\n')
    with pytest.raises(DataError, match="1 of 1 rows cannot be used"):
        planned(f"data.path={empty_answers}")


# --- the run directory


def test_a_new_run_directory_says_what_was_asked_and_planned(
    measured_here: MeasuredHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_here(TIMES)
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-the-user")
    made = planned("lora.rank=8", **seconds(100))
    run = create_run(made, tmp_path / "runs", ["budgetrl", "run", "my recipe.toml"])
    assert [found.path for found in list_runs(tmp_path / "runs")] == [run.path]
    assert run.status() is RunStatus.CRASHED
    assert (run.path / "recipe.toml").read_text() == made.loaded.path.read_text()
    resolved = run.read_json("recipe.resolved.json")
    assert Recipe.model_validate(resolved["recipe"], strict=False) == made.recipe
    assert resolved["sources"]["lora.rank"] == "command line"
    assert run.read_json("plan.json") == json.loads(json.dumps(plan_document(made)))
    manifest = run.read_json("manifest.json")
    assert manifest["command"] == "budgetrl run 'my recipe.toml'"
    assert {"torch", "trl", "peft"} <= manifest["versions"].keys()
    written = "".join(path.read_text() for path in run.path.rglob("*") if path.is_file())
    assert "secret-of-the-user" not in written
    assert os.environ["XDG_CACHE_HOME"] not in written


def test_a_folder_that_cannot_be_written_leaves_nothing_half_made(
    measured_here: MeasuredHere, tmp_path: Path
) -> None:
    measured_here(TIMES)
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(RunDirError):
        create_run(planned(**seconds(100)), tmp_path / "runs", ["budgetrl"])
    assert (tmp_path / "runs").read_text() == "a file where the folder should be"


def test_whatever_goes_wrong_nothing_half_made_is_left(
    measured_here: MeasuredHere, tmp_path: Path
) -> None:
    measured_here(TIMES)
    endless = replace(planned(**seconds(100)), budget=Budget(math.inf))  # JSON cannot say it
    with pytest.raises(ValueError, match="JSON"):
        create_run(endless, tmp_path / "runs", ["budgetrl"])
    assert not any((tmp_path / "runs").iterdir())


def test_a_second_copy_in_the_place_of_the_first_is_refused(
    measured_here: MeasuredHere, tmp_path: Path
) -> None:
    measured_here(TIMES)
    made = planned(f"checkpoint.mirror={tmp_path}/runs", **seconds(100))
    with pytest.raises(UsageError, match="no second copy"):
        create_run(made, tmp_path / "runs", ["budgetrl"])
    assert not (tmp_path / "runs").exists()


def test_what_follows_the_worker_is_kept_out_of_its_deadline(measured_here: MeasuredHere) -> None:
    measured_here(TIMES)
    made = planned(**seconds(100))
    assert made.plan.report_s > made.times.report_s + 1.0
    assert made.plan.total_s <= made.budget.wall_s


def test_auto_threads_are_the_cores_at_hand_and_more_are_refused() -> None:
    free = load_recipe("quickstart", ["engine.threads=auto"])
    assert free.recipe.engine.threads == free_cores()
    many = load_recipe("quickstart", ["engine.threads=100000"])
    with pytest.raises(RecipeError, match=r"engine\.threads = 100000 is above the \d+ cores"):
        make_plan(many, Limits(), dry_run=True)
