r"""What counts as a correct answer: the rules of grading, in one process and without a time limit.

    judge(r"0.5", r"\frac{1}{2}")               -> Verdict.CORRECT
    grade(r"so \boxed{0.5}", r"\frac{1}{2}")    -> Verdict.CORRECT, in a worker that can be killed

`judge` may take for ever on a hostile answer; worker.py calls it in processes it can kill.
"""

import re

from budgetrl.rewards.brackets import is_balanced
from budgetrl.rewards.comparison import equal
from budgetrl.rewards.extraction import find_answer, is_blank
from budgetrl.rewards.normalise import normalise
from budgetrl.rewards.reading import Kind, Node, read
from budgetrl.rewards.values import is_readable
from budgetrl.types import Verdict

MAX_ANSWER_CHARS = 2_000
GRADER_VERSION = "1"
"""Raised whenever a rule changes; part of every evaluation's protocol."""


def grade(completion: str, gold: str) -> Verdict:
    """The verdict on one completion, in a process of its own that is killed if it takes long.

    A process is started for each call; grade many completions with a `GradingPool`.
    """
    from budgetrl.rewards.worker import GradingPool

    with GradingPool(workers=1) as pool:
        return pool.grade([(completion, gold)])[0].verdict


def judge(answer: str, gold: str) -> Verdict:
    """Compares the content of a box with a gold answer; gold must be usable."""
    problem = gold_problem(gold)
    if problem:
        return Verdict.ERROR
    if len(answer) > MAX_ANSWER_CHARS:
        return Verdict.CORRECT if answer == gold else Verdict.WRONG
    g, a = normalise(_gold_content(gold) or ""), normalise(answer)
    node = read(g)
    if equal(node, read(a)):
        return Verdict.CORRECT
    if node.kind in (Kind.LIST, Kind.SET) and equal(node, read(a, thousands=False)):
        return Verdict.CORRECT
    return Verdict.WRONG


def _gold_content(gold: str) -> str | None:
    if "\\boxed" in gold or "\\fbox" in gold:
        return find_answer(gold)
    return gold


def gold_problem(gold: str) -> str | None:
    content = _gold_content(gold)
    if content is None or is_blank(content):
        return "the gold answer is empty"
    if not is_balanced(content):
        return "the gold answer is cut off: a brace is not closed"
    unreadable = _unreadable(read(normalise(content)))
    if unreadable is not None:
        return f"cannot read {unreadable!r}"
    return None


_BROKEN = re.compile(
    r"\{\s*\}|(?:[+\-*/^_=<>(\[{]|\\(?:cdot|times|frac|sqrt|leq|geq|neq|pm|cup|cap|in))\s*$|^[*/^_]"
)


def _unreadable(node: Node) -> str | None:
    if node.kind is Kind.VALUE:
        if is_readable(node.text) or (re.search(r"[A-Za-z0-9]",node.text) and not _BROKEN.search(node.text)):
            return None
        return node.text
    for item in node.items:
        bad = _unreadable(item)
        if bad is not None:
            return bad
    return None
