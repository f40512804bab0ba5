"""Between two stages: is there something to learn from for the next one?

Groups are drawn as the next stage would draw them, from seeds of their own, so that a resumed run
measures the same. A group has signal where right and wrong answers both occur.
"""

from typing import NamedTuple

from budgetrl.recipe.stage_tables import Gate
from budgetrl.rewards.registry import check_faults
from budgetrl.training.drawing import answers
from budgetrl.training.recorder import has_signal
from budgetrl.training.setup import Prepared


class Measured(NamedTuple):
    """What a gate has found."""

    groups: int
    groups_with_signal: int
    passed: bool


def measure_gate(gate: Gate, prepared: Prepared) -> Measured | None:
    """Measure the share of groups with signal.

    Args:
        gate: what is wanted.
        prepared: for the next stage; its model is asked.

    Returns:
        what was found; None where somebody stops the run first.

    Raises:
        RewardError: the answers cannot be graded.
    """
    size = prepared.recipe.grpo.num_generations
    problems = prepared.sampler.problems[: gate.prompts]
    drawn = answers(prepared, problems, size, "gate", prepared.stopper.requested)
    if len(drawn) < size * len(problems):
        return None
    breakdowns = [one.breakdown for one in drawn]
    check_faults(breakdowns)
    groups = [breakdowns[i : i + size] for i in range(0, len(breakdowns), size)]
    signal = sum(map(has_signal, groups))
    return Measured(len(groups), signal, signal >= gate.signal_share * len(groups))
