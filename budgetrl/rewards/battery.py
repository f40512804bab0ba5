"""Attack a user's own reward: completions that deserve nothing, and right answers in other forms.

    attacked = attack("my_reward:score", file, problems, pool)
    attacked.false_credit, attacked.missed, attacked.errors

Whether an answer is right is the grader's word (`grading.rules`), as in a run; the reward is asked
as a run asks it, in a process that is killed when it hangs. What is credit is measured: more than
halfway from what the reward gives to plain wrong answers to what it gives to plain right ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from budgetrl.errors import DataError, RecipeError
from budgetrl.recipe.schema import Reward
from budgetrl.rewards.own import OwnReward, RewardFault
from budgetrl.rewards.pool import GradedRow, GradingPool
from budgetrl.types import Problem, Verdict

MOST_PROBLEMS = 12
TIMEOUT_S = 3.0
"""For one case, as in a run."""
MOST_HANGS = 2
"""Cases that may take so long."""
SHOWN = 160
"""Characters of a completion in a report."""
_THOUGHT = "<think>\nI work it out step by step.\n</think>\n"


class Case(NamedTuple):
    """One made-up completion."""

    name: str
    problem: Problem
    completion: str


class Verdicted(NamedTuple):
    """A case that the reward got wrong, or had no value for."""

    case: Case
    verdict: Verdict
    value: float | None
    why: str

    def to_json(self) -> dict[str, Any]:
        """For `budgetrl diagnose --json`."""
        return {
            "case": self.case.name,
            "problem_id": self.case.problem.id,
            "gold": self.case.problem.answer,
            "completion": self.case.completion[:SHOWN],
            "verdict": self.verdict.value,
            "reward": self.value,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Attacked:
    """What a battery found."""

    cases: int
    right: float
    """Mean reward of plain right answers."""
    wrong: float
    """Of plain wrong ones."""
    false_credit: list[Verdicted]
    missed: list[Verdicted]
    errors: list[Verdicted]

    def to_json(self) -> dict[str, Any]:
        """For `budgetrl diagnose --json`."""
        return {
            "cases": self.cases,
            "reward_of_right": self.right,
            "reward_of_wrong": self.wrong,
            "false_credit": [one.to_json() for one in self.false_credit],
            "missed": [one.to_json() for one in self.missed],
            "errors": [one.to_json() for one in self.errors],
        }


def attack(name: str, file: Path, problems: Sequence[Problem], pool: GradingPool) -> Attacked:
    """Ask a reward for all cases of a battery.

    Args:
        name: module:function.
        file: defines it.
        problems: with golds; a few of them are used.
        pool: says what is right.

    Raises:
        RecipeError: it cannot be imported or called as a run calls it, or it hangs.
        DataError: fewer than two different golds.
    """
    chosen = _some(problems)
    cases = [case for number in range(len(chosen)) for case in _cases(chosen, number)]
    graded = pool.grade([(case.completion, case.problem.answer) for case in cases])
    own = OwnReward(Reward(name=name, timeout_s=TIMEOUT_S), file, quiet=True)
    try:
        own.start()
        values = list(_ask(own, cases, graded))
    finally:
        own.close()
    right = _mean(values, cases, PLAIN_RIGHT)
    wrong = _mean(values, cases, PLAIN_WRONG)
    if right is None or wrong is None:
        fault = next(value for value in values if isinstance(value, str))
        raise RecipeError(f"{name}: has no value for plain answers: {fault}.", hint=_HOW)
    return _judged(cases, graded, values, right, wrong)


PLAIN_RIGHT, PLAIN_WRONG = "right answer", "gold of another problem"
_HOW = (
    "A reward is called as f(*, completion, gold, num_tokens, verdict, **parameters) and returns a "
    "number; see docs/attempts.md."
)


def _some(problems: Sequence[Problem]) -> list[Problem]:
    """A few problems, each with another gold."""
    by_gold = {problem.answer: problem for problem in problems}
    if len(by_gold) < 2:
        raise DataError(
            "the battery needs at least two problems with different golds.",
            hint="Give the training data, or a part of it, with --data.",
        )
    every = max(1, len(by_gold) // MOST_PROBLEMS)
    return list(by_gold.values())[::every][:MOST_PROBLEMS]


def _cases(problems: Sequence[Problem], number: int) -> Iterator[Case]:
    problem = problems[number]
    other = problems[(number + 1) % len(problems)].answer
    gold = problem.answer
    golds = [one.answer for one in problems]
    boxed = f"\\boxed{{{gold}}}"
    texts = {
        PLAIN_RIGHT: f"{_THOUGHT}{boxed}",
        "right answer alone": boxed,
        "right answer after long work": f"<think>\n{'So far so good. ' * 200}\n</think>\n{boxed}",
        "right answer in words": f"{_THOUGHT}The answer is \\boxed{{\\text{{ {gold} }}}}.",
        "right answer, not boxed": f"{_THOUGHT}The answer is {gold}.",
        PLAIN_WRONG: f"{_THOUGHT}\\boxed{{{other}}}",
        "wrong answer after long work": f"<think>\n{'So far so good. ' * 200}\n</think>\n"
        f"\\boxed{{{other}}}",
        "gold while thinking, another one boxed": f"<think>\nIt may be {boxed}.\n</think>\n"
        f"\\boxed{{{other}}}",
        "every gold boxed": _THOUGHT + " ".join(f"\\boxed{{{one}}}" for one in [*golds, other]),
        "every gold in one box": f"{_THOUGHT}\\boxed{{{', '.join(golds)}}}",
        "nothing": "",
        "blanks": " \n\n ",
        "format without content": "<think>\n</think>\n\\boxed{}",
        "an open thought": f"<think>\nIt is {other}",
        "the prompt echoed": f"{problem.text}\n{problem.text}",
        "one word repeated": "the " * 400,
        "boxes repeated": "\\boxed{" * 100,
    }
    if gold.lstrip("-").isdigit():
        texts["right answer as a decimal"] = f"{_THOUGHT}\\boxed{{{gold}.0}}"
        texts["right answer as a fraction"] = f"{_THOUGHT}\\boxed{{\\frac{{{2 * int(gold)}}}{{2}}}}"
        texts["off by one"] = f"{_THOUGHT}\\boxed{{{int(gold) + 1}}}"
        texts["a digit too many"] = f"{_THOUGHT}\\boxed{{{gold}0}}"
    for name, text in texts.items():
        yield Case(name, problem, text)


def _ask(
    own: OwnReward, cases: Sequence[Case], graded: Sequence[GradedRow]
) -> Iterator[float | str]:
    """A value for each case, or why there is none."""
    hangs = 0
    for number, (case, one) in enumerate(zip(cases, graded, strict=True)):
        row = {"completion": case.completion, "gold": case.problem.answer}
        try:
            tokens = max(1, len(case.completion.split()))
            yield own(**row, num_tokens=tokens, verdict=one.verdict)
        except RewardFault as fault:
            hangs += "took more than" in str(fault)
            if number == 0 or hangs >= MOST_HANGS:
                raise RecipeError(
                    f"{own.name}: {fault}, when asked about {case.name!r} "
                    f"(completion {case.completion[:60]!r}, gold {case.problem.answer!r}).",
                    hint=_HOW,
                ) from None
            yield str(fault)


def _mean(values: Sequence[float | str], cases: Sequence[Case], name: str) -> float | None:
    found = [
        value
        for value, case in zip(values, cases, strict=True)
        if case.name == name and not isinstance(value, str)
    ]
    return fmean(found) if found else None


def _judged(
    cases: Sequence[Case],
    graded: Sequence[GradedRow],
    values: Sequence[float | str],
    right: float,
    wrong: float,
) -> Attacked:
    credited: Callable[[float], bool] = lambda value: value > (right + wrong) / 2  # noqa: E731
    blind = right <= wrong
    attacked = Attacked(len(cases), right, wrong, [], [], [])
    for case, one, value in zip(cases, graded, values, strict=True):
        if isinstance(value, str):
            attacked.errors.append(Verdicted(case, one.verdict, None, value))
            continue
        is_right = one.verdict is Verdict.CORRECT
        if blind and case.name == PLAIN_WRONG:
            why = f"a wrong answer gets {value:g}, and right ones {right:g} on average"
            attacked.false_credit.append(Verdicted(case, one.verdict, value, why))
        elif not blind and credited(value) and not is_right:
            why = f"is {one.verdict.value}, and gets {value:g}; right ones get {right:g}"
            attacked.false_credit.append(Verdicted(case, one.verdict, value, why))
        elif not blind and is_right and not credited(value):
            why = f"is correct, and gets {value:g}; wrong ones get {wrong:g}"
            attacked.missed.append(Verdicted(case, one.verdict, value, why))
    return attacked
