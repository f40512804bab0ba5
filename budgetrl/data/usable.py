"""What a recipe trains on and is judged by: no copies of suite problems, no overlong prompts."""

from collections.abc import Mapping
from dataclasses import dataclass

from budgetrl.data.overlap import Overlap, find_overlap
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import AnswerCheck, LoadedProblems, load_problems, load_suite
from budgetrl.errors import DataError, RecipeError
from budgetrl.recipe.base import RewardName
from budgetrl.recipe.schema import Eval, Recipe
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
    longest: Mapping[str, int]
    """Tokens of each suite's longest prompt."""


def load_usable(
    recipe: Recipe,
    renderer: PromptRenderer,
    check_answer: AnswerCheck,
    window: int | None,
) -> Usable:
    """Load data and suites; leave out exact copies of evaluation problems and overlong prompts.

    Args:
        recipe: what is asked for.
        renderer: makes prompts of problems.
        check_answer: says which golds cannot be used.
        window: of the model, for advice; None if unlimited.

    Raises:
        DataError: unusable rows, no problem is left, or a suite has a prompt that is too long.
        RecipeError: the format reward asks for what the prompt rules out.
    """
    _check_format(recipe, renderer)
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
    longest = {
        name: max(len(renderer.ids(problem)) for problem in suite.problems)
        for name, suite in suites.items()
    }
    for spec in recipe.eval:
        check_suite_prompts(
            recipe, spec, longest[spec.suite], _advice(recipe, longest[spec.suite], window)
        )
    return Usable(loaded, suites, tuple(fitting), overlap, len(kept) - len(fitting), longest)


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


def _check_format(recipe: Recipe, renderer: PromptRenderer) -> None:
    weight = next((r.weight for r in recipe.rewards if r.name == RewardName.FORMAT), 0.0)
    if renderer.closed and weight:
        raise RecipeError(
            f"rewards.format.weight = {weight:g} asks for a think block, and the chat template "
            "ends each prompt with a think block that is closed already: thinking is off.",
            hint="Turn thinking on (prompt.template_kwargs.enable_thinking=true for Qwen3), or set "
            "rewards.format.weight=0.",
        )


def check_suite_prompts(recipe: Recipe, spec: Eval, longest: int, hint: str) -> None:
    """Refuse a suite with a prompt that leaves no room: prompts are neither cut nor left out.

    Args:
        recipe: limits prompts and completions.
        spec: of the suite.
        longest: tokens of its longest prompt.
        hint: what to do about it.

    Raises:
        DataError: the prompt is too long.
    """
    most = recipe.longest_prompt(spec)
    if longest > most:
        raise DataError(
            f"suite {spec.suite}: a prompt has {longest} tokens, more than the {most} that "
            f"prompt.max_tokens = {recipe.prompt.max_tokens} and completions of "
            f"{recipe.eval_max_tokens(spec)} allow.",
            hint=f"{hint} An evaluation leaves no problem out.",
        )


def remark_on_room(recipe: Recipe, spec: Eval, longest: int) -> str | None:
    """What to know of a suite whose longest prompts leave less room than is asked for."""
    limit, total = recipe.prompt.max_tokens, recipe.eval_tokens(spec)
    if longest <= limit:
        return None
    return (
        f"suite {spec.suite} has prompts of up to {longest} tokens, above prompt.max_tokens = "
        f"{limit}: their completions end where both have {total}, so after {total - longest} "
        f"instead of {recipe.eval_max_tokens(spec)} tokens at the least"
    )


def _advice(recipe: Recipe, longest: int, window: int | None) -> str:
    """Values with which the suite's longest prompt is taken."""
    if window is not None and longest >= window:
        return f"The window of {recipe.model.id} has {window}: leave the problem out of the suite."
    advice = f"Set prompt.max_tokens = {longest}"
    if window is not None and longest + recipe.sequence_tokens - recipe.prompt.max_tokens > window:
        advice += f", and every max_tokens of [sampling] and [[eval]] <= {window - longest}"
    return f"{advice}."
