"""Memory figures in published rows as cases: parts with a closed formula, and totals apart.

Parts are read from the notes of a row ("weights 5.60", "KV 17.2 GiB = 563,744 tokens", "GRPO logits
9.8"); totals from `peak_gb`. A total depends on settings that rows rarely state, so totals are
reported under a kind of their own.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from calibration_rows import (
    MICRO_BATCH,
    PROMPT_TOKENS,
    Case,
    NotCovered,
    gpu_of,
    precision_of,
    shape_of,
)

from budgetrl.estimation.memory import (
    MemoryWork,
    estimate_memory,
    logit_bytes,
    weight_bytes,
)
from budgetrl.estimation.shapes import ModelShape
from budgetrl.estimation.terms import Term, load_constants
from budgetrl.recipe.training_tables import OPTIMIZER_BYTES
from budgetrl.units import GIB

_MODEL_ERROR = {"memory_model": 1}
_CHUNKS = 8
"""Pieces of the logits in the Unsloth version that was measured."""


def memory_cases(row: Mapping[str, Any]) -> list[Case]:
    """Parts and total of one row; one uncovered case where a memory row has neither."""
    cases = [*_parts(row), *_totals(row)]
    if not cases and row["kind"] == "memory":
        reason = "no part with a closed formula is stated"
        return [Case("memory", str(row["model"]), row["source"], row["peak_gb"], None, reason)]
    return cases


def _parts(row: Mapping[str, Any]) -> Iterator[Case]:
    notes = str(row["notes"])
    found = {
        "weights": re.search(r"\bweights (\d+\.\d+)", notes),
        "KV cache": re.search(r"KV (\d+\.\d+) GiB (?:=|/) ([\d,]+) tokens", notes),
        "logits": re.search(r"GRPO logits (\d+\.\d+)", notes),
        "moments": re.search(r"\+(\d+\.\d+) GiB = 2 x 2 B x ([\d.e]+)", notes),
    }
    for name, match in found.items():
        if match is None:
            continue
        label = f"{name} of {row['model']}"
        measured = float(match[1])
        try:
            predicted = _part(name, match, row)
        except NotCovered as why:
            yield Case("memory", label, row["source"], measured, None, str(why))
            continue
        terms = (Term(predicted / GIB, _MODEL_ERROR, name),)
        yield Case("memory", label, row["source"], measured, terms)


def _part(name: str, match: re.Match[str], row: Mapping[str, Any]) -> float:
    """Bytes of a part by its formula."""
    if name == "moments":
        # The row names the parameters and 16-bit moments; eight-bit states are half of that.
        return 2 * OPTIMIZER_BYTES["adamw_8bit"] * round(float(match[2]))
    shape = shape_of(row)
    if name == "weights":
        return weight_bytes(shape, precision_of(row))
    if name == "KV cache":
        return float(match[2].replace(",", "")) * shape.kv_bytes_per_token()
    group, limit = row["group_size"], row["max_completion"]
    if group is None or limit is None:
        raise NotCovered("the lengths of the logits are not given")
    return logit_bytes(group, limit, shape.vocab, _CHUNKS)


def _totals(row: Mapping[str, Any]) -> Iterator[Case]:
    """The peak, where the row says what ran."""
    if row["peak_gb"] is None:
        return
    label = f"peak of {row['model']} on {row['gpu']}"
    head = ("memory_total", label, row["source"], row["peak_gb"])
    try:
        work = _work(row, shape_of(row))
        usable = gpu_of(row).usable_gib * GIB
    except NotCovered as why:
        yield Case(*head, None, str(why))
        return
    estimate = estimate_memory(work, usable, load_constants())
    yield Case(*head, (Term(estimate.peak / GIB, _MODEL_ERROR, "peak"),))


def _work(row: Mapping[str, Any], shape: ModelShape) -> MemoryWork:
    if row["max_completion"] is None:
        raise NotCovered("no completion length is given")
    if row["lora_rank"] is None:
        raise NotCovered("no LoRA rank is given, or all weights are trained")
    vllm = "vllm" in row["engine"].lower() or "unsloth" in row["engine"].lower()
    count = row["completions_per_step"] or row["group_size"] or MICRO_BATCH
    return MemoryWork(
        shape=shape,
        precision=precision_of(row),
        adapter_params=shape.lora_params(row["lora_rank"]),
        optimizer="adamw_8bit" if "8bit" in row["engine"] or vllm else "adamw",
        micro_batch=min(MICRO_BATCH, count),
        sequence_tokens=(row["max_prompt"] or PROMPT_TOKENS) + row["max_completion"],
        sequences=count,
        live_context=PROMPT_TOKENS + row["max_completion"] / 2,
        vllm=vllm,
        standby="standby" in row["engine"],
        offload=vllm,
        logit_chunks=_CHUNKS if vllm or "liger" in row["engine"].lower() else None,
        max_sequences=max(count, 1),
    )
