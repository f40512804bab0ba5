import json
from dataclasses import replace
from pathlib import Path

import pytest

from budgetrl.budget import Budget, Limits, PhaseTimes
from budgetrl.errors import ExitCode, HardwareError, ModelError, RecipeError, UsageError
from budgetrl.estimation.advice import advise, refuse_unfit
from budgetrl.estimation.as_json import estimate_json, estimates_json
from budgetrl.estimation.estimate import (
    Measured,
    estimate,
    gpu_profile_path,
    known_factors,
)
from budgetrl.estimation.memory import Verdict
from budgetrl.estimation.profile import phase_factors, predicted_phases, profile_document
from budgetrl.estimation.request import Request, answer, answer_all, price_of
from budgetrl.estimation.scenario import make_scenario
from budgetrl.estimation.share import with_share
from budgetrl.hardware import DetectedGpu, find_gpu, gpu_table
from budgetrl.recipe.load import list_recipes, load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.units import GIB

A40 = find_gpu("A40")
DAY = Budget(24 * 3600, 0.30)


def recipe_of(name: str, *sets: str) -> Recipe:
    return load_recipe(name, sets).recipe


def test_the_papers_step_is_284_seconds_within_10_percent() -> None:
    for rank in (8, 64):
        made = estimate(recipe_of(f"qwen2.5_instruct_r{rank}"), A40, DAY)
        assert made.times.step_s == pytest.approx(284, rel=0.10)


@pytest.mark.parametrize("rank", [8, 64, 256])
def test_deepscaler_with_32_prompts_takes_430_to_550_seconds(rank: int) -> None:
    recipe = recipe_of(
        f"deepscaler_r{rank}", "batch.prompts_per_step=32", "batch.updates_per_rollout=2"
    )
    assert 430 <= estimate(recipe, A40, DAY).times.step_s <= 550


def test_evaluations_of_deepscaler_take_one_to_two_hours_of_the_day_and_this_is_said() -> None:
    made = estimate(recipe_of("deepscaler_r256"), A40, DAY)
    hours = next(a for a in estimate_json(made)["assumptions"] if a["key"] == "evaluation_hours")
    assert 1.1 <= hours["value"] <= 2.0
    assert "training alone" in hours["source"]


def test_the_plan_buys_about_the_papers_300_updates() -> None:
    made = estimate(recipe_of("deepscaler_r64"), A40, DAY)
    assert made.affordable_steps is not None
    assert made.affordable_band is not None
    assert 240 < made.affordable_steps < 360
    assert made.affordable_band.low < made.affordable_steps < made.affordable_band.high
    assert made.plan.total_s <= DAY.wall_s


def test_more_updates_than_the_budget_buys_can_be_priced() -> None:
    made = estimate(recipe_of("deepscaler_r64"), A40, DAY, steps=1000)
    assert made.steps == made.requested_steps == 1000
    assert made.plan.total_s > DAY.wall_s
    assert made.affordable_steps is not None
    assert made.affordable_steps < 1000


def test_a_stated_length_has_no_spread_of_its_own() -> None:
    stated = estimate(recipe_of("qwen3_r8", "sampling.expected_tokens=1900"), A40, DAY)
    assumed = estimate(recipe_of("qwen3_r8"), A40, DAY)
    width = [made.step_band.high / made.step_band.low for made in (stated, assumed)]
    assert width[0] < width[1]


@pytest.mark.parametrize("name", ["T4", "V100-32GB"])
def test_a_gpu_without_bfloat16_is_refused_and_float16_is_named(name: str) -> None:
    made = estimate(recipe_of("llama3.2_r8"), find_gpu(name), DAY)
    assert made.memory.verdict is Verdict.NO
    assert "float16" in made.memory.reason
    assert any('model.dtype = "float16"' in line for line in advise(made))
    half = estimate(recipe_of("llama3.2_r8", "model.dtype=float16"), find_gpu(name), DAY)
    assert half.fits


PAPER = [name for name in list_recipes() if load_recipe(name).recipe.paper is not None]


@pytest.mark.parametrize("name", PAPER)
def test_every_paper_recipe_stays_inside_an_a40_with_its_reference_pass(name: str) -> None:
    """At the high end of the memory band, with answers at the high end of their range."""
    recipe = recipe_of(name)
    longest = make_scenario(recipe, A40).mean_tokens.high
    made = estimate(recipe_of(name, f"sampling.expected_tokens={longest}"), A40, DAY)
    assert (made.memory.reference > 0) == (recipe.grpo.beta > 0)
    assert made.memory.high <= made.memory.usable <= 45 * GIB
    assert made.memory.verdict is Verdict.FITS


def test_a_stated_share_without_room_for_training_is_refused_with_both_numbers() -> None:
    recipe = recipe_of("deepscaler_r256", "engine.gpu_memory_utilization=0.95")
    with pytest.raises(HardwareError) as caught:
        refuse_unfit(estimate(recipe, A40, DAY))
    assert "engine.gpu_memory_utilization = 0.95 gives vLLM 42.7 of 45.0 GiB" in str(caught.value)
    assert "training needs 6.4 GiB beside it" in str(caught.value)
    assert "engine.gpu_memory_utilization = 0.5" in caught.value.hint
    assert caught.value.exit_code is ExitCode.REFUSED
    kept = estimate(recipe_of("deepscaler_r256", "engine.gpu_memory_utilization=0.6"), A40, DAY)
    assert (kept.memory.utilization, kept.memory.verdict) == (0.6, Verdict.FITS)


def test_without_standby_a_stated_share_has_to_leave_room_for_the_update_too() -> None:
    sets = ("engine.standby=false", "engine.gpu_memory_utilization=0.85")
    awake = estimate(recipe_of("deepscaler_r8", *sets), A40, DAY)
    assert awake.memory.verdict is Verdict.NO and "0.85 gives vLLM" in awake.memory.reason
    assert estimate(recipe_of("deepscaler_r8", sets[1]), A40, DAY).fits
    assert estimate(recipe_of("deepscaler_r8", sets[0]), A40, DAY).fits


def test_the_share_is_that_of_the_card_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of("deepscaler_r256")
    a40 = DetectedGpu("NVIDIA A40", "GPU-1", 44.99, "580.65", A40)
    unlisted = replace(a40, name="Something new", total_gib=80.0, gpu=None)
    shares = []
    for here in (None, a40, unlisted):
        monkeypatch.setattr("budgetrl.estimation.share.detect_gpu", lambda here=here: here)
        shares.append(with_share(recipe).engine.gpu_memory_utilization)
    assert shares[0] is None
    assert shares[1] == estimate(recipe, A40, DAY).memory.utilization
    assert shares[2] is not None and shares[2] < shares[1] == 0.5
    stated = recipe_of("deepscaler_r256", "engine.gpu_memory_utilization=0.7")
    assert with_share(stated) == stated
    elsewhere = recipe_of("deepscaler_r256", "model.id=nobody/knows-this")
    assert with_share(elsewhere) == elsewhere
    assert with_share(recipe_of("quickstart")) == recipe_of("quickstart")


def test_what_does_not_fit_names_changes_that_do_and_their_price() -> None:
    recipe = recipe_of("qwen2.5_instruct_r256", "batch.micro_batch=64")
    made = estimate(recipe, find_gpu("RTX 4090"), DAY)
    assert not made.fits
    lines = advise(made)
    assert lines
    assert all("fits" in line and "per update" in line for line in lines)
    with pytest.raises(HardwareError, match="GiB") as caught:
        refuse_unfit(made)
    assert "batch.micro_batch" in caught.value.hint
    changed = recipe_of("qwen2.5_instruct_r256", lines[0].split(":")[0].replace(" ", ""))
    assert estimate(changed, find_gpu("RTX 4090"), DAY).fits


def test_what_fits_is_told_how_to_get_more() -> None:
    lines = advise(estimate(recipe_of("deepscaler_r64"), A40, DAY))
    assert any(line.startswith("grpo.beta = 0") and "instead of" in line for line in lines)


def test_an_amd_card_is_told_that_the_install_is_for_cuda() -> None:
    assert "AMD" in advise(estimate(recipe_of("deepscaler_r64"), find_gpu("MI300X"), DAY))[0]
    assert not any("AMD" in line for line in advise(estimate(recipe_of("deepscaler_r64"), A40)))


def test_prompt_and_answer_beyond_the_window_are_refused_with_the_largest_that_fits() -> None:
    with pytest.raises(RecipeError, match="window") as caught:
        estimate(recipe_of("qwen2.5_math_r8", "sampling.max_tokens=4000"), A40)
    assert "3584" in caught.value.hint


def test_an_expected_length_above_the_limit_is_refused() -> None:
    with pytest.raises(RecipeError, match="is above"):
        estimate(recipe_of("qwen3_r8", "sampling.expected_tokens=4000"), A40)


def test_an_unknown_model_is_refused_with_near_names() -> None:
    with pytest.raises(ModelError) as caught:
        estimate(recipe_of("qwen3_r8", "model.id=Qwen/Qwen3-0.7B"), A40)
    assert "Qwen/Qwen3-0.6B" in caught.value.hint


@pytest.mark.timeout(60)
def test_every_bundled_recipe_is_estimated_on_every_gpu() -> None:
    recipes = [load_recipe(name).recipe for name in list_recipes()]
    for recipe in recipes:
        for gpu in gpu_table().values():
            assert estimate(recipe, gpu, DAY).times.step_s > 0


def test_the_price_is_the_flags_else_the_recipes_for_its_gpu_else_published() -> None:
    recipe = recipe_of("deepscaler_r8")
    flag, own, other = (
        price_of(recipe, A40, 0.5),
        price_of(recipe, A40),
        price_of(recipe, find_gpu("L4")),
    )
    assert flag is not None
    assert own is not None
    assert other is not None
    assert (flag.usd_per_hour, own.usd_per_hour, other.usd_per_hour) == (0.5, 0.30, 0.44)
    assert other.date == "2026-03"


def test_dollars_need_a_price() -> None:
    with pytest.raises(UsageError, match="price"):
        answer(Request(recipe_of("qwen3_r8"), gpu="RTX A5000", limits=Limits(usd=5)))


@pytest.mark.parametrize("steps", [0, -3])
def test_a_plan_for_no_updates_is_refused(steps: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        answer(Request(recipe_of("qwen3_r8"), gpu="A40", steps=steps))


def test_all_gpus_mark_the_cheapest_and_the_fastest_that_fit() -> None:
    made = estimates_json(answer_all(Request(recipe_of("deepscaler_r8"), limits=Limits(24 * 3600))))
    rows = {row["gpu"]["name"]: row for row in made["gpus"]}
    assert len(rows) == 26
    fitting = [row for row in rows.values() if row["fits"]]
    priced = [row for row in fitting if row["steps_per_usd"] is not None]
    best = max(priced, key=lambda row: row["steps_per_usd"])
    assert made["cheapest"] == best["gpu"]["name"]
    assert made["fastest"] == min(fitting, key=lambda row: row["seconds"]["step"])["gpu"]["name"]


def test_a_cpu_recipe_can_be_planned_for_a_gpu() -> None:
    made = answer(Request(recipe_of("quickstart"), gpu="A40"))
    assert made.fits
    assert made.scenario.recipe.engine.device == "cuda"


def test_the_document_is_the_contracts() -> None:
    made = estimate_json(estimate(recipe_of("deepscaler_r256"), A40, DAY, price=A40.price()))
    keys = {
        "gpu": "name memory_gib usd_per_hour price_source price_date",
        "memory_gib": "weights adapter gradients optimizer kv_cache rollout_buffers reserved "
        "logits activations reference runtime peak_generation peak_training peak low high",
        "disk_gib": "environment model checkpoints completions total",
        "seconds": "setup baseline_eval rollout reward logprob update other step step_low "
        "step_high checkpoint_evals final_eval save report reserve",
        "steps": "affordable low high requested",
        "tokens": "per_step total",
        "hours": "total low high",
        "usd": "total low high per_step",
    }
    for table, names in keys.items():
        assert set(names.split()) <= set(made[table]), table
    assert {"schema_version", "recipe", "fits", "verdict", "assumptions", "advice"} <= set(made)
    assert all(set(a) == {"key", "value", "source"} for a in made["assumptions"])
    seconds = made["seconds"]
    parts = [seconds[name] for name in ("rollout", "reward", "logprob", "update", "other")]
    assert sum(parts) == pytest.approx(seconds["step"])
    assert seconds["step_low"] < seconds["step"] < seconds["step_high"]
    for table in ("hours", "usd"):
        assert made[table]["low"] <= made[table]["total"] <= made[table]["high"]
    json.dumps(made, allow_nan=False)


def test_evaluations_at_fractions_follow_from_what_is_affordable() -> None:
    assert estimate(recipe_of("deepscaler_r8"), A40, DAY).times.step_evals_every == 20


def measured_like(recipe: Recipe, rollout: float, update: float) -> PhaseTimes:
    """A run that took `rollout` and `update` times what was predicted."""
    times = predicted_phases(recipe, A40, 1500.0).times(None)
    return replace(times, rollout_s=rollout * times.rollout_s, update_s=update * times.update_s)


def test_a_run_corrects_other_ranks_lengths_and_gpus_by_phase() -> None:
    run = recipe_of("qwen2.5_instruct_r8")
    times = measured_like(run, rollout=1.5, update=0.5)
    factors = phase_factors(times, predicted_phases(run, A40, 1500.0))
    assert (factors["rollout"], factors["update"]) == (pytest.approx(1.5), pytest.approx(0.5))
    measured = Measured(factors, "a run")
    for name, gpu in (("qwen2.5_instruct_r256", "A40"), ("deepscaler_r8", "L40S")):
        plain = estimate(recipe_of(name), find_gpu(gpu), DAY)
        corrected = estimate(recipe_of(name), find_gpu(gpu), DAY, measured=measured)
        assert corrected.times.rollout_s == pytest.approx(1.5 * plain.times.rollout_s)
        assert corrected.times.update_s == pytest.approx(0.5 * plain.times.update_s)
        assert corrected.times.source == "a run"


def test_a_profile_file_keeps_factors() -> None:
    recipe = recipe_of("deepscaler_r8")
    stored = profile_document(recipe, A40, {"rollout": 1.23456}, "2026-11-21")
    assert stored["factors"] == {"rollout": 1.235}
    assert (stored["gpu"], stored["schema_version"]) == ("A40", 1)


@pytest.mark.parametrize("factor", ["-5", "NaN", "1e308", f"1{'0' * 400}", "[" * 10_000])
def test_an_absurd_profile_in_the_cache_is_not_used(tmp_path: Path, factor: str) -> None:
    recipe = recipe_of("deepscaler_r8")
    file = gpu_profile_path(A40, recipe.name, tmp_path)
    file.parent.mkdir()
    head = '{"schema_version": 1, "gpu": "A40", "recipe": "x", "measured": "y", '
    head += '"factors": {"rollout": '
    file.write_text(head + "1.5}}")
    assert known_factors(recipe, A40, tmp_path) == Measured(
        {"rollout": 1.5}, "`budgetrl bench` of x on A40, y"
    )
    file.write_text(head + factor + "}}")
    (file.parent / "gpu-A40--dangling.json").symlink_to("nowhere")
    assert known_factors(recipe, A40, tmp_path) is None


def test_a_model_from_its_config_json_is_planned(tmp_path: Path) -> None:
    config = {
        **{"model_type": "qwen2", "num_hidden_layers": 28, "hidden_size": 1536},
        **{"num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960},
        **{"vocab_size": 151936, "tie_word_embeddings": True, "max_position_embeddings": 32768},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = estimate(recipe_of("qwen2.5_instruct_r8", f"model.id={tmp_path}"), A40, DAY)
    known = estimate(recipe_of("qwen2.5_instruct_r8"), A40, DAY)
    assert made.times.step_s == pytest.approx(known.times.step_s)
