"""Seconds of generation: a roofline over memory traffic with host time per step and sequence.

    step(B, context) = o0 + o1 B + (weights + B context KV) / (eta bandwidth) + 2 N B / (mfu peak)
    an adapter beside the weights adds  o2 layers + (its weights + B activations) / (eta bandwidth)

summed over a continuous batch: sequences leave as they end, others take their place, and the KV
cache limits how many run together. The calibrated form of ESTIMATOR 2.2, with the arithmetic of
wide batches as a term of its own.
"""

from typing import NamedTuple

from budgetrl.estimation.shapes import ModelShape
from budgetrl.estimation.terms import Constants, Term
from budgetrl.estimation.workload import Generation, Precision, Server, Serving
from budgetrl.hardware import Gpu


class Rollout(NamedTuple):
    """How long a generation takes, and why."""

    terms: list[Term]
    steps: float
    """Decode steps."""
    running: float
    """Sequences that can run together."""


def decode(
    work: Generation, how: Serving, shape: ModelShape, gpu: Gpu, constants: Constants
) -> Rollout:
    """The terms of a generation in seconds."""
    if how.server is Server.TRANSFORMERS:
        return _decode_in_lockstep(work, how, shape, gpu, constants)
    return _decode_continuously(work, how, shape, gpu, constants)


def weight_traffic(
    shape: ModelShape, precision: Precision, gpu: Gpu, constants: Constants
) -> list[Term]:
    """Bytes of weights that one pass moves."""
    head = Term(2.0 * shape.embedding_params, {}, "head")
    match precision:
        case Precision.BF16:
            return [Term(2.0 * shape.linear_params, {}, "weights"), head]
        case Precision.FP8:
            return [Term(1.0 * shape.linear_params, {}, "weights"), head]
        case Precision.INT4:
            name = "dequant_bytes" if gpu.bf16 else "dequant_bytes_old"
            traffic = constants[name] * shape.linear_params
            return [Term(traffic, {name: 1}, "dequantised weights"), head]


def _decode_continuously(
    work: Generation, how: Serving, shape: ModelShape, gpu: Gpu, constants: Constants
) -> Rollout:
    running = float(min(work.sequences, how.max_sequences))
    kv_per_token = shape.kv_bytes_per_token()
    if how.kv_bytes is not None:
        running = min(running, max(1.0, how.kv_bytes / kv_per_token / work.live_context))
    steps = work.longest
    if running < work.sequences:
        steps = max(steps, work.tokens / running + work.longest - work.mean)
    old = how.server is Server.VLLM_V0
    host = {"decode_v0_factor": 1} if old else {}
    slower = constants["decode_v0_factor"] if old else 1.0
    bandwidth = _bandwidth(gpu, constants)
    terms = [
        _host(steps * constants["decode_step_s"] * slower, "decode_step_s", host),
        _host(work.tokens * constants["decode_sequence_s"] * slower, "decode_sequence_s", host),
        _memory(work.kv_reads * kv_per_token / bandwidth, "KV cache"),
        *_weights(steps, how, shape, gpu, constants),
        *_arithmetic(work.tokens, work, how, shape, gpu, constants),
    ]
    if how.adapter_params:
        host_s = steps * shape.layers * constants["decode_lora_layer_s"]
        moved = (work.tokens + work.prompts * work.prompt_tokens) * shape.lora_traffic()
        terms.append(_host(host_s, "decode_lora_layer_s", {}))
        terms.append(_memory(moved / bandwidth, "adapter activations"))
    return Rollout(_with_model_error(terms), steps, running)


def _decode_in_lockstep(
    work: Generation, how: Serving, shape: ModelShape, gpu: Gpu, constants: Constants
) -> Rollout:
    """transformers.generate: rows of a batch run until the longest ends; the cache is copied."""
    running = float(min(work.sequences, how.max_sequences))
    batches = max(1.0, work.sequences / running)
    steps = batches * work.longest
    rows = work.sequences * work.longest
    kv_tokens = rows * (work.prompt_tokens + work.longest / 2)
    copied = 3 * kv_tokens * shape.kv_bytes_per_token()
    terms = [
        Term(
            steps * shape.layers * constants["transformers_layer_s"],
            {"transformers_layer_s": 1},
            "host",
        ),
        _memory(copied / _bandwidth(gpu, constants), "KV cache"),
        *_weights(steps, how, shape, gpu, constants),
        *_arithmetic(rows, work, how, shape, gpu, constants),
    ]
    return Rollout(_with_model_error(terms), steps, running)


def _weights(
    steps: float, how: Serving, shape: ModelShape, gpu: Gpu, constants: Constants
) -> list[Term]:
    bandwidth = _bandwidth(gpu, constants)
    moved = weight_traffic(shape, how.precision, gpu, constants)
    moved.append(Term(2.0 * how.adapter_params, {}, "adapter"))
    return [
        Term(steps * term.amount / bandwidth, {"decode_efficiency": -1, **term.powers}, term.name)
        for term in moved
    ]


def _arithmetic(
    tokens: float,
    work: Generation,
    how: Serving,
    shape: ModelShape,
    gpu: Gpu,
    constants: Constants,
) -> list[Term]:
    rate = constants["decode_mfu"] * gpu.dense_tflops * 1e12
    flops = 2.0 * (shape.matmul_params + how.adapter_params)
    prefill = work.prompts * work.prompt_tokens * flops / rate
    return [
        Term(tokens * flops / rate, {"decode_mfu": -1}, "arithmetic"),
        Term(prefill, {"decode_mfu": -1}, "prompts"),
    ]


def _bandwidth(gpu: Gpu, constants: Constants) -> float:
    """Bytes per second that decoding reaches."""
    return constants["decode_efficiency"] * gpu.bandwidth_gb_s * 1e9


def _memory(seconds: float, name: str) -> Term:
    return Term(seconds, {"decode_efficiency": -1}, name)


def _host(seconds: float, constant: str, more: dict[str, int]) -> Term:
    return Term(seconds, {constant: 1, **more}, "host")


def _with_model_error(terms: list[Term]) -> list[Term]:
    return [Term(t.amount, {**t.powers, "rollout_model": 1}, t.name) for t in terms]
