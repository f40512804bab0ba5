"""A recipe with another model or other data no longer says that it is the paper's."""

from __future__ import annotations

from pathlib import Path

import pytest

from budgetrl.recipe.load import list_recipes, load_recipe

PAPERS = "qwen2.5_instruct_r64"
OTHER = "Qwen/Qwen2.5-0.5B-Instruct"


def test_another_model_drops_summary_expected_rows_and_deviations() -> None:
    whole = load_recipe("quick/deepscaler").recipe
    assert whole.paper and whole.expected and whole.deviation
    for name in (PAPERS, "quick/deepscaler"):
        before, loaded = load_recipe(name).recipe, load_recipe(name, [f"model.id={OTHER}"])
        made = loaded.recipe
        assert (made.paper, made.expected, made.deviation) == (None, (), ())
        assert made.recipe.summary == f"{before.name} with {OTHER} in place of {before.model.id}"
        assert made.lora == before.lora and made.stated, "the paper's values are still its values"


def test_other_data_do_too(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        f'[recipe]\nextends = ["{PAPERS}"]\nname = "mine"\n'
        'summary = "Mine, on the paper\'s problems"\n'
        '[data]\nid = "somebody/problems"\n'
    )
    made = load_recipe(tmp_path / "base.toml").recipe
    assert (made.paper, made.expected) == (None, ())
    assert made.recipe.summary == f"{PAPERS} with somebody/problems in place of knoveleng/open-rs"


def test_a_copy_that_is_edited_says_nothing_of_the_paper_either(tmp_path: Path) -> None:
    text = load_recipe(PAPERS).text
    (tmp_path / "mine.toml").write_text(f'{text}\n[model]\nid = "{OTHER}"\n')
    made = load_recipe(tmp_path / "mine.toml").recipe
    assert (made.paper, made.expected) == (None, ())
    assert "as in the paper" not in made.recipe.summary and OTHER in made.recipe.summary


@pytest.mark.parametrize(
    "same",
    ["Qwen/Qwen2.5-1.5B-Instruct", "unsloth/qwen2.5-1.5b-instruct", "/m/Qwen2.5-1.5B-Instruct"],
)
def test_a_copy_of_the_same_model_is_the_same_model(same: str) -> None:
    made, before = load_recipe(PAPERS, [f"model.id={same}"]).recipe, load_recipe(PAPERS).recipe
    assert (made.paper, made.expected, made.recipe) == (
        before.paper,
        before.expected,
        before.recipe,
    )


def test_a_layer_may_tell_of_a_paper_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        f'[recipe]\nextends = ["{PAPERS}"]\nname = "own"\nsummary = "As in the paper\'s Table 9"\n'
        f'[model]\nid = "{OTHER}"\n[paper]\ntitle = "Another"\n'
        '[[expected]]\nkey = "a"\nmetric = "pass@1"\nvalue = 0.5\nwhere = "Table 9"\n'
    )
    made = load_recipe(tmp_path / "own.toml").recipe
    assert made.paper is not None and made.paper.title == "Another" and made.paper.row == ""
    assert [row.key for row in made.expected] == ["a"]
    assert made.recipe.summary == "As in the paper's Table 9"


def test_bundled_recipes_keep_their_own_words() -> None:
    assert not any(
        " in place of " in load_recipe(name).recipe.recipe.summary for name in list_recipes()
    )


def test_a_recipe_that_trains_otherwise_is_not_summed_up_as_its_parent(tmp_path: Path) -> None:
    sets = ["lora.rank=8", "grpo.beta=0.1", "schedule.learning_rate=1e-6"]
    made = load_recipe(PAPERS, sets).recipe.recipe
    assert made.summary == f"{PAPERS} with lora.rank = 8, grpo.beta = 0.1"
    assert load_recipe(PAPERS, ["lora.rank=64"]).recipe.recipe == load_recipe(PAPERS).recipe.recipe
    child = tmp_path / "mine.toml"
    child.write_text(
        f'[recipe]\nextends = ["{PAPERS}"]\nname = "mine"\n'
        '[lora]\nrank = "full"\n[engine]\nname = "plain"\ndevice = "cuda"\n'
    )
    assert load_recipe(child).recipe.recipe.summary == f"{PAPERS} with lora.rank = full"
    child.write_text(child.read_text().replace("\n[lora]", '\nsummary = "My own"\n[lora]'))
    assert load_recipe(child).recipe.recipe.summary == "My own"
