"""Stored evaluations of a run as its final JSON has them: results and differences by suite."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from budgetrl.errors import DataError, ExitCode, ProtocolError
from budgetrl.evaluation.compare import difference
from budgetrl.evaluation.rows import load_eval
from budgetrl.evaluation.summary import summarise
from budgetrl.events import Error
from budgetrl.recipe.schema import Recipe
from budgetrl.types import EvalResult, EvalWhen, Spend, StopReason
from budgetrl.units import duration, usd


def brief(results: Mapping[str, EvalResult]) -> dict[str, dict[str, Any]]:
    """Results by suite, without their protocols."""
    return {
        suite: {
            "pass_at": {str(k): value for k, value in result.pass_at.items()},
            "interval_95": {str(k): value for k, value in result.interval_95.items()},
            "samples": result.samples,
        }
        for suite, result in results.items()
    }


def stored_results(evals: Path, when: str) -> dict[str, EvalResult]:
    """The complete rounds on the disk, by suite, also where the evaluation was cut off.

    Suites whose files are damaged, or whose answers could not be graded, are left out: this also
    serves those who write down a failure.

    Args:
        evals: the run's folder of suites.
        when: name of the evaluation, such as "final".
    """
    found = {}
    for file in sorted(evals.glob(f"*/{when}.json")):
        with suppress(DataError):
            stored = load_eval(file)
            if (rounds := stored.rounds()) > 0:
                found[file.parent.name] = summarise(
                    stored.rows,
                    stored.problem_ids,
                    rounds,
                    stored.ks,
                    protocol=stored.protocol,
                    when=when,
                    step=stored.step,
                    seconds=stored.seconds,
                )
    return found


def differences(evals: Path, suites: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Final minus baseline by suite, over the rounds that both have; none of damaged files."""
    found = {}
    for suite in suites:
        final, baseline = evals / suite / "final.json", evals / suite / "baseline.json"
        if not (final.exists() and baseline.exists()):
            continue
        try:
            by_k = difference(load_eval(final), load_eval(baseline))
        except (DataError, ProtocolError):
            continue
        found[suite] = {
            "pass_at": {str(k): part.difference for k, part in by_k.items()},
            "interval_95": {str(k): part.interval_95 for k, part in by_k.items()},
            "samples": min(part.samples for part in by_k.values()),
        }
    return found


def unjudged(
    recipe: Recipe, stop_reason: StopReason, final: Mapping[str, EvalResult] | None
) -> bool:
    """Whether a run came to its end and lacks the final evaluation that it was to have."""
    wanted = any(EvalWhen.FINAL in spec.when for spec in recipe.eval)
    ended = stop_reason not in (StopReason.INTERRUPTED, StopReason.FAILED)
    return wanted and ended and not final


def shortfall(steps: int, spend: Spend) -> Error:
    """What a run cost that ends unjudged.

    Args:
        steps: updates that were made; their adapter is kept.
        spend: what was paid.
    """
    cost = duration(spend.wall_s) + ("" if spend.usd is None else f", {usd(spend.usd)},")
    made = "not one update was made" if steps == 0 else f"{steps} updates were made and are kept"
    return Error(
        type="BudgetError",
        message=f"the budget is used up: {cost} were paid, {made}, and no round of the final "
        "evaluation fitted, so there is nothing to compare.",
        hint="`budgetrl resume RUN --hours 10m` goes on from there with a new allowance.",
        exit_code=int(ExitCode.REFUSED),
    )
