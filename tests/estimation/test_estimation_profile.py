import json
from pathlib import Path

import pytest
from run_builder import PHASES, Story, build_run

from budgetrl.cli import main
from budgetrl.errors import RunDirError, UsageError
from budgetrl.estimation.estimate import known_factors
from budgetrl.estimation.profile import from_run, run_factors, store_gpu_profile
from budgetrl.estimation.request import Request, answer
from budgetrl.hardware import find_gpu
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import MANIFEST, RESOLVED, open_run

CPU_RECIPE = load_recipe("quickstart").recipe
GPU_RECIPE = load_recipe("deepscaler_r8").recipe


def run_of(tmp_path: Path, recipe_name: str, gpu: str | None = None, end: str = "budget") -> Path:
    """A finished run with the phases of `run_builder`, of a bundled recipe."""
    run = build_run(tmp_path, Story(name=recipe_name, end=end, length=(2900.0, 3100.0)))
    recipe = load_recipe(recipe_name).recipe
    run.write_json(RESOLVED, {"recipe": recipe.model_dump(mode="json"), "sources": {}})
    run.write_json(MANIFEST, {"gpu": {"name": gpu} if gpu else None})
    return run.path


def test_a_run_gives_its_recipe_and_what_its_phases_took(tmp_path: Path) -> None:
    recipe, times, history = from_run(run_of(tmp_path, "quickstart"))
    assert recipe == CPU_RECIPE
    assert times.rollout_s == pytest.approx(PHASES["rollout"], rel=0.1)
    assert len(history.steps) == 40


def test_a_cpu_plan_from_a_run_is_that_run(tmp_path: Path) -> None:
    path = run_of(tmp_path, "quickstart")
    _, times, _ = from_run(path)
    made = answer(Request(CPU_RECIPE, from_run=str(path)))
    assert made.times.step_s == pytest.approx(times.step_s)
    assert path.name in made.times.source


@pytest.mark.parametrize("gpu", [None, "NVIDIA A40"])
def test_the_stages_of_a_plan_from_a_run_are_that_run_too(tmp_path: Path, gpu: str | None) -> None:
    recipe = load_recipe("warm/llama3.2_r256" if gpu else "quickstart_warm").recipe
    path = run_of(tmp_path, "deepscaler_r8" if gpu else "quickstart", gpu)
    by_run = answer(Request(recipe, from_run=str(path))).plan.stages[-1]
    plain = answer(Request(recipe)).plan.stages[-1]
    assert by_run.kind == plain.kind == "grpo"
    if gpu is None:
        assert by_run.step_s == pytest.approx(from_run(path)[1].step_s, rel=0.1)
    assert by_run.step_s != pytest.approx(plain.step_s, rel=0.01)


def test_a_cpu_plan_from_a_run_follows_the_amount_of_work(tmp_path: Path) -> None:
    half = load_recipe("quickstart", ["batch.prompts_per_step=8"]).recipe
    path = run_of(tmp_path, "quickstart")
    _, times, _ = from_run(path)
    made = answer(Request(half, from_run=str(path)))
    # a smaller batch wastes a little: each pass over it has a part that does not shrink
    assert times.rollout_s / 2 <= made.times.rollout_s <= 0.7 * times.rollout_s


def test_a_gpu_run_corrects_each_phase_of_another_rank(tmp_path: Path) -> None:
    path = run_of(tmp_path, "deepscaler_r8", "NVIDIA A40")
    factors = run_factors(path).factors
    assert factors["update"] < factors["rollout"]
    other = load_recipe("deepscaler_r256").recipe
    plain = answer(Request(other, gpu="A40"))
    corrected = answer(Request(other, gpu="A40", from_run=str(path)))
    for phase in ("rollout", "update"):
        ratio = getattr(corrected.times, f"{phase}_s") / getattr(plain.times, f"{phase}_s")
        assert ratio == pytest.approx(factors[phase])


def test_a_correction_narrows_the_band(tmp_path: Path) -> None:
    path = run_of(tmp_path, "deepscaler_r8", "A40")
    stated = load_recipe("deepscaler_r8", ["sampling.expected_tokens=3000"]).recipe
    plain = answer(Request(stated, gpu="A40")).step_band
    corrected = answer(Request(stated, gpu="A40", from_run=str(path))).step_band
    assert corrected.high / corrected.low < plain.high / plain.low


def test_a_gpu_run_says_nothing_about_a_cpu(tmp_path: Path) -> None:
    path = run_of(tmp_path, "deepscaler_r8", "A40")
    with pytest.raises(UsageError, match="nothing about a CPU"):
        answer(Request(CPU_RECIPE, from_run=str(path)))


def test_an_interrupted_run_has_not_measured_enough(tmp_path: Path) -> None:
    path = run_of(tmp_path, "deepscaler_r8", "A40", end="interrupted")
    with pytest.raises(RunDirError, match="not measured enough"):
        run_factors(path)


def test_the_command_line_takes_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_of(tmp_path, "quickstart")
    assert main(["estimate", "quickstart", "--from-run", str(path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    _, times, _ = from_run(path)
    assert made["seconds"]["step"] == pytest.approx(times.step_s)
    assert made["usd"]["total"] is None


def test_what_was_measured_on_a_gpu_is_known_to_later_estimates_there(tmp_path: Path) -> None:
    run = open_run(run_of(tmp_path, "deepscaler_r8", "NVIDIA A40"))
    recipe, card = load_recipe("deepscaler_r8").recipe, find_gpu("A40")
    file = store_gpu_profile(run, tmp_path / "cache")
    known = known_factors(recipe, card, tmp_path / "cache")
    assert known is not None and "bench" in known.source
    assert known.factors == pytest.approx(run_factors(run.path).factors, abs=1e-3)
    other = load_recipe("qwen3_r64").recipe
    assert known_factors(other, card, tmp_path / "cache") == known, "the same machine"
    assert known_factors(recipe, find_gpu("H100"), tmp_path / "cache") is None
    file.write_text(file.read_text()[:50])
    assert known_factors(recipe, card, tmp_path / "cache") is None, "cut short"
