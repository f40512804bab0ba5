"""What budgetrl asks of a model: the `Engine` protocol, and what passes through it.

    engine = open_engine(recipe, run_folder, adapter)       plain | unsloth | scripted
    engine.generate(requests, sampling, should_stop)         -> completions

Engines know models, not rewards, budgets or runs.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from budgetrl.engine.ends import end_ids
from budgetrl.errors import ModelError, first_line
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.window import WINDOW_KEYS, window_in_config
from budgetrl.types import Completion, Problem

SAMPLER_VERSION = "2"
"""Of the plain engine's draws (`engine.sampling`): raised where the same seed draws another token.
Without a version, or 1: argmax of log-probability and Gumbel noise."""

StopCheck = Callable[[], bool]
"""Asked between tokens; True ends the generation."""


@dataclass(frozen=True, slots=True)
class Request:
    """One completion that is wanted."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    sample: int
    """Round: which sample of this problem."""
    seed: int
    """Seeds this completion's own random draws."""
    stem: int = 0
    """Tokens at its beginning that a longer prompt of the same call has too, so that they may be
    read once; 0: none are known of."""


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """How completions are drawn. Temperature 0 is greedy; top_k 0 is off."""

    temperature: float
    top_p: float
    max_tokens: int
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    sequence_tokens: int | None = None
    """Prompt and completion together, at the most; None: any number."""

    def room(self, prompt_tokens: int) -> int:
        """Tokens that a completion may have after a prompt of so many."""
        if self.sequence_tokens is None:
            return self.max_tokens
        return min(self.max_tokens, self.sequence_tokens - prompt_tokens)


@dataclass(frozen=True, slots=True)
class EntropyEstimate:
    """Mean token-level entropy over fresh completions (paper Eq. 1), in nats."""

    completions: int
    tokens: int
    mean_nats: float


@contextmanager
def reading_weights(owner: str) -> Iterator[None]:
    """Reads weight files of a model or adapter, which `owner` names.

    Raises:
        ModelError: one of them is no whole safetensors file.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise ModelError(
            f"{owner}: a file of its weights is damaged or cut off: {first_line(error)}.",
            hint="Copy or download it again.",
        ) from None


class Engine(Protocol):
    """A loaded model with its tokenizer and its current adapter: the policy that answers."""

    name: str
    tokenizer: Any
    """As of Hugging Face; None for engines without a model."""
    model: Any
    """The PEFT model that is trained; None for engines that cannot train."""
    context_tokens: int | None
    """The model's window: prompt and completion together; None if unlimited."""

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Completion | None]:
        """One completion per request; None for those that were not finished when stopped."""

    def entropy(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> EntropyEstimate | None:
        """Exact mean token entropy on fresh completions; None when stopped before the end."""

    def adapter_is_zero(self) -> bool:
        """Whether every B matrix is exactly zero, so that the policy equals its base."""

    def describe(self) -> dict[str, Any]:
        """Versions, device and model revision, for the manifest."""

    def close(self) -> None:
        """Free the device."""


@runtime_checkable
class QueueingEngine(Protocol):
    """An engine that takes any number of requests at once and starts them as others end (vLLM)."""

    def stream(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> Iterator[tuple[int, Completion]]:
        """Completions with the places of their requests, as they are finished."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Completions of one training batch, as token ids (B rows)."""

    ids: list[list[int]]
    """The end token included where the model wrote one."""
    logps: list[list[float]] | None
    """Log-probability of each sampled token under the sampler; None if it does not tell."""
    entropy_sum: float | None
    """Exact entropy of the tempered distribution summed over all tokens, in nats."""
    kept_share: float | None = None
    """Of the adapter, what rounding would have left in folded weights: too little, so that they
    were not folded. None: they were, or nobody asked for it."""
    switch_s: Mapping[str, float] | None = None
    """Seconds spent on waking the sampler, giving it the adapter, and putting it to sleep."""


class ModelEngine(Engine):
    """An engine with a Hugging Face model, which can be trained; a subclass draws."""

    def __init__(self, model: Any, tokenizer: Any, recipe: Recipe) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._recipe = recipe
        self.context_tokens = window_in_config(
            {key: getattr(model.config, key, None) for key in WINDOW_KEYS}  # under any name
        )
        self.end_ids: frozenset[int] = end_ids(model, tokenizer, recipe)
        """Tokens that end a completion."""
        self.without_adapter: tuple[str, ...] = ()
        """Names of linear layers that "all-linear" means, and that a new adapter cannot have."""

    def rollout(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: SamplingSpec,
        should_stop: StopCheck,
    ) -> Rollout | None:
        """Completions for training with the current adapter; None when stopped before the end."""
        raise NotImplementedError

    def logp_gap(
        self, prompt_ids: Sequence[Sequence[int]], rollout: Rollout, temperature: float
    ) -> float | None:
        """Mean |log p (sampler) - log p (trainer)| of sampled tokens; None if they are one."""
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion without special tokens; think tags are kept."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "engine": self.name,
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "model": self._recipe.model.id,
            "model_revision": self._recipe.model.revision,
            "context_tokens": self.context_tokens,
            "trainable_parameters": sum(
                p.numel() for p in self.model.parameters() if p.requires_grad
            ),
        }


def completion_of(engine: ModelEngine, ids: Sequence[int]) -> Completion:
    """Drawn tokens as a completion; truncated where no end token is the last."""
    cut = not ids or ids[-1] not in engine.end_ids
    return Completion(engine.decode(ids), len(ids), cut, tuple(ids))


def requests_of(
    problems: Iterable[Problem],
    ids_of: Callable[[Problem], tuple[int, ...]],
    samples: int,
    seed: int,
    purpose: str,
) -> list[Request]:
    """So many answers to each problem, with seeds that differ by what they are for.

    Args:
        problems: that are asked.
        ids_of: the rendered prompt of one.
        samples: of each.
        seed: the recipe's.
        purpose: such as "gate".
    """
    return [
        Request(one.id, ids_of(one), i, sample_seed(seed, f"{purpose} {one.id}", i))
        for one in problems
        for i in range(samples)
    ]


def sample_seed(seed: int, problem_id: str, sample: int) -> int:
    """The seed of one completion: a hash of (evaluation seed, problem, sample), below 2^63."""
    digest = hashlib.sha256(f"{seed}:{problem_id}:{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
