"""The last event of a run: what its stored evaluations say, and why it ended.

brief(results), differences(evals, final)     what `run_finished` says of each suite
last_event(account, ...)                      what a worker that died could not write
"""

import signal
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from budgetrl.account.run import Account
from budgetrl.errors import DataError, ExitCode, ProtocolError
from budgetrl.evaluation.compare import difference
from budgetrl.evaluation.rows import load_eval
from budgetrl.evaluation.summary import summarise_stored
from budgetrl.events import Error, RunFinished, Scores
from budgetrl.recipe.schema import Recipe
from budgetrl.types import EvalResult, EvalWhen, Spend, StopReason
from budgetrl.units import duration, usd


def brief(results: Mapping[str, EvalResult]) -> dict[str, Scores]:
    """Results by suite, without their protocols."""
    return {
        suite: Scores.model_validate({name: getattr(result, name) for name in Scores.model_fields})
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
                found[file.parent.name] = summarise_stored(stored, rounds, when=when)
    return found


def differences(evals: Path, suites: Iterable[str]) -> dict[str, Scores]:
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
        found[suite] = Scores(
            pass_at={k: part.difference for k, part in by_k.items()},
            interval_95={k: part.interval_95 for k, part in by_k.items()},
            samples=min(part.samples for part in by_k.values()),
        )
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


def last_event(
    account: Account, recipe: Recipe, received: Collection[int], *, at_deadline: bool
) -> RunFinished:
    """The end of a run whose worker could not write it.

    Args:
        account: the run, as far as it came.
        recipe: says whether a final evaluation was to be made.
        received: signals that asked it to stop.
        at_deadline: the budget was used up.
    """
    run, steps = account.run, account.steps
    reason, code = StopReason.FAILED, ExitCode.FAILED
    if received:
        terminated = signal.SIGTERM in received
        code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
        reason = StopReason.INTERRUPTED
    elif at_deadline:
        reason, code = StopReason.BUDGET, ExitCode.OK
    evals = run.evals
    baseline = stored_results(evals, "baseline")
    final = stored_results(evals, "final") if reason is StopReason.BUDGET else None
    if final is not None and steps == 0:
        final = baseline
    if unjudged(recipe, reason, final):
        code = ExitCode.REFUSED
    newest = run.newest_checkpoint()
    return RunFinished(
        stop_reason=reason,
        exit_code=int(code),
        steps=steps,
        train_s=account.trained_s,
        baseline=brief(baseline),
        final=brief(final) if final else None,
        difference=differences(evals, final) if final and steps else None,
        best_checkpoint=run.relative(newest.path) if newest else None,
    )
