"""Answers that are drawn and graded outside an update: for a gate, for demonstrations, to rehearse.

    for problem, completion, breakdown in answers(prepared, problems, 8, "gate", stopped): ...

As an update of the stage would draw them, from seeds of their own, so that a resumed run draws the
same.
"""

from collections.abc import Sequence
from typing import NamedTuple

from budgetrl.engine.base import StopCheck, requests_of
from budgetrl.training.setup import Prepared
from budgetrl.training.trainer import training_sampling
from budgetrl.types import Completion, Problem, RewardBreakdown


class Answer(NamedTuple):
    """A completion of a problem, graded."""

    problem: Problem
    completion: Completion
    breakdown: RewardBreakdown


def answers(
    prepared: Prepared,
    problems: Sequence[Problem],
    samples: int,
    purpose: str,
    should_stop: StopCheck,
    max_tokens: int | None = None,
) -> list[Answer]:
    """So many answers to each problem; those that were not finished when stopped are left out.

    Args:
        prepared: for the stage.
        problems: that are asked.
        samples: of each.
        purpose: seeds the draws, with the recipe's seed, problem and sample.
        should_stop: asked between tokens.
        max_tokens: of one answer; None: as many as in training.
    """
    recipe, renderer = prepared.recipe, prepared.renderer
    requests = requests_of(problems, renderer.ids, samples, recipe.seed, purpose)
    made = prepared.engine.generate(requests, training_sampling(recipe, max_tokens), should_stop)
    pairs = zip((p for p in problems for _ in range(samples)), made, strict=True)
    done = [(problem, one) for problem, one in pairs if one is not None]
    graded = prepared.reward([one for _, one in done], [problem.answer for problem, _ in done])
    return [Answer(*pair, breakdown) for pair, breakdown in zip(done, graded, strict=True)]
