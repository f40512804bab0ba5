"""transformers and PEFT, on a CPU or with CUDA: the engine that runs everywhere.

It draws token by token (`engine.decoding`) with the adapter merged into float32 weights, which are
put back bit for bit afterwards (`engine.merging`). Into weights of fewer bits it is merged for
rollouts alone, where rounding leaves nearly all of it.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import peft
import torch
import transformers

from budgetrl.engine.adapter import with_adapter
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
from budgetrl.engine.decoding import Drawn, decode
from budgetrl.engine.ends import only_ends, some_pad
from budgetrl.engine.folder import model_folder
from budgetrl.engine.fresh import fresh_adapter
from budgetrl.engine.gap import mean_gap
from budgetrl.engine.logits import scoring
from budgetrl.engine.merging import drawing_in, lora_layers, merged
from budgetrl.engine.one_product import train_with_one_product
from budgetrl.engine.reading import check_reading
from budgetrl.engine.tokenizer import load_tokenizer
from budgetrl.errors import HardwareError, ModelError, first_line
from budgetrl.recipe.schema import Recipe
from budgetrl.types import Completion

GAP_ROWS = 4
"""Completions of which sampler and trainer are compared at each step, at the most."""
GAP_SHARE = 64
"""One of so many: where an update has few, a comparison would take a good part of its time."""


class PlainEngine(ModelEngine):
    """A Hugging Face causal language model with one LoRA adapter."""

    name = "plain"

    def __init__(self, model: Any, tokenizer: Any, recipe: Recipe) -> None:
        super().__init__(model, tokenizer, recipe)
        some_pad(tokenizer, self.end_ids, model.get_input_embeddings().weight.shape[0])

    @classmethod
    def open(cls, recipe: Recipe, adapter: Path | None = None) -> Self:
        """Load base model, tokenizer and adapter; or all weights that were trained.

        Raises:
            ModelError: something is missing or does not match, or it reads otherwise with a cache.
            RecipeError: a stop text is not a token, or a LoRA target is no layer.
            HardwareError: CUDA is asked for and absent.
        """
        device = recipe.engine.device
        if device == "cuda" and not torch.cuda.is_available():
            raise HardwareError(
                'engine.device = "cuda", but torch finds no GPU.',
                hint="Try the laptop recipe: budgetrl run quickstart",
            )
        if recipe.engine.threads is not None:
            torch.set_num_threads(recipe.engine.threads)
        source = model_folder(recipe)
        if recipe.lora.is_full:
            model, tokenizer = _whole_model(source, recipe, adapter)
            check_reading(model)
            return cls(model, tokenizer, recipe)
        base = load_base(source, recipe).to(device)
        check_reading(base)
        tokenizer = load_tokenizer(source, recipe)
        transformers.set_seed(recipe.seed)
        left_out: tuple[str, ...] = ()
        if adapter is None:
            model, left_out = fresh_adapter(base, recipe, source)
        else:
            model = with_adapter(base, adapter, recipe.lora.dropout)
        train_with_one_product(model)
        if recipe.engine.gradient_checkpointing:
            model.enable_input_require_grads()
        engine = cls(model, tokenizer, recipe)
        engine.without_adapter = left_out
        return engine

    @property
    def _dtype_of_passes(self) -> torch.dtype | None:
        """Of float32 weights that are all trained, where a GPU's passes are in another type."""
        recipe = self._recipe
        half = recipe.lora.is_full and recipe.engine.device == "cuda"
        return getattr(torch, recipe.model.dtype) if half else None

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Completion | None]:
        """One completion per request; None for those not finished when stopped."""
        prompts, stems = [r.prompt_ids for r in requests], [r.stem for r in requests]
        seeds = [r.seed for r in requests]
        drawn = self.draw(prompts, seeds, sampling, should_stop, stems=stems)
        return [
            completion_of(self, ids) if finished else None
            for ids, finished in zip(drawn.ids, drawn.finished, strict=True)
        ]

    def draw(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: SamplingSpec,
        should_stop: StopCheck,
        rollout: bool = False,
        stems: Sequence[int] = (),
    ) -> Drawn:
        """Completions of one batch of prompts (B rows), each from its own seed."""
        with merged(self.model, rollout) as share, drawing_in(self.model, self._dtype_of_passes):
            base = bare_model(self.model)
            drawn: Drawn = decode(
                base, prompt_ids, seeds, sampling, self.end_ids, should_stop, stems
            )
        return drawn._replace(kept_share=share)

    def rollout(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: SamplingSpec,
        should_stop: StopCheck,
    ) -> Rollout | None:
        """Completions for training; the trainer's own generation is not used."""
        drawn = self.draw(prompt_ids, seeds, sampling, should_stop, rollout=True)
        if not all(drawn.finished):
            return None
        return Rollout(drawn.ids, drawn.logps, sum(drawn.entropy_sum), drawn.kept_share)

    def entropy(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> EntropyEstimate | None:
        """Mean token entropy of the tempered distribution, over fresh completions (Eq. 1)."""
        prompts = [request.prompt_ids for request in requests]
        drawn = self.draw(prompts, [r.seed for r in requests], sampling, should_stop)
        if not all(drawn.finished):
            return None
        tokens = sum(map(len, drawn.ids))
        return EntropyEstimate(len(drawn.ids), tokens, sum(drawn.entropy_sum) / max(1, tokens))

    def logp_gap(
        self, prompt_ids: Sequence[Sequence[int]], rollout: Rollout, temperature: float
    ) -> float | None:
        """Mean |log p (sampler) - log p (trainer)| over the first tokens of a few completions.

        The sampler has the adapter in its weights, a cache and padding; the trainer has none of
        them, and rounding is all that may lie between the two.
        """
        rows = min(GAP_ROWS, -(-len(rollout.ids) // GAP_SHARE))
        with scoring(self.model):
            return mean_gap(self._trainer_logps, prompt_ids, rollout, temperature, rows)

    def adapter_is_zero(self) -> bool:
        """Whether what starts at zero in each layer of the adapter is exactly zero."""
        matrices: list[torch.Tensor] = []
        for layer in lora_layers(self.model):
            matrices += [b.weight for b in layer.lora_B.values()]
            matrices += layer.lora_embedding_A.values()  # of an embedding this one starts at zero
        return bool(matrices) and not any(bool(weight.any()) for weight in matrices)

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return super().describe() | {"threads": torch.get_num_threads()}

    def close(self) -> None:
        """Free the model."""
        self.model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _trainer_logps(
        self, prompt_ids: Sequence[int], ids: Sequence[int], temperature: float
    ) -> list[float]:
        """Log-probabilities of a completion's tokens, by a pass such as the trainer's."""
        row = torch.tensor([[*prompt_ids, *ids]], device=self.model.device)
        forward = inspect.signature(bare_model(self.model).forward).parameters
        keep = {"logits_to_keep": len(ids) + 1} if "logits_to_keep" in forward else {}
        # The position before a token predicts it.
        logits = self.model(input_ids=row, use_cache=False, **keep).logits
        log_p = torch.log_softmax(logits[0, -len(ids) - 1 : -1].float() / temperature, dim=-1)
        found: list[float] = log_p.gather(1, row[0, -len(ids) :, None])[:, 0].tolist()
        return found


def load_base(source: str, recipe: Recipe) -> Any:
    """The base model, with end tokens as all that it keeps of its generation_config.json.

    And without dropout, which only lora.dropout asks for: GPT-2's config.json has 0.1 in it, and
    the trainer's model would not be the sampler's.

    Raises:
        ModelError: it cannot be loaded.
    """
    quantization = None
    if recipe.model.load_in_4bit:
        quantization = transformers.BitsAndBytesConfig(load_in_4bit=True)
    with reading_weights(f"model {recipe.model.id!r}"):
        try:
            config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
            _without_dropout(config)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                generation_config=transformers.GenerationConfig(),
                dtype=getattr(torch, recipe.model.dtype),
                attn_implementation="sdpa",
                quantization_config=quantization,
                trust_remote_code=False,
            )
            model.generation_config = only_ends(source, model.config)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"model {recipe.model.id!r} cannot be loaded: {first_line(error)}",
                hint="Check model.id: a folder or a hub id of a causal language model.",
            ) from None
    return model


def _without_dropout(config: Any) -> None:
    for part in (config, config.get_text_config()):
        for name, value in vars(part).items():
            if name.endswith(("dropout", "pdrop", "layerdrop")) and isinstance(value, float):
                setattr(part, name, 0.0)


def _whole_model(source: str, recipe: Recipe, trained: Path | None) -> tuple[Any, Any]:
    """A model of which every weight is trained, and the tokenizer of its base.

    In float32 whatever model.dtype says: at usual rates an update is far below what a bfloat16
    weight can tell apart. model.dtype is then that of the passes.

    Args:
        source: folder of the base.
        recipe: names the device.
        trained: a checkpoint's folder; None: the base itself.
    """
    whole = recipe.but({"model.dtype": "float32"})
    tokenizer = load_tokenizer(source, recipe)
    model = load_base(source if trained is None else str(trained), whole)
    # TRL loads the reference of a KL term by this name: that is the base, after a resume too.
    model.config._name_or_path = source
    transformers.set_seed(recipe.seed)
    return model.to(recipe.engine.device), tokenizer


def bare_model(model: Any) -> Any:
    """The model inside a PEFT model; a model of which all is trained is that itself."""
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model
