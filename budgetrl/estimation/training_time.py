"""Seconds of log-prob passes, forward and backward passes and of the grading between them.

    FLOPs per token (N matmul weights, P adapter parameters; ESTIMATOR 4.4)
      LoRA forward + backward     4 N + 6 P, with gradient checkpointing + 2 N + 2 P
      full fine-tuning            6 N, with gradient checkpointing + 2 N
      log-probs                   2 N for the reference, 2 N + 2 P for the old policy
      attention                   2 L heads head_dim T forward, twice that backward

Rank is in the formula: at r 256 a 1.5B model pays 29 % more than at r 8.
"""

from budgetrl.estimation.rollout import weight_traffic
from budgetrl.estimation.shapes import ModelShape
from budgetrl.estimation.terms import Constants, Term
from budgetrl.estimation.workload import Precision, Trainer, Update
from budgetrl.hardware import Gpu

SMALL_TFLOPS, MEDIUM_TFLOPS = 170.0, 420.0
"""Where the classes of cards end: RTX 4090 165, L40S 362."""

_FULL_TRAINING_BYTES = 16.0
"""Moved per weight by one AdamW step."""


def mfu_name(gpu: Gpu) -> str:
    """The constant that says how much of this card training reaches."""
    if gpu.dense_tflops <= SMALL_TFLOPS:
        return "mfu_small"
    return "mfu_medium" if gpu.dense_tflops <= MEDIUM_TFLOPS else "mfu_large"


def update(work: Update, shape: ModelShape, gpu: Gpu, constants: Constants) -> list[Term]:
    """Forward and backward over all micro-batches, and the optimiser, in seconds."""
    name = mfu_name(gpu)
    rate = constants[name] * gpu.dense_tflops * 1e12
    passes = 4 if work.checkpointing else 3
    attention = passes * shape.attention_flops(work.context)
    seconds = work.tokens * (_train_flops(work, shape) + attention) / rate
    overhead = "trl_micro_step_s" if work.trainer is Trainer.TRL else "micro_step_s"
    terms = [
        Term(seconds, {name: -1}, "arithmetic"),
        Term(work.micro_batches * constants[overhead], {overhead: 1}, "micro-batches"),
        *_dequantise(work, passes - 1, shape, gpu, constants),
        _optimizer(work, shape, gpu, constants),
    ]
    if work.trainer is Trainer.UNSLOTH:
        terms.append(Term(constants["recompile_s"], {"recompile_s": 1}, "recompilation"))
    return _with_model_error(terms)


def supervised(work: Update, shape: ModelShape, gpu: Gpu, constants: Constants) -> list[Term]:
    """The same for rows that are given: long ones, and no pieces of logits; in seconds."""
    gain = constants["sft_gain"]
    terms = update(work, shape, gpu, constants)
    return [Term(t.amount / gain, {**t.powers, "sft_gain": -1}, t.name) for t in terms]


def logprobs(work: Update, shape: ModelShape, gpu: Gpu, constants: Constants) -> list[Term]:
    """Passes without gradients before the update, in seconds.

    The reference is the base without its adapter.
    """
    passes = work.reference + work.old_policy
    if not passes:
        return []
    name = mfu_name(gpu)
    rate = constants[name] * constants["logprob_gain"] * gpu.dense_tflops * 1e12
    weights = 2.0 * shape.matmul_params + shape.attention_flops(work.context)
    with_adapter = 2.0 * (work.adapter_params or 0) * work.old_policy
    seconds = work.tokens * (passes * weights + with_adapter) / rate
    return _with_model_error(
        [
            Term(seconds, {name: -1, "logprob_gain": -1}, "arithmetic"),
            *_dequantise(work, passes, shape, gpu, constants),
        ]
    )


def grading(completions: int, constants: Constants) -> list[Term]:
    """Rewards of the completions of one update, in seconds."""
    return [Term(completions * constants["grade_s"], {"grade_s": 1}, "grading")]


def step_overhead(standby: bool, constants: Constants) -> list[Term]:
    """Weight sync, logging and, with standby, putting vLLM to sleep and waking it, in seconds."""
    names = ["step_overhead_s", *(["standby_s"] if standby else [])]
    return [Term(constants[name], {name: 1}, "overhead") for name in names]


def _train_flops(work: Update, shape: ModelShape) -> float:
    """FLOPs per token of forward and backward, without attention."""
    weights = float(shape.matmul_params)
    if work.adapter_params is None:
        return (8 if work.checkpointing else 6) * weights
    adapter = float(work.adapter_params)
    again = 2 * (weights + adapter) if work.checkpointing else 0.0
    return 4 * weights + 6 * adapter + again


def _dequantise(
    work: Update, passes: int, shape: ModelShape, gpu: Gpu, constants: Constants
) -> list[Term]:
    """Unpacking 4-bit weights once per pass over each micro-batch."""
    if work.precision is not Precision.INT4:
        return []
    bandwidth = constants["decode_efficiency"] * gpu.bandwidth_gb_s * 1e9
    moved = weight_traffic(shape, work.precision, gpu, constants)[0]
    seconds = work.micro_batches * passes * moved.amount / bandwidth
    return [Term(seconds, {"decode_efficiency": -1, **moved.powers}, "dequantising")]


def _optimizer(work: Update, shape: ModelShape, gpu: Gpu, constants: Constants) -> Term:
    trained = shape.params if work.adapter_params is None else work.adapter_params
    bandwidth = constants["decode_efficiency"] * gpu.bandwidth_gb_s * 1e9
    seconds = work.optimizer_steps * _FULL_TRAINING_BYTES * trained / bandwidth
    return Term(seconds, {"decode_efficiency": -1}, "optimiser")


def _with_model_error(terms: list[Term]) -> list[Term]:
    return [Term(t.amount, {**t.powers, "train_model": 1}, t.name) for t in terms]
