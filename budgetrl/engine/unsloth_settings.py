"""A recipe as Unsloth's and vLLM's arguments, and what they made of them. Imports neither.

    environment(recipe, folder)                      before unsloth is imported
    loading_arguments(recipe, source, dtype)         everything that a default could change
    adapter_arguments(recipe)
    check_held(model, recipe, loading)               after both had their say: equal, or no run

Unsloth and vLLM adjust values without an error, so each is read back and compared.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from budgetrl.engine.adapter import more_than_lora
from budgetrl.errors import ModelError, RecipeError, first_line
from budgetrl.recipe.base import VLLM_RANKS
from budgetrl.recipe.schema import Recipe

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What "all-linear" means for the models that Unsloth has kernels for."""
ADAPTER_FIELDS = ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora")
UNKNOWN_NEED = 0.85
"""Share of the GPU for vLLM where the recipe states none and its need is not known."""
UNSLOTHS_OWN_CHOICE = 256
"""As max_num_seqs it means "choose for me" to Unsloth, which then takes 8 to 128 on 48 GB."""


def environment(recipe: Recipe, folder: Path) -> dict[str, str]:
    """Variables that have to be set before unsloth is imported."""
    return {
        "UNSLOTH_VLLM_STANDBY": "1" if recipe.engine.standby else "0",
        # Without it standby replaces gpu_memory_utilization by a value of its own (unsloth #3328).
        "UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE": "1",
        # vLLM's sleep needs fixed segments; without it expandable ones waste less memory.
        "PYTORCH_ALLOC_CONF": f"expandable_segments:{not recipe.engine.standby}",
        # Compiled code is kept in the run: a cache that runs share goes stale (unsloth #10188).
        "UNSLOTH_COMPILE_LOCATION": str(folder / "unsloth_compiled"),
        "UNSLOTH_VLLM_MERGED_ROLLOUT": "0",
        "UNSLOTH_GRPO_ZERO_VARIANCE_EXCLUDE": "0",
        "UNSLOTH_GRPO_ROLLOUT_LOGPROBS_AS_OLD": "0",
        "UNSLOTH_GRPO_TRUNCATED_SUPPORT": "0",
        "UNSLOTH_GRPO_LOSS_AGGREGATION": "",
        # Without it the logits of all pieces are kept for the backward pass.
        "UNSLOTH_GRPO_LOGPROB_RECOMPUTE": "1",
        # Requests with seeds of their own keep its sampler off; an older nvcc breaks its build.
        "UNSLOTH_VLLM_NO_FLASHINFER": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_ENABLE_HF_TRANSFER": "0",
    }


def vllm_rank(rank: int) -> int:
    """The smallest rank that vLLM can serve an adapter of this rank with.

    Raises:
        RecipeError: it is above all of them.
    """
    fitting = [allowed for allowed in VLLM_RANKS if allowed >= rank]
    if not fitting:
        raise RecipeError(
            f"lora.rank = {rank} is above what vLLM serves.",
            hint=f"It takes {', '.join(map(str, VLLM_RANKS))}.",
        )
    return fitting[0]


def refuse_unkept(recipe: Recipe) -> None:
    """Settings that Unsloth would silently ignore.

    Raises:
        RecipeError: the recipe has one.
    """
    if recipe.engine.merged_rollouts and recipe.model.load_in_4bit:
        raise RecipeError(
            "engine.merged_rollouts = true with model.load_in_4bit = true cannot be kept: nothing "
            "can be added to 4-bit weights.",
            hint="Leave one of them false.",
        )
    others = sorted(set(recipe.lora.targets) - set(ALL_LINEAR))
    if recipe.lora.targets != "all-linear" and others:
        raise RecipeError(
            f"lora.targets = {', '.join(others)} cannot be kept: Unsloth trains a head or "
            "embedding whole, without LoRA, and knows no other layers.",
            hint=f'It takes {", ".join(ALL_LINEAR)}; engine.name = "plain" takes any layer.',
        )
    if not recipe.engine.chunked_prefill:
        raise RecipeError(
            "engine.chunked_prefill = false cannot be kept: Unsloth decides it by the GPU.",
            hint="Leave it true.",
        )


def loading_arguments(recipe: Recipe, source: str, dtype: Any) -> dict[str, Any]:
    """Arguments of `FastLanguageModel.from_pretrained`, all that a default could change.

    Args:
        recipe: says what to load.
        source: a local folder; with vLLM a revision would be ignored.
        dtype: torch's name for the recipe's dtype.
    """
    engine = recipe.engine
    return {
        "model_name": source,
        "max_seq_length": recipe.sequence_tokens,
        "dtype": dtype,
        "load_in_4bit": recipe.model.load_in_4bit,
        "load_in_8bit": False,
        "load_in_16bit": not recipe.model.load_in_4bit,
        "load_in_fp8": False,
        "full_finetuning": False,
        "use_exact_model_name": True,
        "trust_remote_code": False,
        "use_gradient_checkpointing": "unsloth" if engine.gradient_checkpointing else False,
        "fast_inference": True,
        "gpu_memory_utilization": engine.gpu_memory_utilization or UNKNOWN_NEED,
        "float8_kv_cache": False,
        "random_state": recipe.seed,
        "max_lora_rank": vllm_rank(recipe.lora.adapter_rank),
        "disable_log_stats": True,
        "unsloth_vllm_standby": engine.standby,
        "max_num_seqs": engine.max_num_seqs + (engine.max_num_seqs == UNSLOTHS_OWN_CHOICE),
        "enable_prefix_caching": engine.prefix_caching,
    }


def adapter_arguments(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `FastLanguageModel.get_peft_model`."""
    lora = recipe.lora
    return lora.peft_arguments | {
        "target_modules": list(ALL_LINEAR if lora.targets == "all-linear" else lora.targets),
        "use_gradient_checkpointing": "unsloth" if recipe.engine.gradient_checkpointing else False,
        "random_state": recipe.seed,
        "modules_to_save": None,
        "init_lora_weights": True,
    }


def check_held(model: Any, recipe: Recipe, loading: Mapping[str, Any]) -> None:
    """What PEFT, vLLM and the model hold is what the recipe says.

    Args:
        model: with its adapter and its vLLM.
        recipe: what was asked for.
        loading: arguments of `loading_arguments`.

    Raises:
        ModelError: names library and both values of each field that differs.
    """
    if getattr(model, "vllm_engine", None) is None:
        raise ModelError(
            "Unsloth loaded the model without vLLM, which it does on GPUs that it finds too old.",
            hint='Set engine.name = "plain", or take a GPU of compute capability 8.0 or newer.',
        )
    adapter = adapter_arguments(recipe)
    peft = model.peft_config["default"]
    pairs = [("peft", name, adapter[name], getattr(peft, name)) for name in ADAPTER_FIELDS]
    targets = sorted(adapter["target_modules"]), sorted(peft.target_modules)
    pairs.append(("peft", "target_modules", *targets))
    # Where layers are fused, as in Phi-3, PEFT takes those that it finds and says nothing.
    parts = (name.partition(".lora_A.") for name, _ in model.named_parameters())
    layers = sorted({layer.rpartition(".")[2] for layer, found, _ in parts if found})
    pairs.append(("the model", "layers with an adapter", targets[0], layers))
    pairs.append(("the model", "dtype", loading["dtype"], model.dtype))
    # vLLM scales B in place, and would not copy one of its own dtype before: the trainer's B.
    kept = sorted({str(p.dtype) for name, p in model.named_parameters() if ".lora_" in name})
    pairs.append(("peft", "dtypes of the adapter", ["torch.float32"], kept))
    vllm = model.vllm_engine.llm_engine.vllm_config
    for table, name, wanted in (
        ("model_config", "max_model_len", loading["max_seq_length"]),
        ("model_config", "enable_sleep_mode", loading["unsloth_vllm_standby"]),
        ("model_config", "dtype", loading["dtype"]),
        ("model_config", "logprobs_mode", "processed_logprobs"),  # after temperature
        ("scheduler_config", "max_num_seqs", loading["max_num_seqs"]),
        ("scheduler_config", "enable_chunked_prefill", recipe.engine.chunked_prefill),
        ("cache_config", "enable_prefix_caching", loading["enable_prefix_caching"]),
        ("lora_config", "max_lora_rank", loading["max_lora_rank"]),
    ):
        pairs.append(("vllm", name, wanted, getattr(getattr(vllm, table), name)))
    refuse_differing(pairs)


def refuse_other_kinds(folder: Path) -> None:
    """Refuse an adapter whose weights would go into layers of another rule than its own.

    Raises:
        ModelError: it is more than LoRA of one rank and scale, or has no configuration.
    """
    try:
        values = json.loads((folder / "adapter_config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"adapter {folder}: its adapter_config.json cannot be read: {first_line(error)}.",
            hint="Give a whole adapter folder.",
        ) from None
    if more := more_than_lora(values):
        raise ModelError(
            f"adapter {folder} is more than Unsloth's layers can hold: {', '.join(more)}.",
            hint='Open it with engine.name = "plain".',
        )


def refuse_differing(pairs: Sequence[tuple[str, str, Any, Any]]) -> None:
    """Compare values, each with its library and name.

    Raises:
        ModelError: names those that differ.
    """
    differing = [
        f"{name}: asked {wanted!r}, {library} holds {held!r}"
        for library, name, wanted, held in pairs
        if wanted != held
    ]
    if differing:
        raise ModelError(
            "libraries changed values of the recipe:\n  " + "\n  ".join(differing),
            hint="`budgetrl doctor` shows whether the installed versions are tested ones.",
        )
