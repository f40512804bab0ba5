"""GPU memory by part, in the generation phase and in the training phase, in bytes.

    shared weights and standby (Unsloth):  peak = max(generation, reference pass, update)
    otherwise:                             peak = generation + training, weights once or twice

Closed formulas (ESTIMATOR 4.3) for weights, adapter, gradients, optimiser, KV cache, logits and
activations; measured constants for what libraries take besides. vLLM takes its share of the GPU
whole (`needed_share`, where the recipe states none): what weights and buffers leave of it is KV
cache.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from budgetrl.estimation.shapes import ModelShape
from budgetrl.estimation.terms import Constants, Term, band, total
from budgetrl.estimation.workload import Precision
from budgetrl.recipe.training_tables import OPTIMIZER_BYTES
from budgetrl.units import GIB

BYTES_4BIT = 0.5 + 4 / 64
"""A 4-bit weight and its share of the float32 scale of a block of 64 (bitsandbytes NF4)."""

CROWDING = 1.25
"""KV cache over that of the mean running sequence: they are not all at their mean at once."""

_SAMPLER_BYTES = 2.83e6
"""Per sequence that vLLM may run at once."""
_KV_MARGIN = 1.1
"""On the KV cache: blocks that are partly filled, and what vLLM's profile takes more than here."""
_LEAST_SHARE, _MOST_SHARE = 0.05, 0.95
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
    whole_copies: int = 0
    """Models in float32 where all weights are trained: 2 with a reference. 0: an adapter is."""
    optimizer: str = "adamw"
    micro_batch: int = 8
    sequence_tokens: int = 4096
    """Prompt and completion at their limits."""
    sequences: int = 256
    """Completions of one update."""
    eval_sequences: int = 0
    """Completions of the largest evaluation, all in one queue."""
    window_tokens: int = 0
    """The longest sequence that any evaluation asks for, if that is above `sequence_tokens`."""
    reference: bool = True
    """Log-probabilities are taken without gradients before the update."""
    live_context: float = 2048.0
    """Mean context of a running sequence."""
    vllm: bool = True
    shared_weights: bool = True
    """Trainer and vLLM use one copy."""
    standby: bool = True
    """vLLM's KV cache is given back while training."""
    utilization: float | None = None
    """Share of the card that vLLM may fill; None: what it needs."""
    max_sequences: int = 256
    logit_chunks: int | None = 8
    """None: logits of a micro-batch at once, in float32."""
    checkpointing: bool = True
    offload: bool = True
    """Checkpointed activations wait in host memory (Unsloth)."""
    weight_bytes: int = 2
    """Per 16-bit weight; 4 for float32."""
    teacher: float = 0.0
    """Bytes of a distillation's teacher, which stays on the GPU beside both phases."""
    teacher_shape: ModelShape | None = None
    """Whose passes are made there; None: none, or in the host's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """GPU memory of a run, in bytes."""

    weights: float
    adapter: float
    gradients: float
    optimizer: float
    teacher: float = 0.0
    """Weights of a distillation's teacher."""
    kv_cache: float
    """What vLLM sets aside for it; without vLLM what the completions need."""
    rollout_buffers: float
    reserved: float = 0.0
    """All that vLLM takes: its share of the GPU, weights included; 0 without vLLM."""
    utilization: float | None = None
    """That share; None without vLLM."""
    logits: float
    activations: float
    reference: float = 0.0
    """Logits and activations of the passes without gradients; 0 where there are none."""
    beside_training: float = 0.0
    """What vLLM keeps while the trainer works, weights apart."""
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
    kv_least: float = 0.0
    """KV cache of one group at full length: less makes no progress worth paying."""
    host: float = 0.0
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


def reference_bytes(work: MemoryWork) -> float:
    """Logits and activations of a micro-batch without gradients: 2 B x (2 h + 3 I) per token."""
    if not work.reference:
        return 0.0
    return _logits(work) + _no_grad_bytes(work, work.shape)


def _no_grad_bytes(work: MemoryWork, shape: ModelShape) -> float:
    """Activations of one layer at a time, of a micro-batch."""
    layer = 2.0 * (2 * shape.hidden + 3 * shape.intermediate)
    return layer * work.micro_batch * work.sequence_tokens


def trainer_bytes(work: MemoryWork) -> float:
    """Adapter, gradients, moments and teacher, and the weights where vLLM has its own copy."""
    own = 0.0 if work.shared_weights or not work.vllm else _weights(work)
    trained = _trained(work)
    return (
        own
        + work.teacher
        + 8.0 * work.adapter_params
        + 4.0 * (trained - work.adapter_params)
        + float(OPTIMIZER_BYTES[work.optimizer] * trained)
    )


def training_bytes(work: MemoryWork) -> float:
    """Logits and activations of a micro-batch: of the update, or of a larger pass before it."""
    activations = _activations(work, work.micro_batch * work.sequence_tokens)
    shape = work.teacher_shape
    taught = 0.0 if shape is None else _no_grad_bytes(work, shape)
    return max(_logits(work) + activations, reference_bytes(work), taught)


def estimate_memory(work: MemoryWork, usable: float, constants: Constants) -> MemoryEstimate:
    """Parts, peaks and verdict.

    Args:
        work: what has to be held.
        usable: bytes that the GPU reports.
        constants: of what libraries take.
    """
    shape, trained = work.shape, _trained(work)
    weights, trainer = _weights(work), trainer_bytes(work)
    runtime = constants["runtime_gib"] * GIB
    buffers = rollout_buffers(work, constants)
    asleep = kept_asleep(work)
    in_training = training_bytes(work)
    kv_token = shape.kv_bytes_per_token()
    running = min(work.sequences, work.max_sequences)
    wanted = running * min(work.sequence_tokens, CROWDING * work.live_context) * kv_token
    share: float | None = None
    if work.vllm:
        share = work.utilization or needed_share(work, usable, constants)
        reserved = share * usable
        kv_room = kv_cache = max(0.0, reserved - weights - buffers)
    else:
        reserved = 0.0
        kv_room = max(0.0, 0.95 * usable - weights - trainer - buffers - runtime - in_training)
        kv_cache = min(wanted, kv_room)
    sampler = reserved if work.vllm else weights + buffers + kv_cache
    generation = _beside(trainer, constants)
    generation.append(Term(sampler, {} if work.vllm else {"memory_model": 1}, "sampler"))
    training = _beside(trainer + in_training, constants)
    if work.vllm and not work.standby:
        training.append(Term(reserved, {}, "sampler"))
    else:
        training.append(Term(weights + asleep, {"memory_model": 1}, "weights"))
    bands = [band(terms, constants) for terms in (generation, training)]
    tokens = work.micro_batch * work.sequence_tokens
    estimate = MemoryEstimate(
        weights=weights + (0.0 if work.shared_weights or not work.vllm else weights),
        adapter=4.0 * work.adapter_params,
        gradients=4.0 * trained,
        optimizer=float(OPTIMIZER_BYTES[work.optimizer] * trained),
        teacher=work.teacher,
        kv_cache=kv_cache,
        rollout_buffers=buffers,
        reserved=reserved,
        utilization=share,
        logits=_logits(work),
        activations=_activations(work, tokens),
        reference=reference_bytes(work),
        beside_training=asleep if work.standby or not work.vllm else reserved - weights,
        runtime=runtime,
        peak_generation=total(generation),
        peak_training=total(training),
        peak=max(total(generation), total(training)),
        low=max(band.low for band in bands),
        high=max(band.high for band in bands),
        usable=usable,
        kv_wanted=wanted,
        kv_room=kv_room,
        kv_least=min(8, running) * work.sequence_tokens * kv_token,
        host=checkpoint_bytes(shape, tokens) if work.offload and work.checkpointing else 0.0,
        verdict=Verdict.FITS,
    )
    return _with_verdict(estimate, work)


def needed_share(work: MemoryWork, usable: float, constants: Constants) -> float:
    """Share of the GPU that is of use to vLLM, in hundredths.

    Weights, buffers and a KV cache in which all completions of an update can reach their limit,
    and in which as many of an evaluation run at once as vLLM takes, at the expected lengths. Less
    where the trainer needs the room, at the high end of what it may take.
    """
    window = max(work.sequence_tokens, work.window_tokens)
    training = min(work.sequences, work.max_sequences) * work.sequence_tokens
    together = min(work.eval_sequences, work.max_sequences)
    evaluation = together * min(window, CROWDING * work.live_context)
    tokens = max(training, evaluation, window)
    cache = _KV_MARGIN * tokens * work.shape.kv_bytes_per_token()
    need = _weights(work) + rollout_buffers(work, constants) + cache
    others = trainer_bytes(work)
    if not work.standby:
        others += training_bytes(work)
    room = usable - band(_beside(others, constants), constants).high
    share = min(math.ceil(100 * need / usable), math.floor(100 * room / usable)) / 100
    return min(max(share, _LEAST_SHARE), _MOST_SHARE)


def kept_asleep(work: MemoryWork) -> float:
    """What of its buffers a sleeping vLLM keeps: adapter slots and CUDA graphs."""
    return _adapter_slots(work) + _graphs(work) if work.vllm else 0.0


def _beside(trainer: float, constants: Constants) -> list[Term]:
    """What the trainer and the libraries take."""
    return [
        Term(trainer, {"memory_model": 1}, "trainer"),
        Term(constants["runtime_gib"] * GIB, {"runtime_gib": 1}, "runtime"),
    ]


def _logits(work: MemoryWork) -> float:
    return logit_bytes(work.micro_batch, work.sequence_tokens, work.shape.vocab, work.logit_chunks)


def _trained(work: MemoryWork) -> int:
    return work.shape.params if work.whole_copies else work.adapter_params


def _weights(work: MemoryWork) -> float:
    """The base; or float32 copies of a model that is trained, and one as its passes take it."""
    if work.whole_copies:
        passes = work.weight_bytes if work.weight_bytes < 4 else 0
        return (4.0 * work.whole_copies + passes) * work.shape.params
    return weight_bytes(work.shape, work.precision, work.weight_bytes)


def rollout_buffers(work: MemoryWork, constants: Constants) -> float:
    """What vLLM takes besides weights and KV cache: adapter slots, profile peak, graphs, sampler.

    A transformers rollout holds the logits of one position per sequence.
    """
    if not work.vllm:
        return 2 * 4.0 * min(work.sequences, work.max_sequences) * work.shape.vocab
    profile = constants["vllm_profile_gib"] * GIB
    return _adapter_slots(work) + profile + _graphs(work) + _SAMPLER_BYTES * work.max_sequences


def _adapter_slots(work: MemoryWork) -> float:
    return 2.0 * work.adapter_params


def _graphs(work: MemoryWork) -> float:
    return min(max(_GRAPH_BYTES * work.shape.hidden * work.shape.layers, 0.15 * GIB), GIB)


def _activations(work: MemoryWork, tokens: int) -> float:
    """What the backward pass needs of the forward pass."""
    layer = layer_bytes_per_token(work.shape) * tokens
    if not work.checkpointing:
        return layer * work.shape.layers
    kept = checkpoint_bytes(work.shape, tokens)
    return layer + (2 * kept / work.shape.layers if work.offload else kept)


def _with_verdict(estimate: MemoryEstimate, work: MemoryWork) -> MemoryEstimate:
    have, verdict, reason = estimate.usable / GIB, Verdict.NO, ""
    beside = estimate.peak_generation if work.standby else estimate.peak_training
    if work.utilization and beside > estimate.usable >= beside - estimate.kv_cache:
        reason = (
            f"engine.gpu_memory_utilization = {work.utilization:g} gives vLLM "
            f"{estimate.reserved / GIB:.1f} of {have:.1f} GiB, and training needs "
            f"{(beside - estimate.reserved) / GIB:.1f} GiB beside it"
        )
    elif estimate.peak > estimate.usable:
        reason = f"needs about {estimate.peak / GIB:.0f} GiB, this GPU has {have:.1f} GiB"
    elif estimate.kv_room < estimate.kv_least:
        least, room = estimate.kv_least / GIB, estimate.kv_room / GIB
        reason = (
            f"{room:.1f} GiB are left for the KV cache, one group at full length needs {least:.1f}"
        )
    elif estimate.high > estimate.usable:
        reason = f"may need up to {estimate.high / GIB:.0f} of {have:.1f} GiB"
        verdict = Verdict.TIGHT
    return replace(estimate, verdict=verdict, reason=reason) if reason else estimate
