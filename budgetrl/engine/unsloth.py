"""Unsloth's kernels with vLLM in the same process, on one NVIDIA GPU. The only importer of unsloth.

    import_unsloth(recipe, folder)     first of all: before trl, transformers and peft
    UnslothEngine.open(recipe, folder, adapter)

Training and rollouts share one copy of the base weights; before every rollout the adapter goes to
vLLM from memory. Unsloth patches TRL's trainer, and budgetrl's mixin sits on the patched class.
What of this ran on a GPU is said in the README, "On a rented GPU".
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from budgetrl.engine.base import (
    EntropyEstimate,
    InnerRollout,
    Request,
    Rollout,
    SamplingSpec,
    StopCheck,
)
from budgetrl.engine.ends import end_ids
from budgetrl.engine.vllm_loop import Sampled, draw
from budgetrl.errors import HardwareError, ModelError, RecipeError
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.base import VLLM_RANKS
from budgetrl.recipe.schema import AlphaPolicy, Recipe
from budgetrl.types import Completion

LORA_NAME = "budgetrl_adapter"
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What "all-linear" means for the models that Unsloth has kernels for."""
GAP_ROWS = 4
"""Completions of which sampler and trainer are compared at each step."""
GAP_TOKENS = 256
"""First tokens of those: the logits of more would cost memory that training needs."""


def environment(recipe: Recipe, folder: Path) -> dict[str, str]:
    """Variables that have to be set before unsloth is imported."""
    return {
        "UNSLOTH_VLLM_STANDBY": "1" if recipe.engine.standby else "0",
        # Compiled code is kept in the run: a cache that runs share goes stale (unsloth #10188).
        "UNSLOTH_COMPILE_LOCATION": str(folder / "unsloth_compiled"),
        "UNSLOTH_VLLM_MERGED_ROLLOUT": "0",
        "UNSLOTH_GRPO_ZERO_VARIANCE_EXCLUDE": "0",
        "UNSLOTH_GRPO_ROLLOUT_LOGPROBS_AS_OLD": "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_ENABLE_HF_TRANSFER": "0",
    }


def import_unsloth(recipe: Recipe, folder: Path) -> Any:
    """Import unsloth, which patches trl, transformers and peft; returns the module.

    Raises:
        HardwareError: it is not installed.
    """
    if "unsloth" not in sys.modules:
        early = [name for name in ("trl", "transformers", "peft") if name in sys.modules]
        assert not early, f"unsloth has to be imported before {', '.join(early)}"
        os.environ.update(environment(recipe, folder))
    try:
        import unsloth
    except ImportError as error:
        raise HardwareError(
            f"the unsloth engine cannot be imported: {error}.",
            hint="Install it with `bash scripts/install.sh gpu`; `budgetrl doctor` says more.",
        ) from None
    return unsloth


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
    if recipe.engine.merged_rollouts:
        raise RecipeError(
            "engine.merged_rollouts = true cannot be kept: Unsloth folds the adapter only in its "
            "own generate call, which has no time limit.",
            hint="Leave it false.",
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
        "max_seq_length": recipe.prompt.max_tokens + longest_completion(recipe),
        "dtype": dtype,
        "load_in_4bit": recipe.model.load_in_4bit,
        "load_in_8bit": False,
        "load_in_16bit": not recipe.model.load_in_4bit,
        "load_in_fp8": False,
        "full_finetuning": False,
        "trust_remote_code": False,
        "use_gradient_checkpointing": "unsloth" if engine.gradient_checkpointing else False,
        "fast_inference": True,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "float8_kv_cache": False,
        "random_state": recipe.seed,
        "max_lora_rank": vllm_rank(recipe.lora.rank),
        "disable_log_stats": True,
        "unsloth_vllm_standby": engine.standby,
        "max_num_seqs": engine.max_num_seqs,
        "enable_prefix_caching": engine.prefix_caching,
    }


def adapter_arguments(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `FastLanguageModel.get_peft_model`."""
    lora = recipe.lora
    alpha = lora.resolved_alpha
    return {
        "r": lora.rank,
        "target_modules": list(ALL_LINEAR if lora.targets == "all-linear" else lora.targets),
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "use_gradient_checkpointing": "unsloth" if recipe.engine.gradient_checkpointing else False,
        "random_state": recipe.seed,
        "use_rslora": lora.alpha_policy is AlphaPolicy.RSLORA,
        "modules_to_save": None,
        "init_lora_weights": True,
    }


def longest_completion(recipe: Recipe) -> int:
    """Tokens of the longest completion that training or any evaluation asks for."""
    return max([recipe.sampling.max_tokens, *map(recipe.eval_max_tokens, recipe.eval)])


class UnslothEngine:
    """A model whose kernels are Unsloth's and whose completions are vLLM's; its own policy."""

    name = "unsloth"

    def __init__(
        self, model: Any, tokenizer: Any, recipe: Recipe, sampling_params: Any, folder: Path
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.llm = model.vllm_engine
        self._recipe = recipe
        self._sampling_params = sampling_params
        self._folder = folder
        config = model.config
        self.context_tokens: int | None = getattr(config, "max_position_embeddings", None)
        self.end_ids = end_ids(model, tokenizer, recipe)

    @classmethod
    def open(cls, recipe: Recipe, folder: Path, adapter: Path | None = None) -> Self:
        """Load base model, vLLM and adapter.

        Raises:
            HardwareError: unsloth or a GPU is missing.
            ModelError: the model or the adapter cannot be loaded.
            RecipeError: a setting that this engine cannot keep.
        """
        refuse_unkept(recipe)
        unsloth = import_unsloth(recipe, folder)
        import torch
        from vllm import SamplingParams

        if not torch.cuda.is_available():
            raise HardwareError(
                "the unsloth engine needs an NVIDIA GPU, and torch finds none.",
                hint="Try the laptop recipe: budgetrl run quickstart",
            )
        source = snapshot(recipe.model.id, recipe.model.revision)
        loader = unsloth.FastLanguageModel
        arguments = loading_arguments(recipe, source, getattr(torch, recipe.model.dtype))
        try:
            base, tokenizer = loader.from_pretrained(**arguments)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"model {recipe.model.id!r} cannot be loaded: {_first_line(error)}",
                hint="Check model.id, the network, and access to gated models (budgetrl doctor).",
            ) from None
        model = loader.get_peft_model(base, **adapter_arguments(recipe))
        check_adapter(model, recipe)
        if adapter is not None:
            _load_weights(model, adapter)
        return cls(model, tokenizer, recipe, SamplingParams, folder)

    @property
    def policy(self) -> Self:
        """The model with its current adapter."""
        return self

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Completion | None]:
        """One completion per request; None for those not finished when stopped."""
        drawn = self._draw(requests, sampling, should_stop)
        return [
            None
            if one is None
            else Completion(
                self.decode(one.ids), len(one.ids), not one.ids or one.ids[-1] not in self.end_ids
            )
            for one in drawn
        ]

    def rollout(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: SamplingSpec,
        should_stop: StopCheck,
        inner: InnerRollout,
    ) -> Rollout | None:
        """Completions for training, with the sampler's log-probabilities; not TRL's own."""
        with self._awake():
            drawn = draw(
                self.llm, self._sampling_params, prompt_ids, seeds, sampling,
                sorted(self.end_ids), self._adapter(), should_stop,
            )  # fmt: skip
        whole = [one for one in drawn if one is not None]
        if len(whole) < len(drawn):
            return None
        return Rollout([one.ids for one in whole], [one.logps for one in whole], None)

    def entropy(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> EntropyEstimate | None:
        """Exact mean token entropy over fresh completions (Eq. 1), from the trainer's logits.

        Rows one at a time and positions in pieces: a 152k vocabulary at 3,584 tokens would need
        2 GiB at once.
        """
        from budgetrl.engine.logits import entropy_of

        drawn = self._draw(requests, sampling, should_stop)
        whole = [one for one in drawn if one is not None]
        if len(whole) < len(drawn) or should_stop():
            return None
        total = sum(
            entropy_of(self.model, request.prompt_ids, one.ids, sampling.temperature)
            for request, one in zip(requests, whole, strict=True)
        )
        tokens = sum(len(one.ids) for one in whole)
        return EntropyEstimate(len(whole), tokens, total / max(1, tokens))

    def logp_gap(
        self, prompt_ids: Sequence[Sequence[int]], rollout: Rollout, temperature: float
    ) -> float | None:
        """Mean |log p (sampler) - log p (trainer)| over the first tokens of a few completions.

        A stale adapter or a wrong template shows here first: both sides then score other weights
        or other prompts.
        """
        from budgetrl.engine.logits import logps_of

        if rollout.logps is None:
            return None
        gaps: list[float] = []
        stride = max(1, len(rollout.ids) // GAP_ROWS)
        for row in range(0, len(rollout.ids), stride)[:GAP_ROWS]:
            ids = rollout.ids[row][:GAP_TOKENS]
            here = logps_of(self.model, prompt_ids[row], ids, temperature)
            there = rollout.logps[row][: len(ids)]
            gaps += [abs(a - b) for a, b in zip(here, there, strict=True)]
        return sum(gaps) / len(gaps) if gaps else None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion without special tokens; think tags are kept."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def adapter_is_zero(self) -> bool:
        """Whether every B matrix is exactly zero."""
        return not any(
            bool(parameter.any()) for name, parameter in self.model.named_parameters()
            if ".lora_B." in name
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """For the manifest; what standby made of the memory share is read from vLLM."""
        config = self.llm.llm_engine.vllm_config
        return {
            "engine": self.name,
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "model": self._recipe.model.id,
            "model_revision": self._recipe.model.revision,
            "context_tokens": self.context_tokens,
            "gpu_memory_utilization": config.cache_config.gpu_memory_utilization,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "standby": bool(config.model_config.enable_sleep_mode),
            "trainable_parameters": sum(
                p.numel() for p in self.model.parameters() if p.requires_grad
            ),
        }

    def close(self) -> None:
        """Free the model; the process's end frees the GPU."""
        import torch

        self.model = self.llm = None
        torch.cuda.empty_cache()

    def _draw(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Sampled | None]:
        with self._awake():
            return draw(
                self.llm, self._sampling_params, [r.prompt_ids for r in requests],
                [r.seed for r in requests], sampling, sorted(self.end_ids), self._adapter(),
                should_stop,
            )  # fmt: skip

    def _adapter(self) -> Any:
        """The current adapter as vLLM takes it; a fresh id each time, so none is cached."""
        return self.model.load_lora(str(self._folder / LORA_NAME), load_tensors=True)

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """vLLM awake inside, asleep after it where the recipe says standby."""
        engine = self.llm.llm_engine
        if engine.is_sleeping():
            self.llm.wake_up()
        try:
            yield
        finally:
            # The KV cache holds keys of the adapter that was; the next one must not find them.
            self.llm.reset_prefix_cache()
            if engine.vllm_config.model_config.enable_sleep_mode:
                self.llm.sleep(1)


def snapshot(model_id: str, revision: str | None) -> str:
    """A local folder with a model's files: fast inference would ignore a revision.

    Raises:
        ModelError: it cannot be downloaded.
    """
    source = local_path(model_id)
    if Path(source).is_dir():
        return source
    import huggingface_hub

    try:
        return huggingface_hub.snapshot_download(source, revision=revision)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {model_id!r} cannot be downloaded: {_first_line(error)}",
            hint="Check the network and, for gated models, `huggingface-cli login`.",
        ) from None


def check_adapter(model: Any, recipe: Recipe) -> None:
    """What PEFT holds is what the recipe says.

    Raises:
        ModelError: names each field that differs, with both values.
    """
    config = model.peft_config["default"]
    wanted = adapter_arguments(recipe)
    held = {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "bias": config.bias,
        "use_rslora": config.use_rslora,
        "target_modules": sorted(config.target_modules),
    }
    wanted["target_modules"] = sorted(wanted["target_modules"])
    differing = [
        f"{name}: asked {wanted[name]!r}, peft holds {value!r}"
        for name, value in held.items()
        if wanted[name] != value
    ]
    if differing:
        raise ModelError(
            "the adapter is not what the recipe says:\n  " + "\n  ".join(differing),
            hint="`budgetrl doctor` shows whether the installed versions are tested ones.",
        )


def _load_weights(model: Any, adapter: Path) -> None:
    import peft
    from safetensors.torch import load_file

    try:
        weights = load_file(str(adapter / "adapter_model.safetensors"))
    except OSError as error:
        raise ModelError(f"adapter {adapter}: cannot be read: {error}.") from None
    result = peft.set_peft_model_state_dict(model, weights)
    if result.unexpected_keys:
        raise ModelError(
            f"adapter {adapter} does not fit the model: {result.unexpected_keys[0]} is unknown.",
            hint="Give an adapter that was trained on the same base model and targets.",
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300] or type(error).__name__
