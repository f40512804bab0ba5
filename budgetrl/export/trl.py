"""A recipe as a folder for the command `trl grpo`: trl.yaml, run.sh, rows, and our reward.

    export_trl(recipe, out) -> Exported(files, mapped, unmapped)

The same arguments that the plain engine's trainer gets. What budgetrl adds to TRL (its budget, its
signal, evaluations, resuming bit for bit) stays here.
"""

from pathlib import Path
from typing import Any

from budgetrl.export.limits import Target, refuse, unmapped
from budgetrl.export.notes import readme
from budgetrl.export.rows import TRAIN
from budgetrl.export.verl import PREPARE, SCRIPT, Exported, write_export
from budgetrl.export.yaml_text import to_yaml
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.flat import flat_values
from budgetrl.recipe.schema import EngineName, Lora, Recipe
from budgetrl.training.trl_args import grpo_arguments

TRL = "1.14.2"
CONFIG, REWARD = "trl.yaml", "budgetrl_reward.py"

_REWARD = '''\
"""The reward of recipe.json, as TRL calls it."""

from pathlib import Path
from typing import Any

from budgetrl.export.reward import Scorer

SCORER = Scorer(Path(__file__).resolve().parent)


def reward(
    completions: list[Any], answer: list[str], completion_ids: list[list[int]], **others: Any
) -> list[float]:
    """The weighted sum for each completion."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    rows = zip(texts, answer, map(len, completion_ids), strict=True)
    return [SCORER(text, gold, length)["score"] for text, gold, length in rows]
'''
_SCRIPT = f"""\
#!/usr/bin/env bash
# Train with `trl grpo` (TRL {TRL}). Further arguments are TRL's: bash run.sh --save_steps 10
set -euo pipefail
cd "$(dirname "$0")"
[ -f rows/{TRAIN} ] || {{ python {PREPARE}; mkdir -p rows; mv {TRAIN} rows/; }}
exec trl grpo --config {CONFIG} "$@"
"""
_SAME = {
    **{
        f"grpo.{name}": (name,)
        for name in (
            *("num_generations", "loss_type", "beta", "epsilon", "epsilon_high", "num_iterations"),
            *("scale_rewards", "mask_truncated_completions"),
        )
    },
    **{f"sampling.{name}": (name,) for name in ("temperature", "top_p", "top_k", "min_p")},
    "sampling.max_tokens": ("max_completion_length",),
    "batch.prompts_per_step": ("steps_per_generation",),
    "batch.updates_per_rollout": ("gradient_accumulation_steps",),
    "batch.micro_batch": ("per_device_train_batch_size",),
    "schedule.learning_rate": ("learning_rate",),
    "schedule.shape": ("lr_scheduler_type", "lr_scheduler_kwargs"),
    "schedule.warmup_share": ("warmup_steps",),
    "schedule.min_share": ("lr_scheduler_kwargs",),
    "schedule.stop_after_steps": ("max_steps",),
    "optimizer.name": ("optim",),
    "optimizer.beta1": ("adam_beta1",),
    "optimizer.beta2": ("adam_beta2",),
    "optimizer.epsilon": ("adam_epsilon",),
    "optimizer.weight_decay": ("weight_decay",),
    "optimizer.max_grad_norm": ("max_grad_norm",),
    "model.id": ("model_name_or_path",),
    "model.revision": ("model_revision",),
    "model.dtype": ("dtype", "bf16", "fp16"),
    "model.load_in_4bit": ("load_in_4bit",),
    "lora.rank": ("use_peft", "lora_r"),
    "lora.alpha": ("lora_alpha",),
    "lora.alpha_policy": ("use_rslora",),
    "lora.dropout": ("lora_dropout",),
    "lora.targets": ("lora_target_modules",),
    "prompt.template_kwargs": ("chat_template_kwargs",),
    "recipe.seed": ("seed", "data_seed"),
    "checkpoint.every_steps": ("save_strategy", "save_steps"),
    "engine.device": ("use_cpu",),
    "engine.name": ("use_vllm", "vllm_mode"),
    "engine.standby": ("vllm_enable_sleep_mode",),
    "engine.gpu_memory_utilization": ("vllm_gpu_memory_utilization",),
    "engine.gradient_checkpointing": ("gradient_checkpointing",),
    "tracker.kind": ("report_to",),
    "data.path": ("dataset_name",),
    "data.id": ("dataset_name",),
    "rewards.*.weight": ("reward_funcs",),
}
"""Recipe key -> TRL's arguments."""
_IN_ROWS = ("prompt.system", "prompt.template", "prompt.max_tokens", "prompt.overlong", "rewards.*")


def export_trl(recipe: Recipe, out: Path) -> Exported:
    """Write a folder that `trl grpo` trains a recipe from.

    Raises:
        RecipeError: TRL's command has no equal of a value.
        DataError: local data cannot be used.
        UsageError: the folder exists.
    """
    refuse(recipe, Target.TRL)
    values = trl_values(recipe)
    mapped = _mapped(recipe, values)
    left = unmapped(recipe, [*_SAME, *_IN_ROWS], Target.TRL)
    config = f"# {recipe.name} for `trl grpo` ({TRL}).\n{to_yaml(values)}"
    texts = {CONFIG: config, SCRIPT: _SCRIPT, REWARD: _REWARD}
    texts["README.md"] = readme(recipe, Target.TRL, left)
    return Exported(write_export(recipe, out, texts, with_lengths=True), mapped, left)


def trl_values(recipe: Recipe) -> dict[str, Any]:
    """Every argument that is written, with its value."""
    steps = recipe.schedule.stop_after_steps
    assert steps is not None
    # Unsloth's arguments are not TRL's: what it adds is left out.
    plain = recipe.but({"engine.name": EngineName.PLAIN})
    values = grpo_arguments(plain, Path("checkpoints"), steps)
    return {
        "model_name_or_path": local_path(recipe.model.id),
        "model_revision": recipe.model.revision or "main",
        "dtype": recipe.model.dtype,
        "load_in_4bit": recipe.model.load_in_4bit,
        "dataset_name": "rows",
        "reward_funcs": ["budgetrl_reward.reward"],
        **_adapter(recipe.lora),
        "chat_template_kwargs": dict(recipe.prompt.template_kwargs) or None,
        **values,
        **_schedule(recipe),
        **_vllm(recipe),
        "shuffle_dataset": True,
        "ignore_data_skip": False,
        "save_strategy": "steps",
        "save_steps": recipe.checkpoint.every_steps or 25,
        "report_to": recipe.tracker.kind,
        "disable_tqdm": False,
    }


def _adapter(lora: Lora) -> dict[str, Any]:
    if lora.is_full:
        return {"use_peft": False}
    given = lora.peft_arguments
    return {
        "use_peft": True,
        "lora_r": given["r"],
        "lora_alpha": given["lora_alpha"],
        "lora_dropout": given["lora_dropout"],
        "lora_target_modules": given["target_modules"],
        "use_rslora": given["use_rslora"],
    }


def _vllm(recipe: Recipe) -> dict[str, Any]:
    if recipe.engine.name is not EngineName.UNSLOTH:
        return {"use_vllm": False}
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": recipe.engine.standby,
        "vllm_gpu_memory_utilization": recipe.engine.gpu_memory_utilization or 0.3,
        "vllm_importance_sampling_correction": False,
    }


def _schedule(recipe: Recipe) -> dict[str, Any]:
    """The learning rate's shape by transformers' schedulers; theirs end with the training."""
    schedule = recipe.schedule
    total = (schedule.stop_after_steps or 0) * recipe.optimizer_steps
    warmup = round(schedule.warmup_share * total)
    if schedule.shape == "constant":
        return {
            "lr_scheduler_type": "constant_with_warmup" if warmup else "constant",
            "warmup_steps": warmup,
        }
    if schedule.shape == "linear":
        return {"lr_scheduler_type": "linear", "warmup_steps": warmup}
    if schedule.min_share:
        return {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": schedule.min_share},
            "warmup_steps": warmup,
        }
    return {"lr_scheduler_type": "cosine", "warmup_steps": warmup}


def _mapped(recipe: Recipe, values: dict[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    found: dict[str, list[tuple[str, Any]]] = {}
    for key in flat_values(recipe):
        names = _SAME.get(key, ())
        if pairs := [(name, values[name]) for name in names if name in values]:
            found[key] = pairs
    return found
