"""Unsloth's kernels with vLLM in the same process, on one NVIDIA GPU. The only importer of unsloth.

    import_unsloth(recipe, folder)     first of all: before trl, transformers and peft
    UnslothEngine.open(recipe, folder, adapter)

Training and rollouts share one copy of the base weights; before every rollout the adapter goes to
vLLM from memory. Unsloth patches TRL's trainer, and budgetrl's mixin sits on the patched class.
What of this ran on a GPU is said in docs/rent.md.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

from budgetrl.engine.adapter import put_weights
from budgetrl.engine.base import (
    EntropyEstimate,
    ModelEngine,
    Request,
    Rollout,
    SamplingSpec,
    StopCheck,
    completion_of,
    reading_weights,
)
from budgetrl.engine.ends import distinct_pad, only_ends
from budgetrl.engine.folder import model_folder
from budgetrl.engine.gap import mean_gap
from budgetrl.engine.tested import nearest_set
from budgetrl.engine.unsloth_settings import (
    adapter_arguments,
    check_held,
    environment,
    loading_arguments,
    refuse_other_kinds,
    refuse_unkept,
)
from budgetrl.engine.vllm_loop import Sampled, draw
from budgetrl.errors import HardwareError, ModelError, first_line
from budgetrl.recipe.schema import EngineName, Recipe
from budgetrl.recipe.window import check_window, window_of
from budgetrl.types import Completion

LORA_NAME = "budgetrl_adapter"
RESETS = 3
"""Times that vLLM is asked to empty its prefix cache."""
GAP_ROWS = 4
"""Completions of which sampler and trainer are compared at each step."""


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
        install = nearest_set(EngineName.UNSLOTH, {}).install
        raise HardwareError(
            f"the unsloth engine cannot be imported: {error}.",
            hint=f"Install it with `{install}`; `budgetrl doctor` says more.",
        ) from None
    return unsloth


class UnslothEngine(ModelEngine):
    """A model whose kernels are Unsloth's and whose completions are vLLM's."""

    name = "unsloth"

    def __init__(
        self, model: Any, tokenizer: Any, recipe: Recipe, sampling_params: Any, folder: Path
    ) -> None:
        super().__init__(model, tokenizer, recipe)
        self.llm = model.vllm_engine
        self._sampling_params = sampling_params
        self._folder = folder
        self._switch_s: dict[str, float] = {}
        self._folding: Any = None
        self._kept_share: float | None = None
        # Unsloth's loss leaves out every pad token, and with it an end token that is one too.
        distinct_pad(tokenizer, self.end_ids)

    @classmethod
    def open(cls, recipe: Recipe, folder: Path, adapter: Path | None = None) -> Self:
        """Load base model, vLLM and adapter.

        Raises:
            HardwareError: unsloth or a GPU is missing.
            ModelError: the model or the adapter cannot be loaded.
            RecipeError: a setting that this engine cannot keep.
        """
        refuse_unkept(recipe)
        if adapter is not None:
            refuse_other_kinds(adapter)
        unsloth = import_unsloth(recipe, folder)
        import torch
        from vllm import SamplingParams

        from budgetrl.engine.tokenizer import restored

        if not torch.cuda.is_available():
            raise HardwareError(
                "the unsloth engine needs an NVIDIA GPU, and torch finds none.",
                hint="Try the laptop recipe: budgetrl run quickstart",
            )
        source = model_folder(recipe)
        check_window(recipe, window_of(Path(source) / "config.json"))
        loader = unsloth.FastLanguageModel
        arguments = loading_arguments(recipe, source, getattr(torch, recipe.model.dtype))
        with reading_weights(f"model {recipe.model.id!r}"):
            try:
                base, tokenizer = loader.from_pretrained(**arguments)
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"model {recipe.model.id!r} cannot be loaded: {first_line(error)}",
                    hint="Check model.id, the network, and access to gated models "
                    "(budgetrl doctor).",
                ) from None
        tokenizer = restored(tokenizer, source, recipe)
        base.generation_config = only_ends(source, base.config)
        model = loader.get_peft_model(base, **adapter_arguments(recipe))
        check_held(model, recipe, arguments)
        if adapter is not None:
            put_weights(model, adapter)
        return cls(model, tokenizer, recipe, SamplingParams, folder)

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Completion | None]:
        """One completion per request; None for those not finished when stopped."""
        found: list[Completion | None] = [None] * len(requests)
        for place, completion in self.stream(requests, sampling, should_stop):
            found[place] = completion
        return found

    def stream(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> Iterator[tuple[int, Completion]]:
        """Completions with the places of their requests, as they are finished: one queue."""
        prompts, seeds = [r.prompt_ids for r in requests], [r.seed for r in requests]
        for place, one in self._draw(prompts, seeds, sampling, should_stop):
            yield place, completion_of(self, one.ids)

    def rollout(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: SamplingSpec,
        should_stop: StopCheck,
    ) -> Rollout | None:
        """Completions for training, with the sampler's log-probabilities; not TRL's own."""
        self._switch_s, self._kept_share = {}, None
        fold = self._recipe.engine.merged_rollouts
        whole = self._all(prompt_ids, seeds, sampling, should_stop, fold)
        if whole is None:
            return None
        ids, logps = [one.ids for one in whole], [one.logps for one in whole]
        return Rollout(ids, logps, None, self._kept_share, self._switch_s)

    def entropy(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> EntropyEstimate | None:
        """Exact mean token entropy over fresh completions (Eq. 1), from the trainer's logits.

        Rows one at a time and positions in pieces: a 152k vocabulary at 3,584 tokens would need
        2 GiB at once.
        """
        from budgetrl.engine.logits import entropy_of

        prompts, seeds = [r.prompt_ids for r in requests], [r.seed for r in requests]
        whole = self._all(prompts, seeds, sampling, should_stop)
        if whole is None or should_stop():
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

        return mean_gap(partial(logps_of, self.model), prompt_ids, rollout, temperature, GAP_ROWS)

    def adapter_is_zero(self) -> bool:
        """Whether every B matrix is exactly zero."""
        return not any(
            bool(parameter.any()) for name, parameter in self.model.named_parameters()
            if ".lora_B." in name
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """For the manifest; what standby made of the memory share is read from vLLM."""
        config = self.llm.llm_engine.vllm_config
        return super().describe() | {
            "gpu_memory_utilization": config.cache_config.gpu_memory_utilization,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "standby": bool(config.model_config.enable_sleep_mode),
        }

    def close(self) -> None:
        """Free the model; the process's end frees the GPU."""
        import torch

        self.model = self.llm = None
        torch.cuda.empty_cache()

    def _all(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: SamplingSpec,
        should_stop: StopCheck,
        fold: bool = False,
    ) -> list[Sampled] | None:
        """All completions in order; None when stopped before the end."""
        drawn = dict(self._draw(prompt_ids, seeds, sampling, should_stop, fold))
        return [drawn[i] for i in range(len(seeds))] if len(drawn) == len(seeds) else None

    def _draw(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: SamplingSpec,
        should_stop: StopCheck,
        fold: bool = False,
    ) -> Iterator[tuple[int, Sampled]]:
        with self._awake(), self._adapter(fold) as adapter:
            yield from draw(
                self.llm, self._sampling_params, prompt_ids, seeds, sampling,
                sorted(self.end_ids), adapter, should_stop,
            )  # fmt: skip

    @contextmanager
    def _adapter(self, fold: bool) -> Iterator[Any]:
        """The current adapter as vLLM takes it; None while the weights have it folded in."""
        with ExitStack() as folded:
            with self._timed("sync"):
                adapter = None
                if not fold or self._keeps_too_little(folded):
                    # A fresh id each time, so none is cached.
                    adapter = self.model.load_lora(str(self._folder / LORA_NAME), load_tensors=True)
            yield adapter
            with self._timed("sync"):
                folded.close()

    def _keeps_too_little(self, folded: ExitStack) -> bool:
        """Fold the adapter into the weights, unless too little of it would be left."""
        from budgetrl.engine.folding import Folding

        self._folding = self._folding or Folding(self.model)
        self._kept_share = folded.enter_context(self._folding.folded())
        return self._kept_share is not None

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._switch_s[name] = self._switch_s.get(name, 0.0) + time.monotonic() - start

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """vLLM awake inside, asleep after it where the recipe says standby."""
        import torch

        engine = self.llm.llm_engine
        with self._timed("wake"):
            if engine.is_sleeping():
                torch.cuda.empty_cache()  # what the trainer freed is no use to vLLM before
                self.llm.wake_up()
        try:
            yield
        finally:
            with self._timed("sleep"):
                forget_prefixes(self.llm)
                if engine.vllm_config.model_config.enable_sleep_mode:
                    self.llm.sleep(1)


def forget_prefixes(llm: Any) -> None:
    """Empty vLLM's prefix cache: it holds keys of the adapter that was, not of the next one.

    Raises:
        RuntimeError: it stays full, so that completions could be drawn with other weights.
    """
    for _ in range(RESETS):
        if llm.reset_prefix_cache():
            return
        llm.llm_engine.step()  # an abort may leave a batch that is still under way
    raise RuntimeError(f"vLLM would not empty its prefix cache, {RESETS} times asked.")
