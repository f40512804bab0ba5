"""Seconds that a teacher adds to an update: one pass without gradients over each row.

teaching_s(scenario, gpu, machine)      scenario: of the stage as GRPO
"""

from dataclasses import replace

from budgetrl.estimation.cpu_time import Machine, Passes, scoring, seconds
from budgetrl.estimation.phases import update_work
from budgetrl.estimation.scenario import Scenario
from budgetrl.estimation.terms import total
from budgetrl.estimation.training_time import logprobs
from budgetrl.estimation.workload import Precision
from budgetrl.hardware import Gpu


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
    if gpu is None:
        assert machine is not None
        passes = scenario.passes()
        work = Passes(
            rows=passes.rows,
            micro_batches=passes.forwards,
            prompt_tokens=scenario.prompt_tokens,
            completion_tokens=lengths.mean,
            adapter_params=0,
        )
        return total(seconds(scoring(work, shape), machine))
    precision = Precision.INT4 if spec.load_in_4bit else Precision.BF16
    reads = replace(
        update_work(scenario, lengths), reference=True, old_policy=False, precision=precision
    )
    return total(logprobs(reads, shape, gpu, scenario.constants))
