"""Seconds of generation and of updates on a CPU, from the shape of the model and the tokens.

    generation(work, shape)    {constant: amount}    transformers.generate with a merged adapter
    training(work, shape)      {constant: amount}    TRL's forward and backward passes
    seconds(amounts, machine)  terms in seconds on a machine

Prompts are multiplied in wide products (prefill) and answers in narrow ones (decode), so each has a
rate of its own. `assets/cpu_estimator.json` has the constants, each the seconds of one unit on one
thread of the machine of the fit (`scripts/fit_cpu_plan.py` writes it); they scale with the matrix
speed that `processor.cpu_speed` measures.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from budgetrl.estimation.adapters import Adapter, LinearWork
from budgetrl.estimation.memory import layer_bytes_per_token
from budgetrl.estimation.shapes import ModelShape
from budgetrl.estimation.terms import Constants, Term, constants_in, load_constants
from budgetrl.files import read_asset

ASSET = "cpu_estimator.json"


@dataclass(frozen=True, slots=True)
class Machine:
    """How fast a processor is."""

    gflops: float
    """Of one thread, by `processor.cpu_speed`."""
    threads: int = 1
    """That compute."""
    cores: int = 1
    """That they run on."""

    @property
    def workers(self) -> int:
        """Threads that run side by side."""
        return max(1, min(self.threads, self.cores))


_LINGER = 1 + 1 / 16
"""Rows of a batch over those that still run: it shrinks when an eighth has ended."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Completions that are generated together; rows leave the batch as they end."""

    rows: float
    prompt_tokens: float
    """To which prompts are padded."""
    steps: float
    """Tokens of the longest completion."""
    prompts: float | None = None
    """That are read: one for each group; None: one for each row."""
    mean_steps: float | None = None
    """Tokens of a completion; None: as many as the longest has."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Forward and backward passes of one update."""

    rows: float
    """Completions that are trained on."""
    micro_batches: float
    prompt_tokens: float
    completion_tokens: float
    """To which the completions of a micro-batch are padded."""
    adapter: Adapter | None
    """None: all weights are trained, or of a pass without gradients, none is there."""
    checkpointing: bool = False

    @property
    def length(self) -> float:
        """Tokens of a row."""
        return self.prompt_tokens + self.completion_tokens

    def linears(self, shape: ModelShape) -> LinearWork:
        """Of the linear layers, all micro-batches together."""
        passes = max(1.0, self.micro_batches)
        one = LinearWork.of(shape, self.adapter, self.rows * self.length / passes)
        return LinearWork(passes * one.forward, passes * one.backward, passes * one.traffic)


def generation(work: Batch, shape: ModelShape) -> dict[str, float]:
    """What a generation consists of, in units of the constants of these names."""
    rows, later = work.rows, max(0.0, work.steps - 1)
    read = rows if work.prompts is None else work.prompts
    prompts = read * work.prompt_tokens
    prefill = 2.0 * shape.linear_params + shape.attention_flops(work.prompt_tokens)
    each = later
    if work.mean_steps is not None:
        each = min(later, _LINGER * max(0.0, work.mean_steps - 1))
    cells = rows * each
    cached = cells * work.prompt_tokens + rows * each**2 / 2
    return {
        "cpu_prefill_flop": prompts * prefill + read * 2.0 * shape.embedding_params,
        "cpu_decode_flop": cells * 2.0 * shape.matmul_params,
        "cpu_decode_weight": later * shape.matmul_params,
        "cpu_activation": (prompts + cells) * _activations(shape),
        "cpu_draw": (rows + cells) * shape.vocab,
        "cpu_cache": cached * shape.kv_bytes_per_token(1),
        "cpu_decode_layer": work.steps * shape.layers,
        "cpu_generation": 1.0,
    }


def training(work: Passes, shape: ModelShape) -> dict[str, float]:
    """What the passes of an update consist of, in units of the constants of these names."""
    tokens, again = work.rows * work.length, int(work.checkpointing)
    linears = work.linears(shape)
    products = (1 + again) * linears.forward + linears.backward
    attention = (3 + again) * shape.attention_flops(work.length)
    logits = work.rows * (work.completion_tokens + 1)
    return {
        "cpu_train_flop": products + tokens * attention + logits * 4.0 * shape.embedding_params,
        "cpu_train_activation": (1 + again / 2) * (tokens * _activations(shape) + linears.traffic),
        "cpu_logit": logits * shape.vocab,
        "cpu_micro_batch": work.micro_batches,
    }


def scoring(work: Passes, shape: ModelShape) -> dict[str, float]:
    """The same for forward passes without gradients."""
    tokens = work.rows * work.length
    linears = work.linears(shape)
    products = linears.forward + tokens * shape.attention_flops(work.length)
    logits = work.rows * (work.completion_tokens + 1)
    return {
        "cpu_prefill_flop": products + logits * 2.0 * shape.embedding_params,
        "cpu_activation": tokens * _activations(shape) + linears.traffic,
        "cpu_logit": logits * shape.vocab / 2,
        "cpu_micro_batch": work.micro_batches / 3,
    }


def seconds(amounts: Mapping[str, float], machine: Machine, times: float = 1.0) -> list[Term]:
    """Terms in seconds.

    Args:
        amounts: as of `generation`.
        machine: where.
        times: how often it is done.
    """
    known, slower = cpu_constants(), reference().gflops / machine.gflops
    terms = []
    for name, amount in amounts.items():
        serial = known[f"{name}_serial"]
        share = serial + (1 - serial) / machine.workers
        part = times * amount * known[name] * slower * share
        terms.append(Term(part, {name: 1, "cpu_speed": 1}, name))
    return terms


@cache
def cpu_constants() -> Constants:
    """The constants of GPUs and those of CPUs."""
    return Constants({**load_constants().table, **constants_in(read_asset(ASSET))})


@cache
def reference() -> Machine:
    """The machine of the fit."""
    return Machine(read_asset(ASSET)["reference"]["gflops"])


@cache
def formulas() -> str:
    """Tells these constants from earlier and later ones, over which other factors were measured."""
    return hashlib.sha256(json.dumps(read_asset(ASSET), sort_keys=True).encode()).hexdigest()[:12]


def forget() -> None:
    """Read the constants anew, after they were fitted."""
    for known in (cpu_constants, reference, formulas):
        known.cache_clear()


def _activations(shape: ModelShape) -> float:
    """Values that the layers compute of one token, besides the products themselves."""
    return layer_bytes_per_token(shape) / 2 * shape.layers
