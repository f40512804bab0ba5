"""The plan of a CPU run: from the model's size, from what runs measured, and from its baseline."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from budgetrl.budget import Budget, PhaseTimes
from budgetrl.data.prompt_length import PromptLengths, prompt_lengths
from budgetrl.errors import HardwareError
from budgetrl.estimation.adapters import Adapter
from budgetrl.estimation.advice import refuse_unfit
from budgetrl.estimation.cadence import saves_every_s, step_evals_every
from budgetrl.estimation.cpu_memory import cpu_memory
from budgetrl.estimation.cpu_phases import Prompts, cpu_scenario, predict, shape_or_guess
from budgetrl.estimation.cpu_profile import (
    Profile,
    apply_profile,
    bundled_profile,
    measured_profile,
    phases_by_run,
    planned_phases,
    profile_key,
    store_profile,
)
from budgetrl.estimation.cpu_replan import after_baseline
from budgetrl.estimation.cpu_time import (
    Batch,
    Machine,
    Passes,
    formulas,
    generation,
    seconds,
    training,
)
from budgetrl.estimation.estimate import estimate_cpu
from budgetrl.estimation.machine import this_cpu
from budgetrl.estimation.shapes import ModelShape, find_shape
from budgetrl.estimation.terms import total
from budgetrl.files import read_jsonl
from budgetrl.processor import cpu_model, cpu_speed, peak_rss_gib
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.types import EvalResult, Problem, Protocol as EvalProtocol
from budgetrl.units import GIB

MEASUREMENTS = Path(__file__).resolve().parents[2] / "docs" / "measurements"
MEASURED = PhaseTimes(
    imports_s=5.0, model_s=1.0, data_s=0.5, baseline_s=8.0, rollout_s=1.0, reward_s=0.1,
    logprob_s=0.02, update_s=0.6, other_s=0.05, step_eval_s=0.0, step_evals_every=None,
    final_s=9.0, save_s=0.2, saves_every_s=60.0, report_s=3.0, source="a run", tokens_mean=30.0,
)  # fmt: skip
OTHER = "lora.rank=48"
"""A rank of the quickstart that no profile ships for."""
HERE = Machine(100.0, 1, 2)
PROMPTS = Prompts(PromptLengths((24, 26, 28), "a test"), {})
RANDOM = {
    "random-25m": (10, 384, 6, 2, 1152, 16384),
    "random-60m": (12, 512, 8, 4, 1536, 49152),
    "wide-vocabulary": (4, 128, 4, 1, 256, 151936),
}
"""Layers, hidden, heads, KV heads, intermediate, vocabulary, as in scripts/fit_cpu_plan.py."""


def recipe_of(*sets: str) -> Recipe:
    return load_recipe("quickstart", [OTHER, *sets]).recipe


def predicted(recipe: Recipe, machine: Machine = HERE) -> Mapping[str, float]:
    return predict(cpu_scenario(recipe, this_cpu()), machine, PROMPTS).seconds


def shape_of(name: str) -> ModelShape:
    if name == "quickstart":
        return find_shape("asset:tiny/quickstart")
    if name == "smollm2":
        return find_shape("HuggingFaceTB/SmolLM2-135M-Instruct")
    layers, hidden, heads, kv_heads, intermediate, vocab = RANDOM[name]
    head = hidden // heads
    return ModelShape(
        name, "llama", layers, hidden, heads, kv_heads, head, intermediate, vocab, True, 2048
    )


# --- formulas


def test_formulas_agree_with_what_was_measured_of_five_models() -> None:
    ratios = []
    for row in read_jsonl(MEASUREMENTS / "cpu_phases.jsonl"):
        shape = shape_of(row["name"])
        size = (row["prompt"], row["completion"])
        if row["what"] == "rollout":
            parts = generation(Batch(row["rows"], *size), shape)
        else:
            parts = training(Passes(row["rows"], 1, *size, Adapter(row["rank"])), shape)
        ratios.append(total(seconds(parts, Machine(row["gflops"]))) / row["seconds"])
    assert len(ratios) >= 20
    assert all(0.7 < ratio < 1.4 for ratio in ratios), ratios
    assert median(abs(ratio - 1) for ratio in ratios) < 0.15


def test_a_model_of_135_million_parameters_is_not_planned_as_one_of_half_a_million() -> None:
    sets = ("batch.prompts_per_step=4", "batch.micro_batch=4", "sampling.max_tokens=12")
    small = predicted(recipe_of(*sets))
    large = predicted(recipe_of(*sets, "model.id=HuggingFaceTB/SmolLM2-135M-Instruct"))
    for phase in ("rollout", "update", "baseline"):
        assert large[phase] > 8 * small[phase]


@pytest.mark.parametrize(
    ("change", "phase"),
    [
        ("sampling.max_tokens=128", "rollout"),
        ("sampling.max_tokens=128", "update"),
        ("batch.prompts_per_step=32", "rollout"),
        ("batch.prompts_per_step=32", "update"),
        ("eval.heldout.samples=8", "baseline"),
        ("grpo.beta=0.1", "logprob"),
        ("engine.gradient_checkpointing=true", "update"),
    ],
)
def test_more_work_takes_longer(change: str, phase: str) -> None:
    skip = "signal.skip=off"
    assert predicted(recipe_of(skip, change))[phase] > 1.2 * predicted(recipe_of(skip))[phase]


def test_prompts_and_the_vocabulary_count() -> None:
    recipe = recipe_of("prompt.max_tokens=180")
    long = Prompts(PromptLengths((150, 160), "a test"), {})
    scenario = cpu_scenario(recipe, this_cpu())
    assert predict(scenario, HERE, long).seconds["rollout"] > 1.5 * predicted(recipe)["rollout"]
    wide = replace(scenario, shape=replace(scenario.shape, vocab=152_000))
    assert predict(wide, HERE, PROMPTS).seconds["rollout"] > 10 * predicted(recipe)["rollout"]


def test_a_slower_machine_takes_longer_and_more_threads_help_as_far_as_there_are_cores() -> None:
    recipe = recipe_of()
    slow, fast = predicted(recipe, Machine(50.0)), predicted(recipe, Machine(100.0))
    assert slow["rollout"] == pytest.approx(2 * fast["rollout"])
    assert slow["imports"] == pytest.approx(2 * fast["imports"])
    two, crowded = (predicted(recipe, Machine(100.0, 2, cores)) for cores in (2, 1))
    assert 0.5 * fast["update"] < two["update"] < 0.95 * fast["update"]
    assert crowded["update"] == pytest.approx(fast["update"])


def test_a_hub_model_that_is_not_here_is_planned_by_the_size_in_its_name() -> None:
    shape = shape_or_guess(recipe_of("model.id=somebody/my-finetune-0.5B-v2"))
    assert 4e8 < shape.params < 7e8


# --- prompts


def test_prompts_are_counted_by_the_tokenizer_and_cut_at_the_limit() -> None:
    recipe = load_recipe("quickstart").recipe
    problems = [Problem(str(n), f"Compute {'1+' * n}1.", "1") for n in range(1, 30)]
    found = prompt_lengths(recipe.model, recipe.prompt, problems)
    assert "counted" in found.source
    assert found.lengths[0] < 30 and found.lengths[-1] == recipe.prompt.max_tokens
    assert found.mean < found.longest_of(4) <= found.longest_of(64)


def test_without_a_tokenizer_the_text_is_the_guess() -> None:
    recipe = load_recipe("quickstart", ["model.id=nobody/nothing", "prompt.max_tokens=512"]).recipe
    problems = [Problem("1", "What is 17 + 25, and why? " * 4, "42")]
    found = prompt_lengths(recipe.model, recipe.prompt, problems)
    assert "guessed" in found.source
    assert 40 < found.mean < 120


# --- profiles


def test_the_last_run_of_such_a_model_is_the_next_plan(tmp_path: Path) -> None:
    recipe = recipe_of()
    store_profile(recipe, MEASURED, tmp_path)
    times = planned_phases(recipe, tmp_path).times(None)
    for name in ("imports_s", "baseline_s", "rollout_s", "update_s", "final_s", "report_s"):
        assert getattr(times, name) == pytest.approx(getattr(MEASURED, name), rel=1e-3)
    assert "last finished run of quickstart" in times.source
    assert times.tokens_mean == 30.0


def test_a_profile_belongs_to_the_work_and_not_to_the_recipes_name(tmp_path: Path) -> None:
    stored = store_profile(recipe_of(), MEASURED, tmp_path)
    assert store_profile(recipe_of("recipe.name=another"), MEASURED, tmp_path) == stored
    changes = (
        *("engine.threads=2", "model.dtype=bfloat16", "model.id=asset:tiny/strong"),
        *("lora.rank=8", "batch.prompts_per_step=32", "batch.micro_batch=32"),
    )
    paths = {store_profile(recipe_of(change), MEASURED, tmp_path) for change in changes}
    shared = profile_key(recipe_of("model.id=asset:tiny/strong")) == profile_key(recipe_of())
    assert len(paths | {stored}) == len(changes) + (0 if shared else 1)


def test_what_a_run_took_scales_with_the_work(tmp_path: Path) -> None:
    store_profile(recipe_of(), MEASURED, tmp_path)
    once = planned_phases(
        recipe_of("eval.heldout.samples=1", "eval.heldout.k=[1]"), tmp_path
    ).seconds
    twice = planned_phases(recipe_of("sampling.max_tokens=128"), tmp_path).seconds
    # fewer rows in a batch waste a little: each token of it has a part that does not shrink
    assert MEASURED.baseline_s / 5 <= once["baseline"] <= MEASURED.baseline_s / 3
    assert once["imports"] == pytest.approx(MEASURED.imports_s, rel=1e-3)
    assert twice["rollout"] >= MEASURED.rollout_s


def test_a_disturbed_run_does_not_make_the_next_plan_absurd(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart").recipe
    store_profile(recipe, replace(MEASURED, rollout_s=40.0, update_s=0.1), tmp_path)
    found = planned_phases(recipe, tmp_path).seconds
    assert 0.2 < found["rollout"] < 10
    assert found["update"] < 0.5


def test_the_shipped_profile_is_the_quickstarts_and_scales_with_the_matrix_speed() -> None:
    recipe, shipped = load_recipe("quickstart").recipe, bundled_profile()
    assert shipped.key == profile_key(recipe)
    there, half = (
        apply_profile(shipped, recipe, Machine(shipped.gflops / n, 1, 2), PROMPTS, "x").times(None)
        for n in (1, 2)
    )
    # What it measured on 2026-11-30, updates with one product a layer: before it was 0.614 s.
    assert there.rollout_s == pytest.approx(0.424, rel=0.1)
    assert there.update_s == pytest.approx(0.396, rel=0.1)
    assert there.early_step_s == pytest.approx(1.11 * there.step_s, rel=0.02)
    assert half.step_s == pytest.approx(2 * there.step_s)


def test_a_run_that_the_user_names_corrects_the_plan() -> None:
    recipe = recipe_of()
    phases = phases_by_run(recipe_of("lora.rank=8"), recipe, replace(MEASURED, source="runs/x"))
    assert phases.source == "runs/x"
    assert phases.seconds["rollout"] == pytest.approx(MEASURED.rollout_s, rel=0.1)


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 2}', '{"schema_version": 9}'])
def test_a_damaged_cached_profile_is_not_used(tmp_path: Path, content: str) -> None:
    recipe = recipe_of()
    store_profile(recipe, MEASURED, tmp_path).write_text(content)
    found = planned_phases(recipe, tmp_path)
    assert "the model's size" in found.source
    assert found.seconds["rollout"] > 0


@pytest.mark.parametrize("value", [-5.0, math.nan, "1.0", None, 10**400])
@pytest.mark.parametrize("key", ["rollout", "gflops"])
def test_a_cached_profile_with_absurd_numbers_is_not_used(
    tmp_path: Path, key: str, value: object
) -> None:
    recipe = recipe_of()
    file = store_profile(recipe, MEASURED, tmp_path)
    data = json.loads(file.read_text())
    (data if key == "gflops" else data["factors"])[key] = value
    file.write_text(json.dumps(data))
    assert "the model's size" in planned_phases(recipe, tmp_path).source


def test_a_profile_over_other_formulas_is_not_used(tmp_path: Path) -> None:
    recipe = recipe_of()
    file = store_profile(recipe, MEASURED, tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"formulas": "earlier ones"}))
    assert "the model's size" in planned_phases(recipe, tmp_path).source
    assert bundled_profile().formulas == formulas(), "scripts/fit_cpu_plan.py --write rescales it"


def test_a_profile_file_says_what_was_measured_where() -> None:
    made: Profile = measured_profile(recipe_of(), MEASURED, {"torch": "2"}, HERE, PROMPTS)
    data: dict[str, Any] = json.loads(json.dumps(made.to_json()))
    assert (data["recipe"], data["cpu"], data["gflops"]) == ("quickstart", cpu_model(), 100.0)
    assert data["key"]["rank"] == 48 and data["key"]["threads"] == 1
    assert data["factors"]["rollout"] > 0 and "step_eval" not in data["factors"]


# --- the baseline's word


def result_of(took_s: float, tokens: float, samples: int = 4) -> EvalResult:
    protocol = EvalProtocol("heldout", "f", "p", 1.0, 1.0, 64, 1000, "g")
    return EvalResult(
        suite="heldout", when="baseline", step=0, problems=256, samples=samples,
        pass_at={1: 0.4}, interval_95={1: None}, truncated_share=0.0, unparsable_share=0.0,
        completion_tokens_mean=tokens, timeouts=0, seconds=took_s, protocol=protocol,
    )  # fmt: skip


def planned_times(recipe: Recipe) -> PhaseTimes:
    return predict(cpu_scenario(recipe, this_cpu()), HERE, PROMPTS).times(None)


def test_a_baseline_that_takes_three_times_as_long_makes_updates_three_times_as_long() -> None:
    recipe = recipe_of("entropy.prompts=0", "model.id=HuggingFaceTB/SmolLM2-135M-Instruct")
    times = planned_times(recipe)
    assert times.tokens_mean is not None and times.baseline_s > 150
    slow = result_of(3 * times.baseline_s, times.tokens_mean)
    again = after_baseline(times, recipe, PROMPTS, {"heldout": slow})
    assert again.rollout_s == pytest.approx(3 * times.rollout_s, rel=0.1)
    assert again.update_s == pytest.approx(3 * times.update_s, rel=0.1)
    assert "by the baseline" in again.source
    cut = result_of(3 * times.baseline_s / 4, times.tokens_mean, samples=1)
    partly = after_baseline(times, recipe, PROMPTS, {"heldout": cut})
    assert partly.rollout_s == pytest.approx(again.rollout_s, rel=0.1)


def test_a_short_baseline_changes_the_plan_little() -> None:
    recipe = recipe_of("entropy.prompts=0")
    times = planned_times(recipe)
    assert times.baseline_s < 10
    warming_up = result_of(times.baseline_s + 4.0, times.tokens_mean or 0.0)
    again = after_baseline(times, recipe, PROMPTS, {"heldout": warming_up})
    assert times.rollout_s < again.rollout_s < 1.5 * times.rollout_s


def test_short_answers_of_the_baseline_are_not_taken_for_a_fast_machine() -> None:
    recipe = recipe_of("entropy.prompts=0", "sampling.max_tokens=200", "prompt.max_tokens=50")
    times = planned_times(recipe)
    short = {"heldout": result_of(times.baseline_s / 4, 8.0)}
    again = after_baseline(times, recipe, PROMPTS, short)
    assert again.tokens_mean == 8.0
    assert again.update_s < 0.8 * times.update_s, "there is less to train on"
    assert again.rollout_s > times.rollout_s / 15


def test_without_a_baseline_the_plan_stays() -> None:
    recipe = recipe_of()
    times = planned_times(recipe)
    assert after_baseline(times, recipe, PROMPTS, {}) is times


# --- memory


def test_memory_counts_the_micro_batch_its_logits_and_the_evaluation() -> None:
    base = cpu_memory(cpu_scenario(recipe_of(), this_cpu()))
    assert 0.6 * GIB < base.peak < 1.6 * GIB
    tall = cpu_memory(cpu_scenario(recipe_of("batch.micro_batch=128"), this_cpu()))
    assert tall.activations == pytest.approx(2 * base.activations)
    # 8 x 512 tokens and a vocabulary of 152k would be several copies of 2.5 GB: made in pieces.
    sets = ("model.id=Qwen/Qwen2.5-0.5B-Instruct", "batch.micro_batch=8", "lora.rank=16")
    wide = recipe_of(*sets, "sampling.max_tokens=512")
    assert cpu_memory(cpu_scenario(wide, this_cpu())).logits < GIB
    many = recipe_of(*sets, "sampling.max_tokens=16", "engine.eval_batch=1024")
    few = recipe_of(*sets, "sampling.max_tokens=16", "engine.eval_batch=64")
    generating = [cpu_memory(cpu_scenario(r, this_cpu())).peak_generation for r in (many, few)]
    assert generating[0] > generating[1] + 3 * GIB


def test_a_run_that_needs_more_memory_than_the_machine_has_is_refused_with_what_fits() -> None:
    sets = ("model.id=Qwen/Qwen2.5-0.5B-Instruct", "batch.micro_batch=128", "lora.rank=16")
    recipe = recipe_of(*sets, "sampling.max_tokens=512")
    scenario = cpu_scenario(recipe, replace(this_cpu(), usable_gib_reported=24.0))
    made = estimate_cpu(predict(scenario, HERE, PROMPTS), Budget(3600.0))
    with pytest.raises(HardwareError, match="needs about") as caught:
        refuse_unfit(made)
    assert "batch.micro_batch = " in caught.value.hint


def test_the_peak_of_memory_is_what_the_kernel_counts_for_this_process() -> None:
    before = peak_rss_gib()
    assert 0.02 < before < 100
    held = bytearray(256 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert peak_rss_gib() >= before
    del held
    assert peak_rss_gib() > 0.25, "a peak stays when the memory is given back"


# --- intervals and the machine


def test_fractions_become_an_interval() -> None:
    sets = ['eval.heldout.when=["step"]', "eval.heldout.at_fractions=[0.25,0.5,0.75]"]
    recipe = recipe_of(*sets)
    assert step_evals_every(recipe) == 20
    assert step_evals_every(recipe, steps=9) == 3


def test_the_sooner_of_two_save_intervals_counts() -> None:
    recipe = recipe_of("checkpoint.every_minutes=2")
    assert saves_every_s(recipe, 2.0, 3600) == 120
    assert saves_every_s(recipe_of("checkpoint.every_steps=10"), 2.0, 3600) == 20


def test_cpu_speed_is_a_plausible_rate() -> None:
    assert 0.1 < cpu_speed(measure_s=0.02) < 2000
