"""Graded completions of complete rounds, added up to an `EvalResult`."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from budgetrl.errors import DataError
from budgetrl.evaluation.passk import maj_at_k, pass_at_k, pass_interval
from budgetrl.evaluation.rows import EvalRow, StoredEval
from budgetrl.evaluation.think_facts import think_facts
from budgetrl.events import Evaluation
from budgetrl.types import EvalResult, Protocol, Verdict

ASKED = ("temperature", "top_p", "max_tokens")
"""Of a protocol, what an evaluation's event says."""
MAX_ERROR_SHARE = 0.05
"""More problems than this without a verdict fail an evaluation."""


def by_problem(
    rows: Sequence[EvalRow], problem_ids: Sequence[str], rounds: int
) -> dict[str, list[EvalRow]]:
    """The first rounds by problem, in the suite's order and in the order of the rounds."""
    found: dict[str, list[EvalRow]] = {problem: [] for problem in problem_ids}
    for row in sorted(rows, key=lambda row: row.sample):
        if row.sample < rounds and row.problem_id in found:
            found[row.problem_id].append(row)
    return found


def judged(grouped: Mapping[str, Sequence[EvalRow]]) -> dict[str, Sequence[EvalRow]]:
    """Problems without a verdict `error`: such a row is neither right nor wrong.

    Gold answers are checked when a suite is loaded, so an error is the grader's fault. The whole
    problem is left out, because pass@k needs the same number of samples of each.

    Raises:
        DataError: more than 5 % of the problems have one.
    """
    faulty = [p for p, rows in grouped.items() if any(r.verdict is Verdict.ERROR for r in rows)]
    if len(faulty) > MAX_ERROR_SHARE * len(grouped):
        raise DataError(
            f"{len(faulty)} of {len(grouped)} problems could not be graded: "
            f"{', '.join(faulty[:10])}{' ...' if len(faulty) > 10 else ''}.",
            hint="`budgetrl grade` on the stored completions shows why.",
        )
    return {problem: rows for problem, rows in grouped.items() if problem not in faulty}


def summarise(
    rows: Sequence[EvalRow],
    problem_ids: Sequence[str],
    rounds: int,
    ks: Sequence[int],
    *,
    protocol: Protocol,
    when: str,
    step: int,
    seconds: float,
) -> EvalResult:
    """The result over the first complete rounds; every k above their number is left out.

    Raises:
        DataError: too many rows without a verdict.
    """
    grouped = judged(by_problem(rows, problem_ids, rounds))
    counted = [row for problem_rows in grouped.values() for row in problem_rows]
    correct = [sum(row.correct for row in problem_rows) for problem_rows in grouped.values()]
    ks = sorted({1, *(k for k in ks if k <= rounds)})
    answers = [[row.extracted for row in problem_rows] for problem_rows in grouped.values()]
    right = [[row.correct for row in problem_rows] for problem_rows in grouped.values()]
    pairs = list(zip(answers, right, strict=True))
    return EvalResult(
        suite=protocol.suite,
        when=when,
        step=step,
        problems=len(grouped),
        samples=rounds,
        pass_at={k: fmean(pass_at_k(rounds, c, k) for c in correct) for k in ks},
        interval_95={k: pass_interval(correct, rounds, k) for k in ks},
        truncated_share=fmean(row.truncated for row in counted),
        unparsable_share=_share(counted, Verdict.UNPARSABLE),
        completion_tokens_mean=fmean(row.tokens for row in counted),
        timeouts=sum(row.verdict is Verdict.TIMEOUT for row in counted),
        seconds=seconds,
        protocol=protocol,
        maj_at={k: fmean(maj_at_k(a, r, k) for a, r in pairs) for k in ks if k > 1},
        correct_tokens_mean=_tokens(counted, lambda row: row.correct),
        wrong_tokens_mean=_tokens(counted, lambda row: not row.correct),
        think=think_facts(protocol.think, counted),
    )


def summarise_stored(
    stored: StoredEval, rounds: int, ks: Sequence[int] | None = None, when: str | None = None
) -> EvalResult:
    """The same of a stored evaluation; k and the name of the moment are its own where absent.

    Raises:
        DataError: too many rows without a verdict.
    """
    return summarise(
        stored.rows,
        stored.problem_ids,
        rounds,
        stored.ks if ks is None else ks,
        protocol=stored.protocol,
        when=when or stored.when,
        step=stored.step,
        seconds=stored.seconds,
    )


def _share(rows: Sequence[EvalRow], verdict: Verdict) -> float:
    return sum(row.verdict is verdict for row in rows) / len(rows)


def _tokens(rows: Sequence[EvalRow], which: Callable[[EvalRow], bool]) -> float | None:
    tokens = [row.tokens for row in rows if which(row)]
    return fmean(tokens) if tokens else None


def event_of(result: EvalResult, when: str) -> Evaluation:
    """What the events say of a result; `when` is baseline, step or final."""
    told = [name for name in Evaluation.model_fields if hasattr(result, name)]
    values = {name: getattr(result, name) for name in told}
    values |= {name: getattr(result.protocol, name) for name in ASKED}
    return Evaluation.model_validate(values | {"when": when})
