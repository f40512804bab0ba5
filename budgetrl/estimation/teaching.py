"""Seconds that a teacher adds to an update: one pass without gradients over each row.

teaching_s(scenario, gpu, machine)      scenario: of the stage as GRPO

A teacher that is kept in the memory of a GPU's host computes there. Nobody knows the processor
beside a card that is yet to be rented: it is planned as this machine's, and the estimate says so.
"""

from dataclasses import replace
from functools import cache

from budgetrl.estimation.cpu_phases import update_passes
from budgetrl.estimation.cpu_time import Machine, scoring, seconds
from budgetrl.estimation.machine import gflops
from budgetrl.estimation.phases import update_work
from budgetrl.estimation.scenario import Scenario
from budgetrl.estimation.terms import total
from budgetrl.estimation.training_time import logprobs
from budgetrl.estimation.workload import Precision
from budgetrl.hardware import Gpu
from budgetrl.pace import free_cores
from budgetrl.processor import multiplies_bfloat16
from budgetrl.recipe.schema import Recipe, Teacher

_COMPARED = 0.6
"""What comparing two distributions costs over a loss of GRPO, an entry of the logits: both sides'
exist in pieces and are made again in the backward pass (measured on the quickstart)."""
_HALF_SLOWER = 3.4
"""bfloat16 over float32 on a processor without units for it, as recipes/quickstart.toml says."""


def teaching_s(scenario: Scenario, gpu: Gpu | None, machine: Machine | None) -> float:
    """Seconds of the teacher's passes in one update, by the formulas.

    Args:
        scenario: of the stage, estimated as GRPO.
        gpu: that is planned for; None: a CPU.
        machine: that CPU.
    """
    spec, shape = scenario.recipe.teacher, scenario.teacher or scenario.shape
    assert spec is not None
    lengths = scenario.lengths()
    if gpu is not None and not on_host(scenario.recipe):
        precision = Precision.INT4 if spec.load_in_4bit else Precision.BF16
        reads = replace(
            update_work(scenario, lengths), reference=True, old_policy=False, precision=precision
        )
        return total(logprobs(reads, shape, gpu, scenario.constants))
    work = replace(update_passes(scenario, lengths), adapter=None)
    amounts = scoring(work, shape)
    compared = work.rows * lengths.mean
    amounts["cpu_prefill_flop"] += 4.0 * compared * shape.embedding_params
    amounts["cpu_logit"] += _COMPARED * compared * shape.vocab
    return _slower(spec) * total(seconds(amounts, machine or host()))


def on_host(recipe: Recipe) -> bool:
    """Whether the teacher of a recipe for GPUs computes on the host's processor."""
    spec = recipe.teacher
    alone = spec is not None and not spec.is_self and spec.device == "cpu"
    return alone and recipe.engine.device == "cuda"


@cache
def host() -> Machine:
    """The processor that such a teacher is planned for: this machine's, all of it."""
    cores = free_cores()
    return Machine(gflops(), cores, cores)


def host_source() -> str:
    """What is taken for granted of it, for people."""
    there = host()
    return (
        f"its passes are planned for a host with this machine's processor, {there.cores} "
        f"{'core' if there.cores == 1 else 'cores'} of {there.gflops:.0f} GFLOP/s; nothing is "
        "known of the rented one"
    )


def _slower(spec: Teacher) -> float:
    own = not spec.is_self and spec.dtype != "float32"
    return _HALF_SLOWER if own and not multiplies_bfloat16() else 1.0
