"""What a run in stages teaches the next plan: each kind of training by itself."""

from pathlib import Path

import pytest
from sample_events import step_event

from budgetrl.estimation.cpu_learnt import learn
from budgetrl.estimation.cpu_profile import planned_phases
from budgetrl.estimation.estimate import estimate_cpu
from budgetrl.estimation.machine import this_machine
from budgetrl.estimation.stages import StageEstimate, estimate_stages
from budgetrl.history import History, Span
from budgetrl.phases import MEASURED_ONCE
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe

GRPO = {"rollout": 0.5, "reward": 0.02, "logprob": 0.05, "update": 0.6, "other": 0.04}
SFT = {"rollout": 0.0, "reward": 0.0, "logprob": 0.0, "update": 0.3, "other": 0.01}
DISTILL = {"rollout": 0.2, "reward": 0.01, "logprob": 0.02, "update": 0.9, "other": 0.04}
"""Seconds of one update of each kind."""


@pytest.fixture(autouse=True)
def one_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests do beside this one is not measured."""
    for module in ("machine", "teaching"):
        monkeypatch.setattr(f"budgetrl.estimation.{module}.gflops", lambda: 60.0)


def run_of(**stages: dict[str, float]) -> History:
    """A finished run, ten updates of each stage; `_`: without stages."""
    spans = [Span(name, 1, 0.0, seconds=2.0) for name in MEASURED_ONCE]
    steps = [
        step_event(1, stage=None if name == "_" else name, phase_s=phase_s)
        for name, phase_s in stages.items()
        for _ in range(10)
    ]
    return History(spans=spans, steps=steps)


def staged(recipe: Recipe, cache: Path) -> dict[str, StageEstimate]:
    """The plan of each stage."""
    made = estimate_stages(
        recipe, lambda part: estimate_cpu(planned_phases(part, cache)), None, this_machine(recipe)
    )
    return {one.stage.name: one for one in made}


def test_the_next_run_in_stages_is_planned_as_each_of_them_was(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart_warm", ["lora.rank=48"]).recipe
    learn(recipe, run_of(warm=SFT, rl=GRPO), 3.0, 1.0, tmp_path)
    planned = staged(recipe, tmp_path)
    assert planned["warm"].times.update_s == pytest.approx(SFT["update"], rel=1e-3)
    for name, seconds in GRPO.items():
        assert getattr(planned["rl"].times, f"{name}_s") == pytest.approx(seconds, rel=1e-3)


def test_a_run_of_demonstrations_alone_does_not_make_answers_free(tmp_path: Path) -> None:
    plain = load_recipe("quickstart", ["lora.rank=48"]).recipe
    warm = load_recipe("quickstart_warm", ["lora.rank=48"]).recipe
    alone = warm.model_copy(update={"stages": warm.stages[:1]})
    learn(plain, run_of(_=GRPO), 3.0, 1.0, tmp_path)
    learn(alone, run_of(warm=SFT), 3.0, 1.0, tmp_path)
    times = planned_phases(plain, tmp_path).times(None)
    for name, seconds in GRPO.items():
        assert getattr(times, f"{name}_s") == pytest.approx(seconds, rel=1e-3)
    assert staged(warm, tmp_path)["warm"].times.update_s == pytest.approx(SFT["update"], rel=1e-3)


def test_a_teachers_passes_are_charged_to_distillations_alone_and_once(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart_distill").recipe
    before = planned_phases(recipe, tmp_path).times(None).update_s
    learn(recipe, run_of(distill=DISTILL), 3.0, 1.0, tmp_path)
    planned = staged(recipe, tmp_path)["distill"].times
    for name, seconds in DISTILL.items():
        assert getattr(planned, f"{name}_s") == pytest.approx(seconds, rel=1e-3)
    assert planned_phases(recipe, tmp_path).times(None).update_s == pytest.approx(before, rel=0.3)


def test_what_a_busy_machine_took_is_kept_as_if_it_were_alone(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart_warm", ["lora.rank=48"]).recipe
    learn(recipe, run_of(warm=SFT, rl=GRPO), 3.0, 2.0, tmp_path)
    assert staged(recipe, tmp_path)["warm"].times.update_s == pytest.approx(0.15, rel=1e-3)


def test_a_run_with_little_signal_says_nothing_of_demonstrations_and_teachers(
    tmp_path: Path,
) -> None:
    for name, stage in (("quickstart_warm", "warm"), ("quickstart_distill", "distill")):
        recipe = load_recipe(name, ["lora.rank=48"]).recipe
        grpo = recipe.model_copy(update={"stages": ()})
        by_formulas = staged(recipe, tmp_path)[stage].times.update_s
        learn(grpo, run_of(_=GRPO | {"update": 0.05}), 3.0, 1.0, tmp_path)
        again = staged(recipe, tmp_path)[stage].times.update_s
        assert again == pytest.approx(by_formulas, rel=0.4), "at the speed that was measured then"
