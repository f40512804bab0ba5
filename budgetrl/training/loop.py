"""One attempt of a run, from recipe to trained adapter: the file to read to understand budgetrl.

    download -> open engine -> load problems -> build reward and trainer -> preflight
      -> baseline evaluation -> train -> final evaluation of the selected checkpoint -> finish

The worker process calls `train`; everything it does is visible in the run's events.
"""

from dataclasses import replace
from typing import Any, NamedTuple

from budgetrl.budget import BASELINE_SHARE
from budgetrl.documents import read_pins
from budgetrl.engine import open_engine
from budgetrl.errors import ExitCode
from budgetrl.estimation.share import with_share
from budgetrl.evaluation.outcome import brief, differences
from budgetrl.events import RunFinished
from budgetrl.history import History, read_history
from budgetrl.recipe.schema import Recipe
from budgetrl.rewards.worker import GradingPool
from budgetrl.rundir import PLAN, RunDir
from budgetrl.training.callbacks import StepCallback
from budgetrl.training.checkpoints import load_adapter_weights, read_state, restore_rng
from budgetrl.training.download import bring
from budgetrl.training.evals import Evaluator
from budgetrl.training.log import RunLog, announce
from budgetrl.training.preflight import preflight
from budgetrl.training.setup import prepare
from budgetrl.training.stopper import StepAborted, Stopper
from budgetrl.types import EvalResult, StopReason

END_MARGIN_S = 0.5
"""Between the end of the final evaluation and the worker's deadline."""


class Outcome(NamedTuple):
    """How an attempt ended."""

    stop_reason: StopReason
    exit_code: ExitCode


def train(
    run: RunDir, recipe: Recipe, log: RunLog, stopper: Stopper, *, allow_code: bool = False
) -> Outcome:
    """Run one attempt, from the newest complete checkpoint if there is one, to its end."""
    before = read_history(run)
    announce(run, recipe, log, before)
    bring(read_pins(run), log)
    with GradingPool() as pool:
        pool.start()
        with log.phase("model"):
            engine: Any = open_engine(with_share(recipe), run.path)
        with log.phase("data"):
            bench = prepare(run, recipe, engine, pool, log, allow_code)
            follower = preflight(run, recipe, engine, bench, log, stopper)
        baseline = _baseline(run, bench.evaluator, log, stopper, before)
        if not stopper.requested():
            _learn(run, follower, log, baseline)
        follower.tracker.finish()
        final = _final(run, engine, follower, log, baseline)
        follower.tracker.wait(log.ledger.remaining_s, stopper.requested())
        return _finish(follower, log, baseline, final)


def _baseline(
    run: RunDir, evaluator: Evaluator, log: RunLog, stopper: Stopper, before: History
) -> dict[str, EvalResult]:
    """The evaluation before the first update, within its share of what is left.

    Where no update fits it is the final evaluation too, and may use all of it.
    """
    trains = run.read_json(PLAN)["plan"]["affordable_steps"] > 0
    keep_s = (1.0 - BASELINE_SHARE) * log.ledger.remaining_s if trains else END_MARGIN_S
    over = stopper.until(lambda: log.ledger.remaining_s - keep_s)
    with log.phase("baseline"):
        announced = {e.suite: e for e in before.evaluations if e.when == "baseline"}
        results = evaluator.evaluate("baseline", 0, over, announced=announced)
        if not before.entropies:
            evaluator.entropy("baseline", 0, over)
    return {suite: _as_measured(result, before) for suite, result in results.items()}


def _as_measured(result: EvalResult, before: History) -> EvalResult:
    """With the seconds of the attempt that generated it; adding it up again takes none."""
    told = before.evaluation("baseline", result.suite)
    return result if told is None else replace(result, seconds=max(result.seconds, told.seconds))


def _learn(
    run: RunDir, follower: StepCallback, log: RunLog, baseline: dict[str, EvalResult]
) -> None:
    """Updates until the steps are done, the budget is used, or somebody stops the run."""
    newest = run.newest_checkpoint()
    follower.stopper.nothing_to_save = False
    follower.learn_from_baseline(baseline)
    if newest is not None:
        state = read_state(newest)
        follower.restore(newest.step, state)
        restore_rng(state)
    if not follower.begin():
        return
    with log.phase("train"):
        try:
            resume_from = None if newest is None else str(newest.path)
            follower.trainer.train(resume_from_checkpoint=resume_from)
        except StepAborted:
            follower.stop_reason = follower.stopper.reason or StopReason.BUDGET
    with log.phase("checkpoint"):
        follower.save("end")


def _final(
    run: RunDir,
    engine: Any,
    follower: StepCallback,
    log: RunLog,
    baseline: dict[str, EvalResult],
) -> dict[str, EvalResult] | None:
    """The evaluation of the selected checkpoint; the baseline's where nothing was trained."""
    stopper, steps = follower.stopper, follower.steps
    if stopper.interrupted():
        return None
    if steps == 0:
        return baseline
    over = stopper.until(lambda: log.ledger.remaining_s - END_MARGIN_S)
    with log.phase("final"):
        best = follower.best_step()
        if best is not None and best != steps:
            load_adapter_weights(engine.model, run.checkpoint_path(best))
        final = follower.evaluator.evaluate("final", steps, over)
        follower.evaluator.entropy("final", steps, over)
    return None if stopper.interrupted() else final


def _finish(
    follower: StepCallback,
    log: RunLog,
    baseline: dict[str, EvalResult],
    final: dict[str, EvalResult] | None,
) -> Outcome:
    stopper = follower.stopper
    reason = stopper.reason or follower.stop_reason or StopReason.COMPLETED
    trained = bool(final) and follower.steps > 0
    log.emit(
        RunFinished(
            stop_reason=reason,
            exit_code=int(stopper.exit_code),
            steps=follower.steps,
            train_s=log.ledger.train_s,
            baseline=brief(baseline),
            final=None if final is None else brief(final),
            difference=differences(follower.run.path / "evals", final or {}) if trained else None,
            best_checkpoint=follower.best_checkpoint(),
        )
    )
    return Outcome(reason, stopper.exit_code)
