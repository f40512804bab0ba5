"""A recipe as TRL's `GRPOConfig` or `SFTConfig`: the only place with TRL's argument names.

Every field that matters is explicit, because libraries change defaults silently; afterwards
`check_unchanged` compares what the trainer holds with what was asked for.
"""

from pathlib import Path
from typing import Any

from budgetrl.errors import TrainingError
from budgetrl.recipe.schema import EngineName, Recipe

UNLIMITED_STEPS = 1_000_000
"""Stands for "as many updates as the budget buys"."""
_NO_ROUTER_LOSS = {"router_aux_loss_coef": 0.0}
"""Else TRL takes 0.001 or so from config.json, of dense models too: Granite 4.0 is written as a
mixture of no experts, and its forward gives no such loss."""


def grpo_arguments(recipe: Recipe, folder: Path, max_steps: int) -> dict[str, Any]:
    """Keyword arguments of `GRPOConfig` for a recipe.

    Args:
        recipe: the resolved recipe.
        folder: where the trainer may write (it is told not to).
        max_steps: the step after which training is complete.
    """
    grpo, sampling = recipe.grpo, recipe.sampling
    micro = recipe.batch.micro_batch
    unsloth = recipe.engine.name is EngineName.UNSLOTH
    return {
        "max_steps": max_steps * recipe.optimizer_steps,
        # batch: with one optimiser step per rollout batch no old log-probs are needed
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": recipe.completions_per_update // micro,
        "steps_per_generation": recipe.completions_per_step // micro,
        "num_generations": grpo.num_generations,
        "num_iterations": grpo.num_iterations,
        "shuffle_dataset": False,
        "ignore_data_skip": True,
        # algorithm
        "loss_type": grpo.loss_type,
        "beta": grpo.beta,
        # the plain k3 estimate of the GRPO paper (2402.03300, Eq. 4); TRL's default weighs it anew
        "use_bias_correction_kl": False,
        "epsilon": grpo.epsilon,
        "epsilon_high": grpo.epsilon_high,
        "delta": None,
        "scale_rewards": grpo.scale_rewards,
        "importance_sampling_level": "token",
        "mask_truncated_completions": grpo.mask_truncated_completions,
        "multi_objective_aggregation": "sum_then_normalize",
        "reward_weights": [1.0],
        "top_entropy_quantile": 1.0,
        "entropy_coef": 0.0,
        "use_adaptive_entropy": False,
        **_NO_ROUTER_LOSS,
        "off_policy_mask_threshold": None,
        "sync_ref_model": False,
        "disable_dropout": False,
        # sampling
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Unsloth hands this on to vLLM, where -1 is off.
        "top_k": -1 if unsloth and not sampling.top_k else sampling.top_k,
        "min_p": sampling.min_p or None,
        "repetition_penalty": 1.0,
        "max_completion_length": sampling.max_tokens,
        **_generation(recipe),
        **_shared(recipe, folder),
        "cast_lm_head_to_fp32": False,
        "pad_to_multiple_of": None,
        "log_completions": False,
    }


def sft_arguments(
    recipe: Recipe, folder: Path, max_steps: int, passes: int, *, whole_head: bool
) -> dict[str, Any]:
    """Keyword arguments of `SFTConfig` for a stage's recipe.

    Args:
        recipe: of the stage.
        folder: where the trainer may write (it is told not to).
        max_steps: the step after which training is complete.
        passes: micro-batches of an update.
        whole_head: the model makes all logits; by default TRL those of trained tokens, in chunks.
    """
    return {
        "max_steps": max_steps,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": passes,
        # rows come tokenised, cut and with labels (training.sft)
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": recipe.sft.max_tokens,
        "packing": False,
        "padding_free": False,
        "completion_only_loss": True,
        "assistant_only_loss": False,
        "pad_to_multiple_of": None,
        "loss_type": "nll" if whole_head else "chunked_nll",
        **_NO_ROUTER_LOSS,
        "neftune_noise_alpha": None,
        "activation_offloading": False,
        "eos_token": None,
        "ignore_data_skip": True,
        **_shared(recipe, folder),
    }


def _shared(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What every trainer is told: seeds, optimiser, precision, and to neither log nor save."""
    optimizer = recipe.optimizer
    cuda = recipe.engine.device == "cuda"
    return {
        "output_dir": str(folder),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        # optimiser
        "learning_rate": recipe.schedule.learning_rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "adamw_8bit" if optimizer.name == "adamw_8bit" else "adamw_torch",
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        # precision and memory
        "use_cpu": not cuda,
        "bf16": cuda and recipe.model.dtype == "bfloat16",
        "fp16": cuda and recipe.model.dtype == "float16",
        "gradient_checkpointing": recipe.engine.gradient_checkpointing,
        "use_liger_kernel": False,
        "torch_compile": False,
        # the run directory logs and saves; the trainer does not
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "save_only_model": False,
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "full_determinism": False,
    }


def _generation(recipe: Recipe) -> dict[str, Any]:
    """Who generates. The engine does, but Unsloth's trainer insists on knowing its vLLM."""
    if recipe.engine.name is not EngineName.UNSLOTH:
        return {"use_vllm": False}
    pieces = -(-recipe.engine.logit_chunks // recipe.batch.micro_batch)
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": recipe.engine.standby,
        # TRL #4205: its tensors do not fit Unsloth's; the gap is measured each step instead.
        "vllm_importance_sampling_correction": False,
        # Unsloth ignores unsloth_num_chunks, and cuts the logits into this many pieces a row.
        "unsloth_logit_chunk_multiplier": pieces,
        # Pieces of a pass in spite of its name, here of one micro-batch (training.scoring); else
        # as many as free memory asks for.
        "unsloth_grpo_mini_batch": 1,
    }


def check_unchanged(wanted: dict[str, Any], config: Any, library: str) -> None:
    """Compare a library's configuration with what the recipe asked for.

    Raises:
        TrainingError: names the library and both values of each field that differs.
    """
    changed = [
        f"{name}: asked {value!r}, {library} holds {_plain(getattr(config, name))!r}"
        for name, value in wanted.items()
        if not _same(value, getattr(config, name))
    ]
    if changed:
        raise TrainingError(
            f"{library} changed values of the recipe:\n  " + "\n  ".join(changed),
            hint="`budgetrl doctor` shows whether the installed versions are tested ones.",
        )


def _same(wanted: Any, held: Any) -> bool:
    held = _plain(held)
    if wanted in (None, {}, "none") and held in (None, {}, [], "none"):
        return True
    return bool(wanted == held) or held == [wanted]


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
