"""GPU memory by part, in the generation phase and in the training phase, in bytes.

    shared weights and standby (Unsloth):  peak = max(generation, training)
    otherwise:                             peak = generation + training, weights once or twice

Closed formulas (ESTIMATOR 4.3) for weights, adapter, gradients, optimiser, KV cache, logits and
activations; measured constants for what libraries take besides. vLLM fills the memory that it is
given with KV cache: `kv_cache` is what the completions can use of it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from budgetrl.estimation.shapes import ModelShape
from budgetrl.estimation.terms import Constants, Term, band, total
from budgetrl.estimation.workload import Precision
from budgetrl.units import GIB

BYTES_4BIT = 0.5 + 4 / 64
"""A 4-bit weight and its share of the float32 scale of a block of 64 (bitsandbytes NF4)."""

_ADAMW_BYTES = {"adamw": 8, "adamw_8bit": 2}
_SAMPLER_BYTES = 2.83e6
"""Per sequence that vLLM may run at once."""
_GRAPH_BYTES = 172 * 4
"""CUDA graphs per hidden unit and layer, between 0.15 and 1 GiB (AgileRL's rule)."""


class Verdict(StrEnum):
    """Whether a recipe fits a GPU."""

    FITS = "fits"
    """Also at the high end of the estimate."""
    TIGHT = "tight"
    """At the expected value, but not at the high end."""
    NO = "no"


@dataclass(frozen=True, slots=True)
class MemoryWork:
    """What has to be held."""

    shape: ModelShape
    precision: Precision = Precision.BF16
    adapter_params: int = 0
    optimizer: str = "adamw"
    micro_batch: int = 8
    sequence_tokens: int = 4096
    """Prompt and completion at their limits."""
    sequences: int = 256
    """Completions of one update."""
    live_context: float = 2048.0
    """Mean context of a running sequence."""
    vllm: bool = True
    shared_weights: bool = True
    """Trainer and vLLM use one copy."""
    standby: bool = True
    """vLLM's KV cache is given back while training."""
    utilization: float = 0.85
    """Share of the card that vLLM may fill."""
    max_sequences: int = 256
    logit_chunks: int | None = 8
    """None: logits of a micro-batch at once, in float32."""
    checkpointing: bool = True
    offload: bool = True
    """Checkpointed activations wait in host memory (Unsloth)."""
    weight_bytes: int = 2
    """Per 16-bit weight; 4 for float32."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """GPU memory of a run, in bytes."""

    weights: float
    adapter: float
    gradients: float
    optimizer: float
    kv_cache: float
    rollout_buffers: float
    logits: float
    activations: float
    runtime: float
    peak_generation: float
    peak_training: float
    peak: float
    low: float
    high: float
    usable: float
    """What the GPU has."""
    kv_wanted: float
    """KV cache with which all sequences run at once."""
    kv_room: float
    """KV cache that there is room for."""
    kv_least: float
    """KV cache of one group at full length: less makes no progress worth paying."""
    host: float
    """Host memory for offloaded activations."""
    verdict: Verdict
    reason: str = ""
    """Why it does not fit, for people."""

    @property
    def waves(self) -> float:
        """How many times the KV cache the sequences would fill; 1: all run at once."""
        return max(1.0, self.kv_wanted / self.kv_room) if self.kv_room > 0 else float("inf")


def weight_bytes(shape: ModelShape, precision: Precision, per_weight: int = 2) -> float:
    """One copy of the base weights; embeddings, head and norms stay 16-bit when quantised."""
    rest = shape.params - shape.linear_params
    match precision:
        case Precision.BF16:
            return float(per_weight * shape.params)
        case Precision.FP8:
            return shape.linear_params + 2.0 * rest
        case Precision.INT4:
            return BYTES_4BIT * shape.linear_params + 2.0 * rest


def optimizer_bytes(trained_params: int, name: str) -> float:
    """Two moments per trained parameter: float32, or one byte each for adamw_8bit."""
    return float(_ADAMW_BYTES[name] * trained_params)


def logit_bytes(micro_batch: int, tokens: int, vocab: int, chunks: int | None) -> float:
    """Logits of one micro-batch.

    Args:
        micro_batch: completions per pass.
        tokens: per completion.
        vocab: entries.
        chunks: policy and reference in 16 bit, this many pieces one after the other (Unsloth
            takes 8 in the version that was measured); None: one float32 copy of all (plain TRL).
    """
    entries = micro_batch * tokens * vocab
    return 4.0 * entries if chunks is None else 2 * 2.0 * entries / chunks


def layer_bytes_per_token(shape: ModelShape) -> float:
    """Activations of one recomputed layer: 2 B x (8 h + 2 q + 4 kv + 4 I)."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return 2.0 * (8 * shape.hidden + 2 * q + 4 * kv + 4 * shape.intermediate)


def checkpoint_bytes(shape: ModelShape, tokens: int) -> float:
    """Hidden states kept between layers: in host memory with Unsloth, else on the GPU."""
    return 2.0 * tokens * shape.hidden * shape.layers


def estimate_memory(work: MemoryWork, usable: float, constants: Constants) -> MemoryEstimate:
    """Parts, peaks and verdict.

    Args:
        work: what has to be held.
        usable: bytes that the GPU reports.
        constants: of what libraries take.
    """
    shape, trained = work.shape, work.adapter_params
    weights = weight_bytes(shape, work.precision, work.weight_bytes)
    moments = optimizer_bytes(trained, work.optimizer)
    held = weights + 4.0 * trained + 4.0 * trained + moments
    runtime = constants["runtime_gib"] * GIB
    buffers = _rollout_buffers(work, constants)
    tokens = work.micro_batch * work.sequence_tokens
    logits = logit_bytes(work.micro_batch, work.sequence_tokens, shape.vocab, work.logit_chunks)
    activations = _activations(work, tokens)
    second = 0.0 if work.shared_weights or not work.vllm else weights
    in_training = logits + activations
    kv_token = shape.kv_bytes_per_token()
    ceiling = (work.utilization if work.vllm else 0.95) * usable
    rest_of_training = 0.0 if work.standby or not work.vllm else in_training
    room = max(0.0, ceiling - held - second - buffers - runtime - rest_of_training)
    running = min(work.sequences, work.max_sequences)
    wanted = running * min(work.sequence_tokens, 1.25 * work.live_context) * kv_token
    kv_cache = min(wanted, room)
    generation = held + second + buffers + kv_cache + runtime
    training = held + in_training + runtime
    if work.vllm and not work.standby:
        training += second + buffers + kv_cache
    terms = [
        Term(max(generation, training) - runtime, {"memory_model": 1}, "parts"),
        Term(runtime, {"runtime_gib": 1}, "runtime"),
    ]
    spread = band(terms, constants)
    least = min(8, running) * work.sequence_tokens * kv_token
    estimate = MemoryEstimate(
        weights=weights + second,
        adapter=4.0 * trained,
        gradients=4.0 * trained,
        optimizer=moments,
        kv_cache=kv_cache,
        rollout_buffers=buffers,
        logits=logits,
        activations=activations,
        runtime=runtime,
        peak_generation=generation,
        peak_training=training,
        peak=total(terms),
        low=spread.low,
        high=spread.high,
        usable=usable,
        kv_wanted=wanted,
        kv_room=room,
        kv_least=least,
        host=checkpoint_bytes(shape, tokens) if work.offload and work.checkpointing else 0.0,
        verdict=Verdict.FITS,
    )
    return _with_verdict(estimate)


def _rollout_buffers(work: MemoryWork, constants: Constants) -> float:
    """What vLLM takes besides weights and KV cache: adapter slots, profile peak, graphs, sampler.

    A transformers rollout holds the logits of one position per sequence.
    """
    running = min(work.sequences, work.max_sequences)
    if not work.vllm:
        return 2 * 4.0 * running * work.shape.vocab
    graphs = min(max(_GRAPH_BYTES * work.shape.hidden * work.shape.layers, 0.15 * GIB), GIB)
    sampler = _SAMPLER_BYTES * work.max_sequences
    return 2.0 * work.adapter_params + constants["vllm_profile_gib"] * GIB + graphs + sampler


def _activations(work: MemoryWork, tokens: int) -> float:
    """What the backward pass needs of the forward pass."""
    layer = layer_bytes_per_token(work.shape) * tokens
    if not work.checkpointing:
        return layer * work.shape.layers
    kept = checkpoint_bytes(work.shape, tokens)
    return layer + (2 * kept / work.shape.layers if work.offload else kept)


def _with_verdict(estimate: MemoryEstimate) -> MemoryEstimate:
    if estimate.peak > estimate.usable:
        need, have = estimate.peak / GIB, estimate.usable / GIB
        reason = f"needs about {need:.0f} GiB, this GPU has {have:.1f} GiB"
        return replace(estimate, verdict=Verdict.NO, reason=reason)
    if estimate.kv_room < estimate.kv_least:
        need, have = estimate.kv_least / GIB, estimate.kv_room / GIB
        reason = (
            f"{have:.1f} GiB are left for the KV cache, one group at full length needs {need:.1f}"
        )
        return replace(estimate, verdict=Verdict.NO, reason=reason)
    if estimate.high > estimate.usable:
        reason = f"may need up to {estimate.high / GIB:.0f} of {estimate.usable / GIB:.1f} GiB"
        return replace(estimate, verdict=Verdict.TIGHT, reason=reason)
    return estimate
