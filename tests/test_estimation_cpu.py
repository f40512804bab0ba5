import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from budgetrl.budget import PhaseTimes
from budgetrl.estimation.cadence import saves_every_s, step_evals_every
from budgetrl.estimation.cpu import (
    Profile,
    cpu_phase_times,
    measured_profile,
    scaled_profile,
    store_profile,
    work_of,
)
from budgetrl.processor import cpu_model, cpu_speed, peak_rss_gib
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe

RECIPE = """
[recipe]
name = "small"
[model]
id = "asset:tiny"
dtype = "float32"
[lora]
rank = 8
alpha = 8
[data]
path = "train.jsonl"
[schedule]
learning_rate = 1e-3
stop_after_steps = 60
[batch]
prompts_per_step = 16
[sampling]
max_tokens = 64
[engine]
name = "plain"
device = "cpu"
threads = 1
[checkpoint]
every_minutes = 2
[[eval]]
suite = "heldout"
path = "heldout.jsonl"
samples = 4
"""

MEASURED = PhaseTimes(
    imports_s=5.0,
    model_s=1.0,
    data_s=0.5,
    baseline_s=8.0,
    rollout_s=1.0,
    reward_s=0.1,
    logprob_s=0.0,
    update_s=0.6,
    other_s=0.05,
    step_eval_s=0.0,
    step_evals_every=None,
    final_s=9.0,
    save_s=0.2,
    saves_every_s=120.0,
    report_s=3.0,
    source="a run",
)


def recipe_of(tmp_path: Path, *sets: str) -> Recipe:
    file = tmp_path / "small.toml"
    file.write_text(RECIPE)
    return load_recipe(file, sets=sets).recipe


def profile_of(recipe: Recipe, gflops: float = 50.0) -> Profile:
    return Profile(recipe.name, "some CPU", 1, gflops, "2026-11-20", MEASURED, work_of(recipe))


def test_a_named_run_wins_over_everything(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    store_profile(recipe, MEASURED, tmp_path)
    named = replace(MEASURED, rollout_s=3.0, source="runs/x")
    times = cpu_phase_times(recipe, named, tmp_path)
    assert (times.rollout_s, times.source) == (3.0, "runs/x")


def test_the_last_run_of_a_recipe_is_the_next_plan(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    store_profile(recipe, MEASURED, tmp_path)
    times = cpu_phase_times(recipe, None, tmp_path)
    assert replace(times, source="a run") == MEASURED
    assert "last finished run of small" in times.source


@pytest.mark.parametrize("change", ["engine.threads=2", "recipe.name=other"])
def test_a_profile_of_other_threads_or_another_recipe_is_not_taken(
    tmp_path: Path, change: str
) -> None:
    stored = store_profile(recipe_of(tmp_path), MEASURED, tmp_path)
    other = store_profile(recipe_of(tmp_path, change), MEASURED, tmp_path)
    assert stored != other


def test_a_slower_machine_takes_longer_in_every_phase(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    times = scaled_profile(profile_of(recipe, gflops=50), recipe, gflops=25, cores=4)
    assert times.step_s == pytest.approx(2 * MEASURED.step_s)
    assert times.setup_s == pytest.approx(2 * MEASURED.setup_s)
    assert "x2.00" in times.source


def test_fewer_cores_than_threads_slow_a_run_down(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "engine.threads=4")
    times = scaled_profile(profile_of(recipe, gflops=50), recipe, gflops=50, cores=2)
    assert times.step_s == pytest.approx(2 * MEASURED.step_s)


def test_times_follow_the_amount_of_work(tmp_path: Path) -> None:
    profile = profile_of(recipe_of(tmp_path))
    sets = ["batch.prompts_per_step=32", "eval.heldout.samples=1"]
    times = scaled_profile(profile, recipe_of(tmp_path, *sets), gflops=50, cores=1)
    assert times.rollout_s == pytest.approx(2 * MEASURED.rollout_s)
    assert times.baseline_s == pytest.approx(MEASURED.baseline_s / 4)
    assert times.imports_s == MEASURED.imports_s


def test_evaluations_during_training_are_planned_though_the_profile_had_none(
    tmp_path: Path,
) -> None:
    profile = profile_of(recipe_of(tmp_path))
    sets = ['eval.heldout.when=["baseline","step","final"]', "eval.heldout.every_steps=20"]
    recipe = recipe_of(tmp_path, *sets)
    assert step_evals_every(recipe) == 20
    assert scaled_profile(profile, recipe, 50, 1).step_eval_s == pytest.approx(MEASURED.final_s)


def test_fractions_become_an_interval(tmp_path: Path) -> None:
    sets = ['eval.heldout.when=["step"]', "eval.heldout.at_fractions=[0.25,0.5,0.75]"]
    recipe = recipe_of(tmp_path, *sets)
    assert step_evals_every(recipe) == 20
    assert step_evals_every(recipe, steps=9) == 3


def test_the_sooner_of_two_save_intervals_counts(tmp_path: Path) -> None:
    assert saves_every_s(recipe_of(tmp_path), 2.0, 3600) == 120
    assert saves_every_s(recipe_of(tmp_path, "checkpoint.every_steps=10"), 2.0, 3600) == 20


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 1}', '{"schema_version": 9}'])
def test_a_damaged_cached_profile_is_not_used(tmp_path: Path, content: str) -> None:
    recipe = recipe_of(tmp_path)
    store_profile(recipe, MEASURED, tmp_path).write_text(content)
    times = cpu_phase_times(recipe, None, tmp_path)
    assert "bundled profile" in times.source
    assert times.step_s > 0


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("times", "rollout_s", -5.0),
        ("times", "rollout_s", math.nan),
        ("times", "rollout_s", "1.0"),
        ("times", "rollout_s", None),
        ("times", "update_s", 10**400),
        ("work", "completions", 0),
        ("work", "max_tokens", "64"),
    ],
)
def test_a_cached_profile_with_absurd_numbers_is_not_used(
    tmp_path: Path, table: str, key: str, value: object
) -> None:
    recipe = recipe_of(tmp_path)
    file = store_profile(recipe, MEASURED, tmp_path)
    data = json.loads(file.read_text())
    file.write_text(json.dumps(data | {table: data[table] | {key: value}}))
    assert "bundled profile" in cpu_phase_times(recipe, None, tmp_path).source


def test_a_profile_file_says_what_was_measured_where(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    data = json.loads(json.dumps(measured_profile(recipe, MEASURED, {"torch": "2"}).to_json()))
    assert data["schema_version"] == 1
    assert (data["recipe"], data["threads"], data["cpu"]) == ("small", 1, cpu_model())
    assert data["times"]["rollout_s"] == 1.0
    assert data["work"]["completions"] == 128


def test_cpu_speed_is_a_plausible_rate() -> None:
    assert 0.1 < cpu_speed(measure_s=0.02) < 2000


def test_the_peak_of_memory_is_what_the_kernel_counts_for_this_process() -> None:
    before = peak_rss_gib()
    assert 0.02 < before < 100
    held = bytearray(256 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert peak_rss_gib() >= before
    del held
    assert peak_rss_gib() > 0.25, "a peak stays when the memory is given back"
