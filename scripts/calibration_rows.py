"""Measured runs of others as inputs of the estimator: one `Case` per row, covered or with a reason.

A row is covered if it says what ran (model, GPU, engine), how much (completions or concurrency) and
how long the answers were (a mean, or a limit). What it leaves out is assumed by the same rules for
all rows, stated below; no row and no source is treated on its own.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budgetrl.errors import BudgetRLError
from budgetrl.estimation.lengths import Lengths
from budgetrl.estimation.rollout import decode
from budgetrl.estimation.scenario import UNKNOWN_LENGTH
from budgetrl.estimation.shapes import ModelShape, find_shape, shape_from_config
from budgetrl.estimation.terms import Constants, Term, total
from budgetrl.estimation.training_time import logprobs, step_overhead, supervised, update
from budgetrl.estimation.workload import Generation, Precision, Server, Serving, Trainer, Update
from budgetrl.hardware import Gpu, find_gpu, gpu_table
from budgetrl.units import GIB

PROMPT_TOKENS = 150
"""Assumed where a row gives no shorter limit: a question with its system prompt."""
MEAN_OF_LIMIT = UNKNOWN_LENGTH.value
"""Mean length over the limit where only the limit is known; the estimator's own assumption."""
MICRO_BATCH = 8
"""Assumed completions per forward pass."""
LORA_RANK = 32
"""Assumed where a row says LoRA without a rank."""
SFT_TOKENS, SFT_BATCH = 2048, 32_768
"""Assumed tokens of a sequence where a row names none, and of an update."""
V1_SINCE = (2025, 3)
"""Month of vLLM 0.8.0, the first to run V1 by default: decides where a row names no version."""


@dataclass(frozen=True, slots=True)
class Case:
    """One measured number, and the terms that predict it."""

    kind: str
    """decode (tokens per second), step (seconds), memory (GB or GiB)."""
    label: str
    source: str
    measured: float | None
    terms: tuple[Term, ...] | None
    """None where the row is not covered."""
    reason: str = ""
    """Why it is not covered."""
    tokens: float | None = None
    """Of decode rows: tokens / seconds is the prediction."""
    length_ratio: tuple[float, float] = (1.0, 1.0)
    """Seconds at the low and the high end of an assumed length, over those at the assumed one."""


class NotCovered(Exception):
    """The row lacks something, or is of a kind that budgetrl does not plan."""


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a calibration file; a source or engine "same" is that of the row before."""
    before: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        row: dict[str, Any] = json.loads(line)
        for key in ("source", "engine"):
            if str(row.get(key)).startswith("same"):
                row[key] = f"{before.get(key, '')}{str(row[key]).removeprefix('same')}"
        before = row
        yield row


def decode_case(row: Mapping[str, Any], constants: Constants) -> Case:
    """A row of `calibration_decode.jsonl`."""
    label = f"{row['model']} on {row['gpu']}, {row['engine']}, {row['concurrency']} at once"
    try:
        work, serving, shape, gpu = _decode_workload(row)
    except NotCovered as why:
        return Case("decode", label, row["source"], row["output_tok_s"], None, str(why))
    terms = decode(work, serving, shape, gpu, constants).terms
    return Case(
        "decode", label, row["source"], row["output_tok_s"], tuple(terms), tokens=work.tokens
    )


def step_case(row: Mapping[str, Any], constants: Constants) -> Case:
    """A row of kind rl_step of `calibration.jsonl`."""
    label = f"{row['model']} on {row['gpu']}, {row['engine']}"
    measured = row["seconds_per_step"]
    try:
        terms = _step_terms(row, constants)
    except NotCovered as why:
        return Case("step", label, row["source"], measured, None, str(why))
    ratio = (1.0, 1.0)
    if row["mean_completion"] is None:
        limit = row["max_completion"]
        ends = [
            total(_step_terms({**row, "mean_completion": share * limit}, constants))
            for share in (UNKNOWN_LENGTH.low, UNKNOWN_LENGTH.high)
        ]
        ratio = (ends[0] / total(terms), ends[1] / total(terms))
    return Case("step", label, row["source"], measured, tuple(terms), length_ratio=ratio)


def train_case(row: Mapping[str, Any], constants: Constants) -> Case:
    """A row of `calibration_sft.jsonl`: tokens per second of forward, backward and optimiser.

    Rows without a sequence length are short instructions (`SFT_TOKENS`); updates are of `SFT_BATCH`
    tokens, so that the optimiser is a small part of them.
    """
    label = f"{row['model']} on {row['gpu']}, {row['mode']}"
    if row["n_gpus"] != 1 or (row["seconds"] is None and row["tokens_per_s"] is None):
        return Case("sft", label, row["source"], None, None, "more than one GPU, or no speed")
    try:
        shape, gpu = shape_of(row), gpu_of(row)
    except NotCovered as why:
        return Case("sft", label, row["source"], row["tokens_per_s"], None, str(why))
    length = float(row["sequence_tokens"] or SFT_TOKENS)
    rows = max(1, round(SFT_BATCH / length))
    full = row["mode"].endswith("full")
    adapter = None if full else shape.lora_params(row["lora_rank"] or LORA_RANK)
    work = Update(
        sequences=rows,
        prompt_tokens=0.0,
        mean=length,
        mean_square=length**2,
        longest_in_micro=length,
        micro_batches=rows if length > SFT_TOKENS else -(-rows // MICRO_BATCH),
        adapter_params=adapter,
        precision=Precision.INT4 if "nf4" in row["mode"] else Precision.BF16,
        checkpointing=row.get("checkpointing", "recompute") == "recompute",
        reference=False,
    )
    terms = supervised(work, shape, gpu, constants)
    measured = row["tokens_per_s"]
    return Case("sft", label, row["source"], measured, tuple(terms), tokens=work.tokens)


def shape_of(row: Mapping[str, Any]) -> ModelShape:
    """The shape of the row's model, by the `config` that it gives or else by name.

    Raises:
        NotCovered: not bundled.
    """
    if "config" in row:
        return shape_from_config(row["config"], str(row["model"]))
    name = re.split(r"\s+", str(row["model"]))[0]
    for candidate in (name, f"{name}-Instruct"):
        try:
            return find_shape(f"any/{candidate}")
        except BudgetRLError:
            continue
    raise NotCovered(f"model {row['model']!r}: shape unknown")


def gpu_of(row: Mapping[str, Any]) -> Gpu:
    """The row's GPU; a family name ("A100") means its smallest member.

    Raises:
        NotCovered: not in the table.
    """
    name = re.sub(r"\s*\(.*?\)", "", str(row["gpu"]))
    try:
        return find_gpu(name)
    except BudgetRLError:
        family = [gpu for gpu in gpu_table().values() if gpu.name.startswith(f"{name}-")]
        if family:
            return min(family, key=lambda gpu: gpu.memory_gb)
    raise NotCovered(f"GPU {row['gpu']!r} is not in the table")


def precision_of(row: Mapping[str, Any]) -> Precision:
    """How the row's base weights are stored."""
    text = f"{row['model']} {row['engine']}".lower()
    if "4-bit" in text or "4bit" in text or "qlora" in text or "bnb" in text:
        return Precision.INT4
    return Precision.FP8 if "fp8" in text else Precision.BF16


def server_of(row: Mapping[str, Any]) -> Server:
    """What generated.

    Raises:
        NotCovered: neither vLLM (or a server built like it) nor transformers.
    """
    engine = str(row["engine"]).lower()
    text = f"{engine} {row.get('notes', '')}".lower()
    if "generate" in engine or "plain pytorch" in engine:
        return Server.TRANSFORMERS
    if "vllm" in engine:
        version = re.search(r"vllm 0\.(\d+)", text)
        dated = re.search(r"\((20\d\d)-(\d\d)\)", str(row["source"]))
        old = "v0)" in text or (version is not None and int(version[1]) < 8)
        if version is None and dated is not None:
            old = old or (int(dated[1]), int(dated[2])) < V1_SINCE
        return Server.VLLM_V0 if old else Server.VLLM
    raise NotCovered("the engine that generated is not stated")


def _decode_workload(row: Mapping[str, Any]) -> tuple[Generation, Serving, ModelShape, Gpu]:
    if row["concurrency"] is None or row["output_tokens"] is None:
        raise NotCovered("concurrency or lengths are not given")
    shape, gpu, precision = shape_of(row), gpu_of(row), precision_of(row)
    adapter = _adapter_of(row, shape) or 0
    if adapter and server_of(row) is Server.VLLM_V0:
        raise NotCovered("an adapter on vLLM V0, whose kernels for it are gone")
    requests = re.search(r"(\d+) requests", row["notes"])
    count = int(requests[1]) if requests else row["concurrency"]
    weights = 2.0 * shape.params if precision is Precision.BF16 else 1.0 * shape.params
    room = 0.9 * gpu.usable_gib * GIB - weights - 2.0 * GIB
    if room <= 0:
        raise NotCovered("the weights alone fill the card by our count")
    serving = Serving(
        server=server_of(row),
        precision=precision,
        adapter_params=adapter,
        max_sequences=row["concurrency"],
        kv_bytes=room,
    )
    return _decode_generation(row, count), serving, shape, gpu


def _decode_generation(row: Mapping[str, Any], count: int) -> Generation:
    """Lengths as the row gives them: totals, a uniform range, or one number."""
    totals = re.search(
        r"([\d,]+) in / ([\d,]+) out / ([\d,]+) KV token-reads / ([\d,]+) decode", row["notes"]
    )
    if totals:
        tokens_in, out, reads, steps = (float(text.replace(",", "")) for text in totals.groups())
        mean, prompt = out / count, tokens_in / count
        square = 2 * (reads / count - prompt * mean)
        return Generation(count, count, prompt, mean, square, steps)
    prompt, _ = _range(row["input_tokens"])
    mean, square = _range(row["output_tokens"])
    longest = float(str(row["output_tokens"]).split("-")[-1])
    return Generation(count, count, prompt, mean, square, longest)


def _range(text: object) -> tuple[float, float]:
    """Mean and mean square of "100-1024" (uniform) or of one number."""
    ends = [float(part) for part in str(text).split("-")]
    low, high = ends[0], ends[-1]
    return (low + high) / 2, (low * low + low * high + high * high) / 3


def _step_terms(row: Mapping[str, Any], constants: Constants) -> list[Term]:
    if row["n_gpus"] != 1:
        raise NotCovered(f"{row['n_gpus'] or 'an unknown number of'} GPUs: budgetrl plans for one")
    if row["seconds_per_step"] is None:
        raise NotCovered("no seconds per step")
    if "VL" in row["model"] or "vision" in row["model"].lower():
        raise NotCovered("images in the prompts")
    if "fp32 compute" in row["engine"]:
        raise NotCovered("computes in float32, for which the GPU table has no rate")
    lengths, count = _lengths_of(row), _completions_of(row)
    shape, gpu, precision, server = shape_of(row), gpu_of(row), precision_of(row), server_of(row)
    adapter = _adapter_of(row, shape)
    prompt = min(PROMPT_TOKENS, row["max_prompt"] or PROMPT_TOKENS)
    prompts = max(1, round(count / (row["group_size"] or count)))
    # The constants are those of V1's kernels; V0's are gone, and nothing is charged for them.
    served = adapter if server is Server.VLLM else None
    serving = Serving(server, precision, served or 0, max(256, count))
    micro = _micro_batches(row, count)
    trl = "trl" in row["engine"].lower()
    unsloth = "unsloth" in row["engine"].lower() or "unsloth" in row["source"].lower()
    work = Update(
        sequences=count,
        prompt_tokens=prompt,
        mean=lengths.mean,
        mean_square=lengths.mean_square,
        longest_in_micro=lengths.longest_of(max(1, count // micro)),
        micro_batches=micro,
        adapter_params=adapter,
        precision=precision,
        checkpointing="no gradient checkpointing" not in row["engine"],
        reference=True,
        # TRL, Unsloth and plain loops take the old policy from the update's own pass.
        old_policy=False,
        padded=not unsloth,
        trainer=Trainer.UNSLOTH if unsloth else Trainer.TRL if trl else Trainer.PLAIN,
    )
    generation = Generation.of(count, prompts, prompt, lengths)
    terms = decode(generation, serving, shape, gpu, constants).terms
    terms += logprobs(work, shape, gpu, constants) + update(work, shape, gpu, constants)
    standby = "standby" in row["engine"] and "standby=False" not in row["engine"]
    return terms + step_overhead(standby, constants)


def _lengths_of(row: Mapping[str, Any]) -> Lengths:
    mean, limit = row["mean_completion"], row["max_completion"]
    if mean is None and limit is None:
        raise NotCovered("no completion length is given")
    if mean is None:
        return Lengths.with_mean(MEAN_OF_LIMIT * limit, limit)
    return Lengths.with_mean(mean, max(limit or 4 * mean, mean))


def _completions_of(row: Mapping[str, Any]) -> int:
    count = row["completions_per_step"]
    if count is None and row["prompts_per_step"] and row["group_size"]:
        count = row["prompts_per_step"] * row["group_size"]
    if count is None:
        raise NotCovered("completions per step are not given")
    return int(count)


def _adapter_of(row: Mapping[str, Any], shape: ModelShape) -> int | None:
    """Adapter parameters; None: all weights are trained, or nothing is."""
    text = f"{row['engine']} {row['model']}"
    rank = row.get("lora_rank")
    if rank is None:
        named = re.search(r"LoRA r(\d+)", text)
        if "lora" not in text.lower():
            return None
        rank = int(named[1]) if named else LORA_RANK
    only_qv = "q,v only" in row.get("notes", "")
    return shape.lora_params(rank, ("q_proj", "v_proj")) if only_qv else shape.lora_params(rank)


def _micro_batches(row: Mapping[str, Any], count: int) -> int:
    stated = re.search(r"(\d+) per device x (\d+) accum", row["notes"])
    return int(stated[2]) if stated else max(1, math.ceil(count / MICRO_BATCH))
