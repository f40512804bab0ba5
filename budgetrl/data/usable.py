"""What a recipe trains on and is judged by: no copies of suite problems, no overlong prompts."""

from collections.abc import Mapping
from dataclasses import dataclass

from budgetrl.data.overlap import Overlap, find_overlap
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import AnswerCheck, LoadedProblems, load_problems, load_suite
from budgetrl.errors import DataError
from budgetrl.recipe.schema import Recipe
from budgetrl.types import Problem

MAX_TOKEN_CHARS = 512
"""No tokenizer has tokens this long; Qwen's longest has 128 characters."""


@dataclass(frozen=True, slots=True)
class Usable:
    """Problems to train on, why others are not among them, and the suites."""

    loaded: LoadedProblems
    """The training data as it was found."""
    suites: Mapping[str, LoadedProblems]
    """All evaluations of the recipe."""
    problems: tuple[Problem, ...]
    overlap: Overlap
    overlong: int
    """Problems left out because their prompt is too long."""


def load_usable(recipe: Recipe, renderer: PromptRenderer, check_answer: AnswerCheck) -> Usable:
    """Load data and suites; leave out exact copies of evaluation problems and overlong prompts.

    Raises:
        DataError: unusable rows, no problem is left, or a suite has an overlong prompt: none is
            left out there.
    """
    limit = recipe.prompt.max_tokens
    loaded = load_problems(recipe.data, check_answer)
    suites = {spec.suite: load_suite(spec, check_answer) for spec in recipe.eval}
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
    return Usable(loaded, suites, tuple(fitting), overlap, len(kept) - len(fitting))
