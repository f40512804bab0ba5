"""A recipe reaches TRL whole: every argument exists, none is left to a default, none is changed."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import TrainingArguments

from budgetrl.errors import ExitCode, TrainingError
from budgetrl.recipe.load import load_recipe
from budgetrl.training.trl_args import check_unchanged, grpo_arguments

ELSEWHERE = {
    # engines load models, and the run directory logs
    *("cache_implementation", "model_init_kwargs", "trust_remote_code", "generation_kwargs"),
    *("log_completions_hub_repo", "log_multimodal", "log_unique_prompts"),
    *("num_completions_to_print", "num_generations_eval"),
    # prompts, which the renderer makes
    "chat_template_kwargs",
    # follows from steps_per_generation
    "generation_batch_size",
    # only read under a switch that is off: see the arguments themselves
    *("entropy_coef_delta", "entropy_coef_max", "entropy_coef_min", "entropy_target"),
    *("ref_model_mixup_alpha", "ref_model_sync_steps"),
    *("sapo_temperature_neg", "sapo_temperature_pos"),
    *("vespo_k_neg", "vespo_k_pos", "vespo_lambda_neg", "vespo_lambda_pos"),
    # tools, several devices: not in budgetrl
    *("max_tool_calling_iterations", "ds3_gather_for_generation"),
    # generation by TRL itself, which an engine replaces
    *("use_transformers_continuous_batching", "transformers_continuous_batching_config"),
    "use_transformers_paged",
}
"""Fields of `GRPOConfig` that cannot change what the plain engine trains."""


def arguments(folder: Path, *sets: str) -> dict[str, Any]:
    return grpo_arguments(load_recipe("quickstart", sets).recipe, folder, max_steps=60)


def test_every_argument_exists_in_the_pinned_trl(tmp_path: Path) -> None:
    assert version("trl") == "1.14.2"
    fields = {field.name for field in dataclasses.fields(trl.GRPOConfig)}
    assert set(arguments(tmp_path)) <= fields


def test_no_field_that_shapes_an_update_is_left_to_a_default(tmp_path: Path) -> None:
    inherited = {field.name for field in dataclasses.fields(TrainingArguments)}
    own = {field.name for field in dataclasses.fields(trl.GRPOConfig)} - inherited
    vllm = {name for name in own if name.startswith("vllm_")}
    assert own - vllm - set(arguments(tmp_path)) == ELSEWHERE


@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("grpo.loss_type=grpo", "grpo.beta=0.04", "grpo.scale_rewards=none"),
        ("grpo.loss_type=dr_grpo", "grpo.scale_rewards=batch", "grpo.epsilon_high=0.28"),
        ("grpo.loss_type=bnpo", "grpo.num_iterations=2", "sampling.min_p=0.1"),
        ("grpo.mask_truncated_completions=true", "sampling.top_k=20", "sampling.top_p=0.9"),
    ],
    ids=" ".join,
)
def test_what_is_asked_for_survives_construction(sets: tuple[str, ...], tmp_path: Path) -> None:
    wanted = arguments(tmp_path, "signal.skip=off", *sets)
    config = trl.GRPOConfig(**wanted)
    check_unchanged(wanted, config, "trl.GRPOConfig")
    for text in sets:
        key, _, value = text.partition("=")
        name = key.partition(".")[2]
        assert str(getattr(config, name)).lower() == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epsilon_high", 0.28),
        ("mask_truncated_completions", True),
        ("scale_rewards", "none"),
        ("beta", None),
        ("min_p", 0.1),
        ("delta", 1.5),
        ("importance_sampling_level", "sequence"),
        ("reward_weights", [1.0, 0.2]),
        ("lr_scheduler_type", "linear"),
    ],
)
def test_a_library_that_changes_a_value_is_named_with_both(
    name: str, value: Any, tmp_path: Path
) -> None:
    wanted = arguments(tmp_path)
    config = trl.GRPOConfig(**wanted)
    setattr(config, name, value)
    with pytest.raises(TrainingError) as caught:
        check_unchanged(wanted, config, "some.library")
    message = caught.value.message
    assert "some.library" in message
    assert f"{name}: asked {wanted[name]!r}, some.library holds {value!r}" in message
    assert message.count("asked") == 1
    assert "budgetrl doctor" in caught.value.hint
    assert caught.value.exit_code == ExitCode.FAILED
