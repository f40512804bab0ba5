"""Which of the loaded problems a run trains on: no copies of evaluation problems, none too long."""

from collections.abc import Mapping
from dataclasses import dataclass

from budgetrl.data.overlap import Overlap, find_overlap
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import LoadedProblems
from budgetrl.errors import DataError
from budgetrl.types import Problem

MAX_TOKEN_CHARS = 512
"""No tokenizer has tokens this long; Qwen's longest has 128 characters."""


@dataclass(frozen=True, slots=True)
class Usable:
    """Problems to train on, and why others are not among them."""

    problems: tuple[Problem, ...]
    overlap: Overlap
    overlong: int
    """Problems left out because their prompt is too long."""


def usable_problems(
    loaded: LoadedProblems,
    suites: Mapping[str, LoadedProblems],
    renderer: PromptRenderer,
    limit: int,
) -> Usable:
    """Training problems without exact copies of evaluation problems and overlong prompts.

    Args:
        loaded: the training data.
        suites: all evaluations of the recipe.
        renderer: makes prompts.
        limit: tokens of a prompt.

    Raises:
        DataError: no problem is left, or a suite has an overlong prompt: none is left out there.
    """
    overlap = find_overlap(loaded.problems, {n: suite.problems for n, suite in suites.items()})
    kept = [problem for problem in loaded.problems if problem.id not in overlap.exact]
    # A text of megabytes, which no limit would pass, would keep the tokenizer busy for minutes.
    readable = [problem for problem in kept if len(problem.text) <= MAX_TOKEN_CHARS * limit]
    fitting = [problem for problem in readable if len(renderer.ids(problem)) <= limit]
    if not fitting:
        raise DataError(
            f"{loaded.source}: no problem is left to train on.",
            hint="Raise prompt.max_tokens, or give other data.",
        )
    for name, suite in suites.items():
        longest = max(len(renderer.ids(problem)) for problem in suite.problems)
        if longest > limit:
            raise DataError(
                f"suite {name}: a prompt has {longest} tokens, above prompt.max_tokens = {limit}.",
                hint=f"Set prompt.max_tokens >= {longest}; an evaluation leaves no problem out.",
            )
    return Usable(tuple(fitting), overlap, len(kept) - len(fitting))
