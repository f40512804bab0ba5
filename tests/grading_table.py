"""Tables of grading cases: a line is `answer ~ gold` if they are equal, `!~` if they are not."""

import pytest

from budgetrl.grading.rules import gold_problem, judge
from budgetrl.types import Verdict


def cases(table: str) -> pytest.MarkDecorator:
    """Parametrizes a test with answer, gold and whether they are equal."""
    rows = []
    for line in table.strip().splitlines():
        equal = " !~ " not in line
        answer, gold = line.split(" ~ " if equal else " !~ ")
        rows.append(pytest.param(answer, gold, equal, id=line))
    return pytest.mark.parametrize(("answer", "gold", "equal"), rows)


def assert_judged(answer: str, gold: str, equal: bool) -> None:
    """The gold is usable, and the verdict is as the table says."""
    assert gold_problem(gold) is None
    assert judge(answer, gold) is (Verdict.CORRECT if equal else Verdict.WRONG)
