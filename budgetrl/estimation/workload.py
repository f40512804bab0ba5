"""What has to be generated and trained, apart from recipes and GPUs: the input of the formulas.

Generation     sequences, prompts, lengths         -> rollout.decode
Update         trained tokens, rank, micro-batches -> training_time
Setup          how: vLLM or transformers, precision, shared weights
"""

from dataclasses import dataclass
from enum import StrEnum

from budgetrl.estimation.lengths import Lengths


class Precision(StrEnum):
    """How the base weights are stored."""

    BF16 = "16-bit"
    FP8 = "8-bit"
    INT4 = "4-bit"


class Server(StrEnum):
    """What generates."""

    VLLM = "vLLM"
    VLLM_V0 = "vLLM V0"
    """The engine before version 0.8."""
    TRANSFORMERS = "transformers"


class Trainer(StrEnum):
    """What makes the passes of an update."""

    UNSLOTH = "Unsloth"
    """Its compiled kernels are compiled again when lengths vary."""
    TRL = "TRL"
    PLAIN = "a plain loop"
    """PyTorch alone: it compiles nothing and has no trainer's cost per pass."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Sequences that are generated together."""

    sequences: int
    prompts: int
    """Distinct prompts: the group shares the work on its prompt."""
    prompt_tokens: float
    mean: float
    """Generated tokens per sequence, as the two that follow."""
    mean_square: float
    longest: float

    @classmethod
    def of(
        cls, sequences: int, prompts: int, prompt_tokens: float, lengths: Lengths
    ) -> "Generation":
        """Sequences whose lengths follow a distribution."""
        longest = lengths.longest_of(sequences)
        return cls(sequences, prompts, prompt_tokens, lengths.mean, lengths.mean_square, longest)

    @property
    def tokens(self) -> float:
        """Generated tokens."""
        return self.sequences * self.mean

    @property
    def kv_reads(self) -> float:
        """KV tokens read while decoding: every new token reads all before it."""
        return self.sequences * (self.prompt_tokens * self.mean + self.mean_square / 2)

    @property
    def live_context(self) -> float:
        """Mean context of a sequence while it is being generated."""
        return self.prompt_tokens + self.mean_square / (2 * self.mean)


@dataclass(frozen=True, slots=True)
class Serving:
    """How sequences are generated."""

    server: Server = Server.VLLM
    precision: Precision = Precision.BF16
    adapter_params: int = 0
    """Adapter parameters that are read beside the weights; 0 when merged."""
    max_sequences: int = 256
    kv_bytes: float | None = None
    """Memory for the KV cache; None: enough for all."""


@dataclass(frozen=True, slots=True)
class Update:
    """One update, and the log-prob passes before it."""

    sequences: int
    prompt_tokens: float
    mean: float
    mean_square: float
    longest_in_micro: float
    """Expected longest sequence of a micro-batch, for padding."""
    micro_batches: int
    adapter_params: int | None
    """None: all weights are trained."""
    precision: Precision = Precision.BF16
    checkpointing: bool = True
    reference: bool = True
    """The base model scores the rows, for a KL term."""
    old_policy: bool = False
    """The policy that sampled scores the rows."""
    optimizer_steps: int = 1
    padded: bool = False
    """Rows of a micro-batch are padded to its longest; Unsloth packs them."""
    trainer: Trainer = Trainer.UNSLOTH

    @property
    def tokens(self) -> float:
        """Tokens per pass, prompts and padding included."""
        length = self.longest_in_micro if self.padded else self.mean
        return self.sequences * (self.prompt_tokens + length)

    @property
    def context(self) -> float:
        """Sequence length as attention sees it: E[T^2] / E[T]."""
        if self.padded:
            return self.prompt_tokens + self.longest_in_micro
        prompt, mean = self.prompt_tokens, self.mean
        return (prompt**2 + 2 * prompt * mean + self.mean_square) / (prompt + mean)
