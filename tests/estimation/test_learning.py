"""Groups with signal for an hour and a dollar: what makes two recipes comparable."""

import json
import re
from pathlib import Path

import pytest

from budgetrl.cli import main
from budgetrl.errors import DataError, RecipeError
from budgetrl.estimation.estimate import Estimate, estimate
from budgetrl.estimation.learning import ASSUMED, Share, paces, probed, signal_pace
from budgetrl.hardware import find_gpu
from budgetrl.recipe.flat import flat_values
from budgetrl.recipe.load import load_recipe


def made(name: str, *sets: str) -> Estimate:
    return estimate(load_recipe(name, sets).recipe, find_gpu("A40"))


def ratio(best: Estimate, share: Share = ASSUMED) -> float:
    return signal_pace(best, share).per_hour / signal_pace(made("deepscaler_r256")).per_hour


def test_the_best_recipe_buys_more_groups_with_signal_than_the_papers() -> None:
    """By the model of an A40; nobody has run either there for us."""
    best, fewer = made("best/deepscaler"), made("best/deepscaler", "signal.keep_rows=4")
    order = paces(best)[-1].share
    assert ratio(best) >= 1.7
    assert ratio(best, order) >= 2.3
    assert ratio(fewer, order) >= 3.0
    paper = made("deepscaler_r256")
    assert signal_pace(paper).per_hour == pytest.approx(16 * 0.5 * 3600 / paper.times.step_s)


def compared(capsys: pytest.CaptureFixture[str], *options: str) -> list[float]:
    """What `estimate` prints of how often one recipe's groups are another's."""
    assert main(["estimate", "best/deepscaler", "--gpu", "A40", *options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    line = re.search(r"([\d.]+ times those of.*order)\.", printed)
    assert line is not None
    return [float(number) for number in re.findall(r"\d+\.\d\d", line[1])]


def test_the_gain_has_a_band_over_the_shares_that_were_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    same, least, most, ordered = compared(capsys)
    assert least > same > most > 1 and ordered > same


def test_a_larger_share_buys_more_but_not_in_proportion() -> None:
    """Groups with signal are trained on, which takes time."""
    low, middle, high = (
        signal_pace(made("best/deepscaler"), Share(s, "")) for s in (0.2, 0.5, 1.0)
    )
    assert low.per_hour < middle.per_hour < high.per_hour < 2 * middle.per_hour


def test_the_share_can_be_a_probes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "solve_rates.json"
    problems = {"never": [0.0, 64.0], "always": [64.0, 0.0], "half": [32.0, 32.0]}
    file.write_text(json.dumps({"problems": problems, "levels": {}}))
    plain, best = load_recipe("deepscaler_r256").recipe, load_recipe("best/deepscaler").recipe
    assert probed(plain, file).value == pytest.approx(1 / 3, abs=0.1)
    assert probed(best, file).value == pytest.approx(0.2 / 3 + 0.8, abs=0.1)
    source = f"solve rates of 3 problems, {file}"
    assert [one.share.source for one in paces(made("best/deepscaler"), file)] == [
        f"{source}, by difficulty",
        source,
    ]
    beside = compared(capsys, "--from-probe", str(file))
    assert beside[0] < 2.3 < 3 < beside[-1], "at one share, and each recipe in its own order"
    file.write_text("[]")
    with pytest.raises(DataError, match="no table of solve rates"):
        probed(plain, file)


@pytest.mark.parametrize("name", ["best/deepscaler", "best/qwen2.5_instruct"])
def test_every_change_of_a_best_recipe_is_a_deviation(name: str) -> None:
    best = load_recipe(name).recipe
    paper = load_recipe(best.recipe.beside or "").recipe
    ours, theirs = flat_values(best), flat_values(paper)
    tables = ("recipe", "stated", "inferred", "deviation", "expected")
    changed = {key for key in ours if ours[key] != theirs.get(key)}
    changed = {key for key in changed if not key.startswith(tables)}
    assert len(changed) >= 8 and changed <= {entry.key for entry in best.deviation}


def test_the_overlay_is_refused_where_a_recipe_contradicts_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[recipe]\nextends = ["deepscaler_8k.toml", "overlays/most_learning.toml"]\n')
    with pytest.raises(RecipeError, match=r"needs the accuracy reward"):
        load_recipe(file)
    with pytest.raises(RecipeError, match=r"overlays/most_learning"):
        load_recipe("deepscaler_r256", ["signal.skip=exact"])
