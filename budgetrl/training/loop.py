"""One attempt of a run, from recipe to trained adapter: the file to read to understand budgetrl.

    download -> open engine -> load problems -> build reward and trainer -> preflight
      -> baseline evaluation -> train, stage by stage
      -> final evaluation of the selected checkpoint -> finish

The worker process calls `train`; everything it does is visible in the run's events.

One GRPO update, in the order in which things happen (T: transformers' and TRL's own code; the rest
is ours). Shapes: P prompts of G completions, B = P * G rows; L prompt columns, padded on the left;
C completion columns, padded on the right; R rows in a micro-batch.

    T  on_step_begin          RateCallback: the learning rate of this update            rates.py
    T  training_step          once for each micro-batch; the first one rolls out        trainer.py
    T    _prepare_inputs
           _generate_and_score_completions        the sampler's problems, P of them
    T        _tokenize_prompts                    the renderer's ids, checked before and after
             _generate_single_turn                engine.rollout(ids) -> Rollout, B rows of ids
    T        _get_per_token_logps_and_entropies   a promise (B, C) of zeros, kept below  scoring.py
    T        _calculate_rewards                   score(): text -> grader -> weighted sum, B floats
    T        advantages (B,)                      rewards against the mean of their group
             resample                             groups without signal give way         signal.py
             live (B,), window (B,)               rows that teach; optimiser step of each row
    T      shuffled and split into micro-batches
           repack                                 only live rows, by length, less padding
           keep_promises                          old and reference log-probabilities (R, C)
    T    compute_loss, backward                   of one micro-batch: ids (R, L) and (R, C)
    T  on_pre_optimizer_step  StepCallback: gradients that are not finite are dropped   callbacks.py
    T  optimizer.step
    T  on_log                 StepCallback: step event, completions, alarms, forecast; then
                              evaluation, checkpoint, and whether one more update fits
    T  on_step_begin ...

What passes through, by example (`types.py`, `signal.Batch`, `recorder.StepRecord`):

    Problem("gsm8k-7", "How many are 3 and 4?", answer="7")
    Completion("<think>3 + 4</think> \\boxed{7}", num_tokens=17, truncated=False)
    RewardBreakdown(1.2, {"accuracy": 1.0, "format": 1.0}, Verdict.CORRECT, extracted="7")
    advantages of its group, rewards 1.2 and seven times 0.2: [2.47, -0.35, -0.35, ...]
    Batch {"completion_ids": int64 (128, 64), "advantages": float32 (128,), ...}
    StepRecord(step=12, group_size=8, problems=[16], completions=[128], breakdowns=[128])

A stage that trains on demonstrations has a loop without rollout and rewards: see `training.sft`.
"""

from pathlib import Path
from typing import Any, NamedTuple

from budgetrl.account.ending import brief, differences, shortfall, unjudged
from budgetrl.engine import open_engine
from budgetrl.errors import ExitCode
from budgetrl.estimation.share import with_share
from budgetrl.events import RunFinished
from budgetrl.history import read_history
from budgetrl.recipe.schema import Recipe
from budgetrl.rewards.pool import GradingPool
from budgetrl.run_files import read_pins
from budgetrl.rundir import RunDir
from budgetrl.training.callbacks import StepCallback
from budgetrl.training.checkpoints import load_trained, read_state, restore_rng
from budgetrl.training.course import Course
from budgetrl.training.download import bring
from budgetrl.training.log import RunLog, announce
from budgetrl.training.opening import learn_from_baseline, open_with_baseline, until_end
from budgetrl.training.preflight import preflight
from budgetrl.training.replan import replan
from budgetrl.training.setup import prepare
from budgetrl.training.stopper import Stopper
from budgetrl.types import EvalResult, StopReason


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
            start = None if recipe.model.adapter is None else Path(recipe.model.adapter)
            engine: Any = open_engine(with_share(recipe), run.path, start)
        with log.phase("data"):
            prepared = prepare(run, recipe, engine, pool, log, stopper, allow_code=allow_code)
            follower = preflight(prepared, recipe)
        with log.phase("baseline"):
            baseline = open_with_baseline(follower, before)
        if not stopper.requested():
            follower = _learn(Course(prepared, recipe), follower, baseline)
            log.stage = None
        follower.tracker.finish()
        final = _final(run, engine, follower, log, baseline)
        follower.tracker.wait(log.ledger.remaining_s, stopper.requested())
        return _finish(follower, log, baseline, final)


def _learn(course: Course, follower: StepCallback, baseline: dict[str, EvalResult]) -> StepCallback:
    """Updates until the steps are done, the budget is used, or somebody stops the run.

    Returns:
        what followed the last of them.
    """
    newest = follower.run.newest_checkpoint()
    follower.stopper.nothing_to_save = False
    learn_from_baseline(follower.forecaster, baseline)
    staged = follower.progress.stage is not None
    if newest is None and follower.recipe.engine.device == "cpu" and not staged:
        replan(follower, baseline)
    if newest is not None:
        state = read_state(newest)
        follower.restore(newest.step, state)
        restore_rng(state)
    return course.make(follower, newest)


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
    over, rounds = until_end(follower), follower.evaluator.final_rounds
    with log.phase("final", follower.forecaster.expected_final_s):
        best = follower.saver.best_step()
        if best is not None and best != steps:
            load_trained(engine.model, run.checkpoint_path(best))
        final = follower.evaluator.evaluate("final", steps, over, rounds=rounds)
        if rounds is None:
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
    exit_code = stopper.exit_code
    if unjudged(follower.recipe, reason, final):
        exit_code = ExitCode.REFUSED
        log.emit(shortfall(follower.steps, log.ledger.spend()))
    log.emit(
        RunFinished(
            stop_reason=reason,
            exit_code=int(exit_code),
            steps=follower.steps,
            train_s=log.ledger.train_s,
            baseline=brief(baseline),
            final=brief(final) if final else None,
            difference=differences(follower.run.evals, final or {}) if trained else None,
            best_checkpoint=follower.saver.best_checkpoint(),
        )
    )
    return Outcome(reason, exit_code)
