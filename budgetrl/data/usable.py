"""What a recipe trains on and is judged by: no copies of suite problems, no overlong prompts."""

from collections.abc import Callable, Mapping
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


def load_usable(
    recipe: Recipe,
    renderer: PromptRenderer,
    check_answer: AnswerCheck,
    longest_prompt: Callable[[int], int | None],
) -> Usable:
    """Load data and suites; leave out exact copies of evaluation problems and overlong prompts.

    Args:
        recipe: what is asked for.
        renderer: makes prompts of problems.
        check_answer: says which golds cannot be used.
        longest_prompt: the engine's, for suites: none of their problems is left out, so their
            prompts may be longer than those trained on.

    Raises:
        DataError: unusable rows, no problem is left, or a suite has a prompt beyond both limits.
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
        raise _nothing_left(loaded, overlap, len(kept), limit)
    for spec in recipe.eval:
        longest = max(len(renderer.ids(problem)) for problem in suites[spec.suite].problems)
        most = longest_prompt(recipe.eval_max_tokens(spec))
        hint = f"Set prompt.max_tokens >= {longest}, or a smaller max_tokens of the suite"
        check_suite_prompts(spec.suite, longest, limit, most, hint)
    return Usable(loaded, suites, tuple(fitting), overlap, len(kept) - len(fitting))


def _nothing_left(loaded: LoadedProblems, overlap: Overlap, num_kept: int, limit: int) -> DataError:
    """Why there is no problem to train on."""
    total = len(loaded.problems)
    if num_kept:
        return DataError(
            f"{loaded.source}: no problem is left to train on: {len(overlap.exact)} of {total} "
            f"also stand in a suite, and the prompts of all others are longer than "
            f"prompt.max_tokens = {limit}.",
            hint="Raise prompt.max_tokens, or give other data.",
        )
    suites = ", ".join(sorted(set(overlap.exact.values())))
    return DataError(
        f"{loaded.source}: no problem is left to train on: all {total} also stand in what the run "
        f"is judged by ({suites}).",
        hint="Give other data, or other problems for the suite: nobody trains on what judges.",
    )


def check_suite_prompts(suite: str, longest: int, limit: int, most: int | None, hint: str) -> None:
    """Refuse a suite with a prompt beyond both limits: prompts are neither cut nor left out.

    Args:
        suite: its name.
        longest: tokens of its longest prompt.
        limit: prompt.max_tokens.
        most: the engine's `longest_prompt` beside the suite's completions; None: any.
        hint: what to do about it.

    Raises:
        DataError: names all three.
    """
    if most is not None and longest > max(limit, most):
        raise DataError(
            f"suite {suite}: a prompt has {longest} tokens, above prompt.max_tokens = {limit} "
            f"and above the {most} that its completions leave.",
            hint=f"{hint}; an evaluation leaves no problem out.",
        )
