"""A recipe for verl and TRL: each value is carried over, listed or refused; rows are theirs."""

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from budgetrl.cli import main
from budgetrl.errors import BudgetRLError, RecipeError, RewardError, UsageError
from budgetrl.export.layout import layout_for
from budgetrl.export.limits import Target, refuse, unmapped
from budgetrl.export.reward import Scorer
from budgetrl.export.rows import prepare
from budgetrl.export.table import ENTRIES
from budgetrl.export.trl import export_trl, trl_values
from budgetrl.export.verl import export_verl, mapped_values, patterns, verl_values
from budgetrl.export.yaml_text import to_yaml
from budgetrl.recipe.flat import flat_values
from budgetrl.recipe.load import list_recipes, load_recipe
from budgetrl.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[2]
ACTOR = "actor_rollout_ref.actor."


def recipe(name: str = "deepscaler_r64", *sets: str) -> Recipe:
    return load_recipe(name, sets).recipe


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart for verl, by the command line."""
    out = tmp_path_factory.mktemp("export") / "verl"
    assert main(["export", "quickstart", "--to", "verl", "--out", str(out)]) == 0
    return out


def test_paper_recipe_says_in_verl_what_it_says_here() -> None:
    values = verl_values(recipe(), layout_for(recipe(), 1))
    wanted = {
        "actor_rollout_ref.model.lora_rank": 64,
        "actor_rollout_ref.model.lora_alpha": 128,
        "data.train_batch_size": 16,
        ACTOR + "ppo_mini_batch_size": 16,
        ACTOR + "kl_loss_coef": 0.001,
        ACTOR + "use_kl_loss": True,
        ACTOR + "optim.clip_grad": 1.0,
        ACTOR + "optim.weight_decay": 0.01,
        "data.max_response_length": 3584,
        "actor_rollout_ref.rollout.top_k": -1,
        "trainer.total_training_steps": 300,
        "trainer.test_freq": 20,
    }
    assert {key: values[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", sorted(list_recipes()))
def test_every_value_is_mapped_or_listed_or_the_recipe_is_refused(name: str) -> None:
    found = recipe(name)
    try:
        refuse(found, Target.VERL)
    except RecipeError as error:
        assert error.hint
        return
    plain = recipe("quickstart")
    listed = {left.key for left in unmapped(found, patterns(), Target.VERL)}
    mapped = mapped_values(found, layout_for(found, 1))
    usual = flat_values(plain)
    for key, value in flat_values(found).items():
        differs = key in usual and usual[key] != value
        if differs and not key.startswith(("recipe.", "paper", "eval.")):
            said = key in mapped or any(fnmatchcase(key, one) for one in patterns())
            assert said or key in listed or value == _default(key), key


def _default(key: str) -> Any:
    bare = {
        "recipe": {"name": "x"},
        "model": {"id": "x"},
        "lora": {"rank": 1, "alpha": 1.0},
        "data": {"path": "x"},
        "schedule": {"learning_rate": 1.0},
    }
    return flat_values(Recipe.model_validate(bare)).get(key)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("schedule.stop_after_steps=unset", "not after hours"),
        ("signal.skip=accuracy", "signal.skip"),
        ("model.load_in_4bit=true", "load_in_4bit"),
        ("lora.dropout=0.1", "dropout"),
        ("grpo.scale_rewards=batch", "scale_rewards"),
        ("grpo.mask_truncated_completions=true", "mask_truncated"),
        ("schedule.shape=linear", "linear"),
        ("sampling.min_p=0.1", "min_p"),
    ],
)
def test_what_verl_cannot_say_is_refused_with_a_way_out(change: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        refuse(recipe("deepscaler_r64", change), Target.VERL)
    assert told in caught.value.message
    assert caught.value.hint


def test_rslora_keeps_its_scale_in_a_program_that_divides_by_the_rank() -> None:
    found = recipe("deepscaler_r64", "lora.alpha_policy=rslora")
    alpha = verl_values(found, layout_for(found, 1))["actor_rollout_ref.model.lora_alpha"]
    assert alpha / found.lora.rank == found.lora.scale


@pytest.mark.parametrize("gpus", [1, 2, 4, 8, 16])
def test_more_gpus_cut_the_same_update_into_equal_parts(gpus: int) -> None:
    found = recipe()
    layout = layout_for(found, gpus)
    values = verl_values(found, layout)
    assert values["data.train_batch_size"] == 16  # the update stays
    share = found.completions_per_update // gpus
    assert share % layout.micro_batch == 0
    assert layout.per_node * layout.nodes == gpus
    assert layout.per_node % layout.tensor_parallel == 0


def test_a_batch_that_cannot_be_cut_is_refused_and_a_large_model_is_spread() -> None:
    with pytest.raises(RecipeError, match="cannot be cut"):
        layout_for(recipe(), 3)
    large = recipe("qwen2.5_7b_4bit", "model.load_in_4bit=false", "budget.gpu=RTX 4090")
    assert layout_for(large, 8).tensor_parallel == 2
    assert layout_for(recipe(), 8).tensor_parallel == 1


def test_rows_are_messages_with_the_gold_and_where_they_come_from(exported: Path) -> None:
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(exported / "train.parquet").to_pylist()
    first = rows[0]
    assert [turn["role"] for turn in first["prompt"]] == ["user"]
    assert first["reward_model"]["ground_truth"] == first["answer"]
    assert first["extra_info"]["problem"] in first["prompt"][-1]["content"]
    assert {row["data_source"] for row in rows} == {"train"}
    suite = pyarrow.parquet.read_table(exported / "heldout.parquet").to_pylist()
    assert not {row["extra_info"]["problem"] for row in rows} & {
        row["extra_info"]["problem"] for row in suite
    }


def test_run_script_hands_over_files_by_whole_paths(exported: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -m ] && printf "%s\\n" "$@" > {tmp_path}/given || true\n'
    )
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(exported / "run.sh"), "x=1"], check=True, env=environment)
    given = (tmp_path / "given").read_text().splitlines()
    assert f"data.train_files='{exported}/train.parquet'" in given
    assert f"data.val_files=['{exported}/heldout.parquet']" in given
    assert f"reward.custom_reward_function.path='{exported}/reward.py'" in given
    assert given[-1] == "x=1"


def test_the_exported_reward_is_ours_and_outlives_a_hostile_answer(exported: Path) -> None:
    score = Scorer(exported)
    assert score("so \\boxed{12}", "12")["acc"] == 1.0
    assert score("so \\boxed{13}", "12") == {
        "score": 0.0,
        "acc": 0.0,
        "accuracy": 0.0,
        "format": 0.0,
    }
    assert score("\\boxed{9^{9^{9^{9^9}}}}", "\\sqrt{2}")["acc"] == 0.0
    with pytest.raises(RewardError, match="no reward"):
        score("\\boxed{1}", "")  # a fault is never a 0
    text = (exported / "reward.py").read_text()
    assert "def compute_score(" in text
    compile(text, "reward.py", "exec")


def test_export_says_what_it_did_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "place"
    assert main(["export", "quickstart", "--to", "verl", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(map(Path, found["files"])) == sorted(out.iterdir())
    assert ["actor_rollout_ref.model.lora_rank", 64] in found["mapped"]["lora.rank"]
    assert {"key", "value", "why"} == set(found["unmapped"][0])


@pytest.mark.parametrize("target", ["verl", "trl"])
def test_nothing_is_written_over_and_nothing_half(tmp_path: Path, target: str) -> None:
    (tmp_path / "kept").write_text("mine")
    command = ["export", "quickstart", "--to", target, "--out"]
    assert main([*command, str(tmp_path)]) == 2
    assert main([*command, str(tmp_path / "kept" / "below")]) == 2
    assert main([*command, str(tmp_path / "x"), "--set", "data.path=/nowhere.jsonl"]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_a_run_is_no_recipe_and_is_told_where_to_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    out = str(tmp_path / "out")
    assert main(["export", str(tmp_path), "--to", "verl", "--out", out]) == 2
    assert "--to merged" in capsys.readouterr().err


def test_hub_data_get_a_script_that_fetches_them_there(tmp_path: Path) -> None:
    made = export_verl(recipe(), tmp_path / "out", gpus=8)
    names = {file.name for file in made.files}
    assert "train.parquet" not in names
    assert "prepare_data.py" in names
    assert "prepare_data.py" in (tmp_path / "out" / "run.sh").read_text()


def test_stop_texts_become_end_tokens_of_vllm(tmp_path: Path) -> None:
    sets = (
        "sampling.stop=['<|im_end|>']",
        "data.limit=8",
        "eval.heldout.path=asset:tiny/data/heldout.jsonl",
    )
    export_verl(recipe("quickstart", *sets), tmp_path / "out")
    script = (tmp_path / "out" / "run.sh").read_text()
    assert "engine_kwargs.vllm.generation_config='$here/generation'" in script
    prepare(tmp_path / "out", with_lengths=False)
    written = json.loads((tmp_path / "out/generation/generation_config.json").read_text())
    assert written["eos_token_id"]


def test_trl_takes_every_argument_and_has_the_recipes_values(tmp_path: Path) -> None:
    from trl import DatasetMixtureConfig, GRPOConfig, ModelConfig, TrlParser
    from trl.scripts.grpo import GRPOScriptArguments

    export_trl(recipe("quickstart"), tmp_path / "out")
    parser = TrlParser((GRPOScriptArguments, GRPOConfig, ModelConfig, DatasetMixtureConfig))
    script, grpo, model, _ = parser.parse_args_and_config(
        ["--config", str(tmp_path / "out" / "trl.yaml")], fail_with_unknown_args=True
    )
    wanted = recipe("quickstart")
    assert grpo.learning_rate == wanted.schedule.learning_rate
    assert grpo.generation_batch_size == wanted.completions_per_step
    assert (grpo.num_generations, grpo.max_steps) == (8, 60)
    assert (model.lora_r, model.lora_alpha, model.use_peft) == (64, 64, True)
    assert script.reward_funcs == ["budgetrl_reward.reward"]


def test_trl_scheduler_is_the_recipes_shape() -> None:
    found = trl_values(recipe("deepscaler_r64", "schedule.shape=cosine", "schedule.min_share=0.1"))
    assert found["lr_scheduler_type"] == "cosine_with_min_lr"
    assert found["lr_scheduler_kwargs"] == {"min_lr_rate": 0.1}
    warm = trl_values(recipe("deepscaler_r64", "schedule.warmup_share=0.1"))
    assert (warm["lr_scheduler_type"], warm["warmup_steps"]) == ("constant_with_warmup", 30)


def test_yaml_is_read_as_the_same_values() -> None:
    import yaml

    values = {
        "a.b": 3e-6,
        "a.n": 1,
        "a.c": [1e-8, "yes: no"],
        "d": {"e": 1e9},
        "f": None,
        "g": True,
    }
    assert yaml.safe_load(to_yaml(values)) == {
        "a": {"b": 3e-6, "n": 1, "c": [1e-8, "yes: no"]},
        "d": {"e": 1e9},
        "f": None,
        "g": True,
    }


def test_the_page_of_keys_is_made_of_the_mapping() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "verl_keys.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run scripts/verl_keys.py"
    written = [key for entry in ENTRIES if entry.written for key in entry.verl]
    assert len(written) == len(set(written))


def test_flags_of_one_kind_are_refused_with_the_other(tmp_path: Path) -> None:
    out = str(tmp_path / "x")
    assert main(["export", "quickstart", "--to", "trl", "--gpus", "2", "--out", out]) == 2
    assert main(["export", "quickstart", "--to", "merged", "--set", "a.b=1", "--out", out]) == 2
    assert issubclass(UsageError, BudgetRLError)


@pytest.mark.parametrize("name", ["quickstart_warm", "quickstart_distill"])
def test_a_recipe_in_stages_is_refused_with_the_way_on(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", name, "--to", "verl", "--out", str(tmp_path / "out")]) == 2
    assert "has stages" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
