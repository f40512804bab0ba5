from pathlib import Path

import pytest

from budgetrl.cli import main
from budgetrl.errors import RecipeError
from budgetrl.estimation.scenario import check_window
from budgetrl.estimation.shapes import find_shape
from budgetrl.recipe.flat import flat_values
from budgetrl.recipe.load import LoadedRecipe, list_recipes, load_recipe, recipes_root
from budgetrl.recipe.window import window_in_config

MODELS = ("deepscaler", "qwen2.5_instruct", "llama3.2", "qwen2.5_math", "qwen3")
RANKS = (8, 64, 256)
PAPER = [f"{model}_r{rank}" for model in MODELS for rank in RANKS]
RELATIVES = (
    "tina_openrs",
    "openrs_1.5b",
    "deepscaler_8k",
    "deepscaler_staged",
    "qwen2.5_7b_4bit",
    "qwen3_8b_4bit",
)
WARM = ("warm/llama3.2_r256", "warm/qwen2.5_math_r256")
BEST = ("best/deepscaler", "best/qwen2.5_instruct", "best/r1_distill")
DISTILL = (
    *("distill/deepscaler_from_7b", "distill/qwen3_0.6b_from_8b"),
    *("quick/distill_deepscaler", "quick/distill_qwen3"),
)
LAPTOP = ("quickstart", "quickstart_warm", "quickstart_distill", "laptop_smollm2")
OVERLAYS = (
    "dr_grpo",
    "dapo",
    "alpha_32",
    "alpha_equal_rank",
    "alpha_4x",
    "rslora",
    "lr_1e-5",
    "most_learning",
)


def combined(tmp_path: Path, *bases: str) -> LoadedRecipe:
    names = ", ".join(f'"{base}.toml"' for base in bases)
    file = tmp_path / "combined.toml"
    file.write_text(f"[recipe]\nextends = [{names}]\n")
    return load_recipe(file)


@pytest.mark.parametrize("name", list(list_recipes()))
def test_every_bundled_recipe_loads_and_fits_its_models_window(name: str) -> None:
    recipe = load_recipe(name).recipe
    check_window(recipe, find_shape(recipe.model.id).window)
    assert recipe.recipe.summary


def test_all_configurations_of_the_paper_and_its_relatives_are_there() -> None:
    quick = {f"quick/{model}" for model in MODELS}
    miniature = {f"miniature/{start}" for start in ("cold", "generalist", "specialist")}
    named = {*PAPER, *RELATIVES, *WARM, *BEST, *DISTILL, *quick, *miniature, *LAPTOP}
    assert named == set(list_recipes())


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_recipe_is_short_and_differs_by_its_rank_alone(name: str) -> None:
    path = list_recipes()[name]
    assert len(path.read_text().splitlines()) < 15
    model = name.rsplit("_r", 1)[0]
    values, other = (flat_values(load_recipe(n).recipe) for n in (name, f"{model}_r64"))
    named = {"recipe.name", "recipe.summary", "lora.rank"}
    assert {key for key in values if values[key] != other[key]} <= named


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_recipe_has_the_papers_settings(name: str) -> None:
    recipe = load_recipe(name).recipe
    grpo, sampling = recipe.grpo, recipe.sampling
    assert (grpo.num_generations, recipe.prompt.max_tokens, sampling.max_tokens) == (8, 512, 3584)
    assert {reward.name: reward.weight for reward in recipe.rewards} == {
        "accuracy": 1.0,
        "format": 0.2,
    }
    assert (grpo.loss_type, grpo.epsilon_high, grpo.mask_truncated_completions) == (
        "dapo",
        0.2,
        False,
    )
    assert (recipe.lora.resolved_alpha, recipe.schedule.learning_rate, grpo.beta) == (
        128,
        3e-6,
        0.001,
    )
    assert recipe.schedule.shape == "constant"
    assert recipe.schedule.stop_after_steps == 300
    assert sampling.temperature == 1.0
    assert recipe.batch.prompts_per_step == (16 if name.startswith("deepscaler") else 32)
    suites = {spec.suite: spec for spec in recipe.eval}
    assert (suites["math500"].samples, suites["math500"].every_steps) == (1, 20)
    for suite in ("aime24", "aime25", "amc23"):
        assert suites[suite].samples == 16
        assert [when.value for when in suites[suite].when] == ["baseline", "final"]


@pytest.mark.parametrize("name", PAPER)
def test_every_paper_value_that_the_paper_does_not_say_names_its_source(name: str) -> None:
    loaded = load_recipe(name)
    unsaid = (
        *("schedule.learning_rate", "lora.alpha", "batch.prompts_per_step", "grpo.beta"),
        *("grpo.loss_type", "sampling.temperature", "lora.targets", "batch.updates_per_rollout"),
    )
    assert loaded.sources["prompt.system"].startswith(("inferred: ", "deviation: "))
    assert all(loaded.sources[key].startswith("inferred: ") for key in unsaid)
    assert loaded.sources["lora.rank"] == "paper 2.3"
    assert loaded.sources["data.id"] == "paper 2.2"
    assert loaded.sources["budget.hours"].startswith("deviation: ")


@pytest.mark.parametrize("model", MODELS)
def test_table_1_is_in_every_model_and_names_a_rank_only_where_the_paper_does(model: str) -> None:
    recipe = load_recipe(f"{model}_r64").recipe
    numbers = {entry.key: entry for entry in recipe.expected}
    keys = [
        f"{suite}@{k}.{when}"
        for suite in ("aime24", "aime25", "amc23")
        for k in (1, 8, 16)
        for when in ("baseline", "final")
    ]
    assert set(keys) <= set(numbers)
    rank = 256 if model == "deepscaler" else "unstated"
    assert all(numbers[key].rank == rank for key in keys if key.endswith("final"))
    assert "entropy_change.r64" in numbers


def test_table_1_is_copied_without_a_slip() -> None:
    """Sums over the 90 printed figures, summed from the text of the paper."""
    values = [
        entry.value
        for model in MODELS
        for entry in load_recipe(f"{model}_r8").recipe.expected
        if "@" in entry.key
    ]
    assert len(values) == 90
    assert sum(values) == pytest.approx(2873.4, abs=0.05)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("base", ["deepscaler_r256", "qwen3_r8"])
def test_an_overlay_is_valid_on_a_recipe_and_changes_it(
    overlay: str, base: str, tmp_path: Path
) -> None:
    plain = flat_values(load_recipe(base).recipe)
    changed = flat_values(combined(tmp_path, base, f"overlays/{overlay}").recipe)
    assert plain != changed


def test_alpha_overlays_make_the_scale_equal_over_ranks(tmp_path: Path) -> None:
    scales = {
        overlay: [
            combined(tmp_path, f"qwen3_r{rank}", f"overlays/{overlay}").recipe.lora.scale
            for rank in RANKS
        ]
        for overlay in ("alpha_equal_rank", "alpha_4x", "rslora")
    }
    assert scales["alpha_equal_rank"] == [1, 1, 1]
    assert scales["alpha_4x"] == [4, 4, 4]
    assert scales["rslora"] == pytest.approx([16 / 8**0.5, 2, 1])


def test_the_papers_optimiser_steps_take_16_prompts_and_odd_system_prompts_are_owned_up_to() -> (
    None
):
    for name in PAPER:
        recipe = load_recipe(name).recipe
        assert recipe.batch.prompts_per_step == 16 * recipe.batch.updates_per_rollout
        assert "batch.updates_per_rollout" in {entry.key for entry in recipe.inferred}
        owned = name.startswith(("deepscaler", "qwen2.5_math"))
        assert owned == ("prompt.system" in {entry.key for entry in recipe.deviation})


def test_an_overlay_is_listed_with_a_whole_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("overlays/")]
    assert len(lines) == len(OVERLAYS)
    assert all(line.endswith(".") for line in lines)


def test_all_overlays_are_listed() -> None:
    assert {path.stem for path in (recipes_root() / "overlays").glob("*.toml")} == set(OVERLAYS)


def test_qwen3_thinks_and_the_math_base_model_stops_at_its_turn() -> None:
    assert load_recipe("qwen3_r8").recipe.prompt.template_kwargs == {"enable_thinking": True}
    assert load_recipe("qwen2.5_math_r8").recipe.sampling.stop == ("<|im_end|>",)


def test_the_math_model_fills_its_window_exactly() -> None:
    recipe = load_recipe("qwen2.5_math_r8").recipe
    assert recipe.prompt.max_tokens + recipe.sampling.max_tokens == 4096
    longer = load_recipe("qwen2.5_math_r8", ["sampling.max_tokens=3585"]).recipe
    with pytest.raises(RecipeError, match="window"):
        check_window(longer, 4096)


def test_overriding_a_stated_value_drops_its_provenance() -> None:
    loaded = load_recipe("deepscaler_r8", ["lora.rank=16"])
    assert loaded.sources["lora.rank"] == "command line"
    assert not any(entry.key == "lora.rank" for entry in loaded.recipe.stated)


def test_a_deviation_that_is_not_what_the_recipe_resolves_to_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(
        'deviation = [{ key = "lora.rank", paper = "8", here = 9, why = "a slip" }]\n'
        '[recipe]\nname = "wrong"\nextends = ["qwen3_r8.toml"]\n'
    )
    with pytest.raises(RecipeError, match="here = 9, but the recipe resolves to 8"):
        load_recipe(file)


def test_the_window_of_longrope_is_where_positions_stay_what_they_are() -> None:
    """Beyond it one long row of a batch changes the positions of all rows."""
    assert window_in_config({"max_position_embeddings": 131072}) == 131072
    longrope = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
    for scaling in ({"rope_scaling": {"type": "longrope"}}, {"rope_scaling": {"type": "su"}}):
        assert window_in_config(longrope | scaling) == 4096
    inside = {"rope_type": "longrope", "original_max_position_embeddings": 2048}
    assert window_in_config({"max_position_embeddings": 8192, "rope_parameters": inside}) == 2048
    for scaling in (None, "odd", {"rope_type": "yarn"}, {"full_attention": {}}):
        assert window_in_config(longrope | {"rope_parameters": scaling}) == 131072
    assert window_in_config({}) is None
