"""Two evaluations set against each other: same protocol, same problems, same number of rounds.

difference(load_eval(a), load_eval(b)) -> {k: {difference, interval_95, samples}}    a - b
"""

from collections.abc import Mapping

from budgetrl.errors import ProtocolError
from budgetrl.evaluation.passk import paired_pass_difference
from budgetrl.evaluation.rows import StoredEval
from budgetrl.evaluation.summary import by_problem, judged
from budgetrl.types import Difference, Protocol


def describe_differences(a: Protocol, b: Protocol) -> str:
    """For people: "temperature (0.6 and 1.0), seed (1 and 2)"."""
    return ", ".join(
        f"{name} ({getattr(a, name)} and {getattr(b, name)})" for name in a.differences(b)
    )


def difference(a: StoredEval, b: StoredEval) -> dict[int, Difference]:
    """Paired difference a - b in pass@k over the first rounds that both sides have completed.

    Args:
        a: one evaluation.
        b: the other, under the same protocol; of the k of both, those above the rounds are left
            out.

    Raises:
        ProtocolError: the protocols differ, or a side has no complete round.
        DataError: too many rows without a verdict.
    """
    if a.protocol != b.protocol:
        raise ProtocolError(
            f"{a.path} and {b.path} must not be compared, their protocols differ in: "
            f"{describe_differences(a.protocol, b.protocol)}.",
            hint="Evaluate both under one protocol with `budgetrl eval`.",
        )
    rounds = min(a.rounds(), b.rounds())
    if rounds < 1:
        lacking = a if a.rounds() < 1 else b
        raise ProtocolError(
            f"{lacking.path}: no round is complete, so there is nothing to compare.",
            hint="Finish it with `budgetrl eval`.",
        )
    correct_a, correct_b = _correct(a, rounds), _correct(b, rounds)
    common = [problem for problem in correct_a if problem in correct_b]
    counts_a = [correct_a[problem] for problem in common]
    counts_b = [correct_b[problem] for problem in common]
    return {
        k: Difference(*paired_pass_difference(counts_a, counts_b, rounds, k), rounds)
        for k in sorted({1, *(k for k in a.ks if k in b.ks)})
        if k <= rounds
    }


def _correct(stored: StoredEval, rounds: int) -> Mapping[str, int]:
    grouped = judged(by_problem(stored.rows, stored.problem_ids, rounds))
    return {problem: sum(row.correct for row in rows) for problem, rows in grouped.items()}
