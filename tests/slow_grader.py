"""budgetrl's grader, and a minute of harmless work for the answers and golds that ask for it."""

import time

from budgetrl.grading import rules
from budgetrl.types import Verdict

MINUTE_S = 60.0


def judge(answer: str, gold: str) -> Verdict:
    """As `rules.judge`, after what the answer asks for."""
    _spend(answer)
    return rules.judge(answer, gold)


def gold_problem(gold: str) -> str | None:
    """As `rules.gold_problem`, after what the gold asks for."""
    _spend(gold)
    return rules.gold_problem(gold)


def _spend(text: str) -> None:
    deadline = time.monotonic() + MINUTE_S
    if text.startswith("SLEEP"):
        time.sleep(MINUTE_S)
    while text.startswith("COMPUTE") and time.monotonic() < deadline:
        if text.endswith("C"):  # one long call that no signal handler of Python can interrupt
            sum(range(50_000_000))
    if text.endswith("FAIL"):
        raise ValueError(text)
