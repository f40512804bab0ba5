"""The warm-up that a probe proposes for a cold model."""

from pathlib import Path

import pytest

from budgetrl.probe.feasibility import ProbeVerdict, Seen, judge
from budgetrl.probe.warmup import propose
from budgetrl.recipe.load import load_recipe


def seen(correct: list[int], truncated: bool = False) -> Seen:
    return Seen(8, correct, [], [1.0] * len(correct), [truncated] * len(correct))


def test_a_cold_model_is_told_the_warm_up_that_fits_and_what_it_costs(tmp_path: Path) -> None:
    loaded, cold = load_recipe("llama3.2_r256"), seen([0] * 60)
    verdict, _ = judge(cold, 300)
    assert verdict is ProbeVerdict.NO_GO
    found = propose(loaded, cold, verdict, 131072)
    assert found is not None and found.seconds and found.usd
    assert 60 < found.seconds < 6 * 3600
    file = tmp_path / "warm.toml"
    file.write_text(f'[recipe]\nextends = ["{loaded.path}"]\n{found.lines}')
    stages = load_recipe(file).recipe.stages
    assert [(stage.name, stage.kind.value) for stage in stages] == [("warm", "sft"), ("rl", "grpo")]


def test_on_a_laptop_the_lines_fit_the_models_window(tmp_path: Path) -> None:
    loaded = load_recipe("quickstart", ["model.id=asset:tiny/mute"])
    found = propose(loaded, seen([0] * 60), ProbeVerdict.NO_GO, 256)
    assert found is not None and "sft.max_tokens = 256" in found.lines
    file = tmp_path / "warm.toml"
    file.write_text(f'[recipe]\nextends = ["quickstart"]\n{found.lines}')
    assert load_recipe(file).recipe.stages[0].gate is not None


@pytest.mark.parametrize(
    ("groups", "verdict"),
    [
        (seen([3, 5, 1, 8]), ProbeVerdict.GO),
        (seen([8] * 40), ProbeVerdict.NO_GO),
        (seen([0] * 40, truncated=True), ProbeVerdict.DOUBTFUL),
    ],
    ids=["go", "solved", "cut off"],
)
def test_who_is_not_cold_is_told_none(groups: Seen, verdict: ProbeVerdict) -> None:
    assert propose(load_recipe("llama3.2_r256"), groups, verdict, None) is None


def test_a_recipe_in_stages_has_its_warm_up() -> None:
    loaded = load_recipe("quickstart_warm")
    assert propose(loaded, seen([0] * 60), ProbeVerdict.NO_GO, 256) is None
