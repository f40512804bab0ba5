"""[[stages]] of a recipe: what each is, what may stand in it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from budgetrl.data.demonstrations import read_examples
from budgetrl.errors import DataError, RecipeError, UsageError
from budgetrl.recipe.base import EngineName
from budgetrl.recipe.flat import flat_values
from budgetrl.recipe.load import change_recipe, load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.window import check_window
from budgetrl.supervise.changes import changed_recipe
from budgetrl.usable_recipe import check_local_files

HEAD = '[recipe]\nextends = ["quickstart"]\nname = "staged"\n'
WARM = """
[[stages]]
name = "warm"
kind = "sft"
steps = 4
data.path = "asset:tiny/data/worked.jsonl"
sft.max_tokens = 128
schedule.learning_rate = 2e-3
[[stages.rewards]]
name = "format"
weight = 0.5
"""
RL = '[[stages]]\nname = "rl"\nkind = "grpo"\n'


def staged(folder: Path, text: str, *sets: str) -> Recipe:
    file = folder / "staged.toml"
    file.write_text(HEAD + text)
    return load_recipe(file, list(sets)).recipe


def test_a_stages_recipe_is_the_runs_with_what_is_different(tmp_path: Path) -> None:
    recipe = staged(tmp_path, WARM + RL, "stages.rl.sampling.max_tokens=80")
    warm, rl = recipe.parts
    assert (warm.schedule.learning_rate, warm.schedule.stop_after_steps) == (2e-3, 4)
    assert warm.data.path == "asset:tiny/data/worked.jsonl"
    assert {r.name: r.weight for r in warm.rewards} == {"accuracy": 1.0, "format": 0.5}
    assert (rl.schedule.stop_after_steps, rl.sampling.max_tokens) == (60, 80)
    assert recipe.total_steps == 64
    assert recipe.sequence_tokens == 64 + 80, "the engine's window is the longest stage's"
    assert recipe.model_dump(mode="json") == Recipe.model_validate_json(
        json.dumps(recipe.model_dump(mode="json"))
    ).model_dump(mode="json")


def test_other_data_bring_all_that_is_said_of_them(tmp_path: Path) -> None:
    text = WARM.replace('data.path = "asset:tiny/data/worked.jsonl"', 'data.id = "GAIR/LIMO"')
    warm, _ = staged(tmp_path, text + RL).parts
    assert (warm.data.path, warm.data.id) == (None, "GAIR/LIMO")
    assert (warm.data.columns.problem, warm.data.columns.solution) == ("question", "solution")


def test_sources_and_values_of_stages_are_flat_keys(tmp_path: Path) -> None:
    file = tmp_path / "staged.toml"
    file.write_text(HEAD + WARM + RL)
    loaded = load_recipe(file, ["stages.warm.steps=6"])
    assert loaded.sources["stages.warm.steps"] == "command line"
    assert flat_values(loaded.recipe)["stages.warm.schedule.learning_rate"] == 2e-3
    again = change_recipe(loaded.recipe, ["stages.warm.schedule.learning_rate=1e-3"])
    assert again.parts[0].schedule.learning_rate == 1e-3


def test_no_stages_are_one_recipe() -> None:
    recipe = load_recipe("quickstart").recipe
    assert recipe.stages == () and recipe.parts == (recipe,)
    assert recipe.total_steps == 60


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("stages.warm.share=1.5", "share = 1.5: input should be less than or equal to 1"),
        ("stages.warm.steps=unset", "does not say how long it lasts"),
        ("stages.warm.model.id=x", r"cannot change \[model\], which is the whole run's"),
        ("stages.warm.sft.max_tokns=3", "did you mean max_tokens"),
        (
            "stages.warm.schedule.learning_rate=-1",
            r"\[\[stages\]\] warm \[schedule\] learning_rate",
        ),
        ("stages.warm.kind=dpo", "kind = 'dpo'"),
        ("stages.rl.gate={prompts=4}", "none is"),
        ("stages.warm.until={loss=0.5, accuracy=0.5}", "exactly one condition"),
        ("stages.warm.until={accuracy=0.5}", "says nothing in SFT"),
        ("stages.warm.name=", "should match pattern"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(
    tmp_path: Path, change: str, says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        staged(tmp_path, WARM + RL, change)


def test_a_gate_needs_right_answers_to_be_rewarded(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs the accuracy reward"):
        staged(tmp_path, WARM + RL, "stages.warm.gate={prompts=4}", "rewards.accuracy.weight=0")


def test_two_stages_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="warm"):
        staged(tmp_path, WARM + WARM + RL)


def test_a_length_beyond_the_models_window_is_refused(tmp_path: Path) -> None:
    recipe = staged(tmp_path, WARM + RL, "stages.rl.sampling.max_tokens=400")
    with pytest.raises(RecipeError, match=r"stages\.rl\.sampling\.max_tokens = 400"):
        check_window(recipe, 256)
    recipe = staged(tmp_path, WARM + RL, "stages.warm.sft.max_tokens=400")
    with pytest.raises(RecipeError, match=r"stages\.warm\.sft\.max_tokens = 400"):
        check_window(recipe, 256)


def write(folder: Path, rows: list[dict[str, Any]]) -> Recipe:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return staged(folder, WARM + RL, f"stages.warm.data.path={file}").parts[0]


def test_rows_without_a_solution_are_refused_before_the_run(tmp_path: Path) -> None:
    write(tmp_path, [{"problem": f"Compute {i}+1.", "answer": str(i + 1)} for i in range(9)])
    recipe = load_recipe(
        tmp_path / "staged.toml", [f"stages.warm.data.path={tmp_path / 'rows.jsonl'}"]
    ).recipe
    with pytest.raises(DataError, match="no column with worked solutions; there are: answer"):
        check_local_files(recipe)


def test_solutions_are_found_in_every_usual_shape(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Compute 1+1."}, {"role": "assistant", "content": "2"}]
    for rows, wanted in (
        ([{"question": "Q", "solution": "S", "answer": 2}], ("Q", "S", None)),
        ([{"prompt": "Q", "completion": "S"}], ("Q", "S", None)),
        ([{"messages": chat}], ("Compute 1+1.", "2", None)),
        (
            [{"prompt": [chat[0]], "completion": [{**chat[1], "reasoning_content": "hm"}]}],
            ("Compute 1+1.", "2", "hm"),
        ),
        (
            [{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "S"}]}],
            ("Q", "S", None),
        ),
    ):
        (example,), dropped, _ = read_examples(write(tmp_path, rows))
        assert (example.problem.text, example.solution, example.thinking) == wanted
        assert dropped == []


def test_unsloth_has_no_reference_of_its_own() -> None:
    sets = ["model.adapter=/x", "grpo.reference=adapter"]
    with pytest.raises(RecipeError, match="Unsloth scores the reference without any adapter"):
        load_recipe("llama3.2_r256", sets)
    assert load_recipe("llama3.2_r256").recipe.engine.name is EngineName.UNSLOTH


def test_a_resumed_run_may_change_how_long_a_stage_lasts_and_nothing_that_was_trained(
    tmp_path: Path,
) -> None:
    recipe = staged(tmp_path, WARM + RL)
    changed, changes = changed_recipe(recipe, ["stages.warm.on_fail=go_on"])
    assert changed.stages[0].on_fail == "go_on"
    assert [change["key"] for change in changes] == ["stages.warm.on_fail"]
    with pytest.raises(UsageError, match="shapes what was trained"):
        changed_recipe(recipe, ["stages.warm.sft.max_tokens=64"])
