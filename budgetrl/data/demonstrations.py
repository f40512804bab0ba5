"""Rows with worked solutions, as demonstrations for supervised fine-tuning.

    loaded = load_demonstrations(recipe, renderer, end_id, judge)

A row is a problem with a solution (two columns, or prompt and completion), or a conversation of one
question and its answer. The prompt is the run's own, rendered as for GRPO and evaluations; the
solution gets the think block that the format reward asks for, and the model's end token. What does
not fit the window, contradicts its gold answer or lacks a solution is left out, counted and listed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from budgetrl.data.files import Row
from budgetrl.data.prompts import CLOSE_THINK, OPEN_THINK, PromptRenderer
from budgetrl.data.rows import (
    MAX_DROPPED_SHARE,
    Dropped,
    cell,
    gold_text,
    listing,
    open_rows,
    passes,
    problem_text,
)
from budgetrl.errors import DataError
from budgetrl.recipe.base import RewardName
from budgetrl.recipe.schema import Columns, Recipe
from budgetrl.types import Problem, Verdict

SOLUTIONS = ("solution", "messages", "completion", "conversations", "response", "output")
"""What data sets call a worked solution, the likeliest first."""
PROBLEMS = ("question", "prompt", "instruction", "input", "query")
"""And the problem, where there is no column of that name."""
LEAST_KEPT = 0.25
"""Of the rows: fewer in the window, and the stage is refused."""

Judge = Callable[[Sequence[tuple[str, str]]], Sequence[Verdict]]
"""Verdicts of completions with their gold answers."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One row to learn from, as tokens."""

    problem: Problem
    """Its answer is empty where the data have none."""
    completion: str
    """What the model should write after the prompt, without the end token."""
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    """With the end token, unless the window cut it off."""
    where: str = ""
    """File and line."""
    cut: bool = False

    @property
    def num_tokens(self) -> int:
        """Of prompt and completion."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """What a stage learns from, and what was left out."""

    rows: tuple[Demonstration, ...]
    dropped: tuple[Dropped, ...]
    """Without a usable problem or solution, or against their gold answer."""
    source: str
    overlong: int = 0
    """Beyond the window: left out, or cut."""
    unchecked: int = 0
    """Without a gold answer that the solution could be held against."""

    @property
    def fingerprint(self) -> str:
        """Hash over the texts, in order."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps([row.problem.text, row.completion, row.cut]).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Example:
    """A row as it was read: problem and what is shown of its solution."""

    problem: Problem
    solution: str
    thinking: str | None
    where: str


def read_examples(recipe: Recipe) -> tuple[list[Example], list[Dropped], str]:
    """The rows of a stage's [data], what was left out of them, and where they are from.

    Raises:
        DataError: no file, no column with solutions, or more than 5 % of the rows have none.
    """
    data = recipe.data
    named = data.columns
    optional = (named.answer, named.id or "id", named.thinking)
    wanted = (named.problem, *PROBLEMS, named.solution, *SOLUTIONS, *optional, *data.filter)
    columns = tuple(dict.fromkeys(name for name in wanted if name is not None))
    read, source = open_rows(data, columns)
    rows = [row for row in read if passes(row, data.filter)][: data.limit]
    if not rows:
        raise DataError(f"{source}: holds no rows.", hint="Check data.split and data.filter.")
    places = _places(rows, named, source)
    examples, dropped = list[Example](), list[Dropped]()
    for number, row in enumerate(rows):
        example, why = _example(row, number, places, named)
        if example is None:
            dropped.append(Dropped(row.where, why))
        else:
            examples.append(example)
    if len(dropped) > MAX_DROPPED_SHARE * len(rows):
        raise DataError(
            f"{source}: {len(dropped)} of {len(rows)} rows cannot be learnt from:\n"
            + listing(dropped),
            hint="Clean the file, or name other columns under data.columns: problem, solution.",
        )
    return examples, dropped, source


def load_demonstrations(
    recipe: Recipe, renderer: PromptRenderer, end_id: int, judge: Judge
) -> Demonstrations:
    """The demonstrations of a stage.

    Args:
        recipe: of the stage.
        renderer: makes prompts of problems.
        end_id: token that ends a completion.
        judge: holds solutions against gold answers.

    Raises:
        DataError: unusable rows, or fewer than a quarter within the window.
    """
    examples, dropped, source = read_examples(recipe)
    return demonstrate(recipe, renderer, end_id, judge, examples, dropped, source)


def demonstrate(
    recipe: Recipe,
    renderer: PromptRenderer,
    end_id: int,
    judge: Judge,
    examples: Sequence[Example],
    dropped: Sequence[Dropped],
    source: str,
) -> Demonstrations:
    """Demonstrations of examples; as `load_demonstrations`."""
    dropped = list(dropped)
    shown: list[tuple[Example, str]] = []
    for example in examples:
        text, why = _shown(recipe, renderer, example)
        if why is not None:
            dropped.append(Dropped(example.where, why))
        else:
            shown.append((example, text))
    right, against, unchecked = _without_contradictions(shown, judge)
    rows = [_row(renderer, end_id, example, text) for example, text in right]
    kept = [fitted for row in rows if (fitted := _fitted(recipe, row)) is not None]
    overlong = sum(row.num_tokens > recipe.sft.max_tokens for row in rows)
    dropped += against
    if not rows or len(kept) < LEAST_KEPT * len(rows):
        raise _too_few(recipe, source, rows, len(kept), dropped)
    return Demonstrations(tuple(kept), tuple(dropped), source, overlong, unchecked)


def _too_few(
    recipe: Recipe,
    source: str,
    rows: Sequence[Demonstration],
    num_kept: int,
    dropped: Sequence[Dropped],
) -> DataError:
    if not rows:
        return DataError(
            f"{source}: no demonstration is left:\n{listing(dropped)}",
            hint="Check data.columns: problem, solution, answer.",
        )
    lengths = sorted(row.num_tokens for row in rows)
    middle = lengths[len(lengths) // 2]
    return DataError(
        f"{source}: only {num_kept} of {len(rows)} rows fit sft.max_tokens = "
        f"{recipe.sft.max_tokens}; half of them have more than {middle} tokens.",
        hint='Raise sft.max_tokens, or take them without their ends: sft.overlong = "cut".',
    )


def _places(rows: Sequence[Row], named: Columns, source: str) -> tuple[str, str]:
    """The columns of problem and solution.

    Raises:
        DataError: there is none with solutions.
    """
    held = {name for row in rows[:100] for name in row.values}

    def has(name: str) -> bool:
        return name in held or any(cell(row.values, name) is not None for row in rows[:100])

    solution = named.solution or next((name for name in SOLUTIONS if has(name)), None)
    if solution is None or not has(solution):
        lacks = f"no column {solution!r}" if solution else "no column with worked solutions"
        raise DataError(
            f"{source}: {lacks}; there are: {', '.join(sorted(held))}.",
            hint="SFT learns from solutions: name their column as data.columns.solution, or let "
            'the model make its own: sft.source = "self".',
        )
    if named.thinking is not None and not has(named.thinking):
        raise DataError(
            f"{source}: no column {named.thinking!r}; there are: {', '.join(sorted(held))}.",
            hint="Name it as data.columns.thinking, or leave that out.",
        )
    problem = next((name for name in (named.problem, *PROBLEMS) if has(name)), solution)
    return problem, solution


def _example(
    row: Row, number: int, places: tuple[str, str], named: Columns
) -> tuple[Example | None, str]:
    """A row's example, or why there is none."""
    problem, solution = (cell(row.values, name) for name in places)
    thinking = cell(row.values, named.thinking) if named.thinking is not None else None
    if isinstance(solution, list) and solution and isinstance(solution[0], Mapping):
        turns = [(_role(turn), _said(turn)) for turn in solution]
        questions = [text for role, text in turns if role == "user"]
        if turns[-1][0] != "assistant" or len(questions) > 1:
            return None, f"its messages are of {', '.join(role for role, _ in turns)}"
        thinking = thinking or solution[-1].get("reasoning_content")
        problem, solution = (questions[0] if questions else problem), turns[-1][1]
    elif isinstance(solution, list):  # s1K keeps one trajectory in a list
        solution = solution[0] if solution else None
    if isinstance(thinking, list):
        thinking = thinking[0] if thinking else None
    text, why = problem_text(problem)
    if why is not None:
        return None, why
    if not isinstance(solution, str) or not solution.strip():
        return None, "there is no solution"
    gold = gold_text(cell(row.values, named.answer)) if named.answer != places[1] else None
    own_id = cell(row.values, named.id or "id")
    identifier = f"row-{number:06d}" if own_id in (None, "") else str(own_id)
    about = Problem(identifier, text, (gold or "").strip())
    return Example(about, solution.strip(), thinking or None, row.where), ""


def _role(turn: Mapping[str, Any]) -> str:
    """Of a message; ShareGPT's names count too."""
    role = str(turn.get("role", turn.get("from")))
    return {"human": "user", "gpt": "assistant"}.get(role, role)


def _said(turn: Mapping[str, Any]) -> str:
    said = turn.get("content", turn.get("value"))
    if isinstance(said, list):  # content in parts
        return "\n".join(str(part.get("text", "")) for part in said)
    return said if isinstance(said, str) else ""


def _shown(recipe: Recipe, renderer: PromptRenderer, example: Example) -> tuple[str, str | None]:
    """What the model should write, with the think block that is asked for; or why it cannot be."""
    text, gold = example.solution, example.problem.answer
    wanted = RewardName.FORMAT in recipe.reward_names or renderer.prefilled
    if example.thinking is not None:
        text = f"{OPEN_THINK}\n{example.thinking.strip()}\n{CLOSE_THINK}\n\n{text}"
    elif wanted and CLOSE_THINK not in text:
        if not gold:
            return "", "it has no think block, and no gold answer to put behind one"
        text = f"{OPEN_THINK}\n{text}\n{CLOSE_THINK}\n\n\\boxed{{{gold}}}"
    if renderer.prefilled:
        text = text.removeprefix(OPEN_THINK)
    return text, None


def _without_contradictions(
    shown: Sequence[tuple[Example, str]], judge: Judge
) -> tuple[list[tuple[Example, str]], list[Dropped], int]:
    """Those whose boxed answer is their gold answer, the others, and how many have no gold."""
    golden = [(text, one.problem.answer) for one, text in shown if one.problem.answer]
    verdicts = iter(judge(golden))
    kept, against, unchecked = list[tuple[Example, str]](), list[Dropped](), 0
    for example, text in shown:
        verdict = next(verdicts) if example.problem.answer else Verdict.ERROR
        if verdict in (Verdict.WRONG, Verdict.UNPARSABLE):
            gold = example.problem.answer[:60]
            says = "another boxed answer" if verdict is Verdict.WRONG else "no boxed answer"
            against.append(Dropped(example.where, f"it has {says}, and its gold is {gold!r}"))
            continue
        unchecked += verdict is not Verdict.CORRECT
        kept.append((example, text))
    return kept, against, unchecked


def _row(renderer: PromptRenderer, end_id: int, example: Example, text: str) -> Demonstration:
    ids = (*renderer.encode(text), end_id)
    return Demonstration(example.problem, text, renderer.ids(example.problem), ids, example.where)


def _fitted(recipe: Recipe, row: Demonstration) -> Demonstration | None:
    """A row within the window, by the recipe's rule for longer ones."""
    room = recipe.sft.max_tokens - len(row.prompt_ids)
    if len(row.completion_ids) <= room:
        return row
    if recipe.sft.overlong == "drop" or room <= 0:
        return None
    return replace(row, completion_ids=row.completion_ids[:room], cut=True)
