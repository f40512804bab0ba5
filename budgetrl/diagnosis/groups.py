"""What the groups of an update say besides their mean: dead ones, golds in doubt, one answer.

group_facts([Group(verdicts, answers, gold), ...]) -> fields of a step event
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from budgetrl.types import Verdict

AGREEING = 0.75
"""Share of a group that has one answer."""
MOST_LEVELS = 16
"""Of an update; more of them are no kinds of problems."""


class Group(NamedTuple):
    """The completions of one problem in one update."""

    verdicts: Sequence[Verdict]
    answers: Sequence[str | None]
    """What was graded; None where there was no answer."""
    gold: str
    level: str | None = None
    """What kind of problem it is."""


def group_facts(groups: Sequence[Group]) -> dict[str, Any]:
    """Counts of groups and shares of completions.

    `groups_agreed` are those in which three of four completions have one answer, and
    `groups_agreed_wrong` those of them whose answer is not the gold one.
    """
    graded = [[v for v in group.verdicts if v is not Verdict.ERROR] for group in groups]
    right = sum(bool(g) and all(v is Verdict.CORRECT for v in g) for g in graded)
    wrong = sum(bool(g) and all(v is not Verdict.CORRECT for v in g) for g in graded)
    agreed = [kind for group in groups if (kind := _agreement(group)) is not None]
    answers = Counter(answer for group in groups for answer in group.answers if answer is not None)
    golds = Counter(group.gold for group in groups)
    completions = sum(len(group.answers) for group in groups)
    top, times = answers.most_common(1)[0] if answers else (None, 0)
    return {
        "groups_all_right": right,
        "groups_all_wrong": wrong,
        "groups_agreed": len(agreed),
        "groups_agreed_wrong": agreed.count(False),
        "top_answer": None if top is None else top[:60],
        "top_answer_share": times / completions if completions else None,
        "top_gold_share": golds.most_common(1)[0][1] / len(groups) if groups else None,
        "levels": _levels(groups),
    }


def _levels(groups: Sequence[Group]) -> dict[str, list[int]] | None:
    """Groups and right completions by level; None where problems have none."""
    found: dict[str, list[int]] = {}
    for group in groups:
        if group.level is not None:
            counts = found.setdefault(group.level[:60], [0, 0])
            counts[0] += 1
            counts[1] += list(group.verdicts).count(Verdict.CORRECT)
    return found if 0 < len(found) <= MOST_LEVELS else None


def _agreement(group: Group) -> bool | None:
    """Whether the answer that most of a group have is right; None where they do not agree."""
    votes: Counter[tuple[bool, str]] = Counter(
        (verdict is Verdict.CORRECT, "" if verdict is Verdict.CORRECT else answer or "")
        for verdict, answer in zip(group.verdicts, group.answers, strict=True)
        if answer is not None and verdict is not Verdict.ERROR
    )
    if not votes:
        return None
    (right, _), times = votes.most_common(1)[0]
    return right if times >= AGREEING * len(group.verdicts) else None
