"""The worker process: `python -m budgetrl.training RUN_DIR < ATTEMPT`, started by the supervisor.

Light until the first event is written; torch and its family are imported in the phase "imports".
"""

import os
import sys
import traceback
from pathlib import Path

from budgetrl.account.ending import brief, stored_results
from budgetrl.budget import PhaseTimes
from budgetrl.engine import import_first
from budgetrl.errors import OUT_OF_MEMORY_EXIT, BudgetRLError, ExitCode, is_out_of_memory
from budgetrl.events import Error, RunFinished
from budgetrl.garbage import kept_for_good
from budgetrl.history import read_history
from budgetrl.masking import keep_secret, mask_output
from budgetrl.phases import PHASES
from budgetrl.recipe.schema import Recipe
from budgetrl.run_files import read_plan, read_recipe, rehearsed_micro_batch
from budgetrl.rundir import RunDir
from budgetrl.training.attempt import Attempt
from budgetrl.training.log import RunLog, stamp_of
from budgetrl.training.on_finish import run_on_finish
from budgetrl.training.stopper import Stopper
from budgetrl.types import StopReason


def main(run: RunDir, attempt: Attempt) -> int:
    """Run one attempt; returns the exit code."""
    mask_output()
    stopper = Stopper(attempt.supervisor)
    # Imports and loading cannot be aborted and may take long; so far nothing would be lost.
    stopper.nothing_to_save = True
    stopper.install()
    try:
        return _train(run, attempt, stopper)
    finally:
        if attempt.on_finish is not None and stopper.supervisor_is_gone():
            run_on_finish(attempt.on_finish, run)


def _train(run: RunDir, attempt: Attempt, stopper: Stopper) -> int:
    recipe = read_recipe(run)
    keep_secret(recipe.model_dump(mode="json"))
    if attempt.micro_batch is not None:
        recipe = recipe.with_micro_batch(attempt.micro_batch)
    ledger, expected = attempt.ledger(), _expected(read_plan(run).times)
    with run.writer(stamp_of(ledger, attempt.number)) as writer:
        run.clear_temporary()
        log = RunLog(writer, ledger, expected)
        try:
            with log.phase("imports"), kept_for_good():
                import_first(recipe, run.path)
                from budgetrl.training.loop import train
                from budgetrl.training.stage import import_trainers

                import_trainers(recipe)
            outcome = train(run, recipe, log, stopper, allow_code=attempt.allow_code)
            return int(outcome.exit_code)
        except BudgetRLError as error:
            traceback.print_exc()
            return _failed(
                log, run, type(error).__name__, error.message, error.hint, error.exit_code
            )
        except Exception as error:  # the reason is recorded, whatever it is, and the run ends
            traceback.print_exc()
            if is_out_of_memory(error):
                return _out_of_memory(log, run, recipe, error)
            message = f"{type(error).__name__}: {error}"
            hint = f"The traceback is in {run.worker_log}."
            return _failed(log, run, type(error).__name__, message, hint, ExitCode.FAILED)


def _failed(
    log: RunLog, run: RunDir, kind: str, message: str, hint: str, exit_code: ExitCode
) -> int:
    log.emit(Error(type=kind, message=message, hint=hint, exit_code=int(exit_code)))
    steps, newest = read_history(run).steps, run.newest_checkpoint()
    log.emit(
        RunFinished(
            stop_reason=StopReason.FAILED,
            exit_code=int(exit_code),
            steps=steps[-1].step if steps else 0,
            train_s=log.ledger.train_s,
            baseline=brief(stored_results(run.evals, "baseline")),
            best_checkpoint=run.relative(newest.path) if newest else None,
        )
    )
    return int(exit_code)


def _out_of_memory(log: RunLog, run: RunDir, recipe: Recipe, error: Exception) -> int:
    """No end of the run: the supervisor decides whether smaller micro-batches are tried."""
    micro_batch = rehearsed_micro_batch(run, recipe)
    whose = "this machine's" if recipe.engine.device == "cpu" else "the GPU's"
    what = f"{whose} memory is used up at batch.micro_batch = {micro_batch}: {error}"
    hint = (
        f"Where the run does not go on by itself: `budgetrl resume {run.path}` tries half of that; "
        "or start a new run with a smaller sampling.max_tokens, or where there is more memory."
    )
    kind = type(error).__name__
    log.emit(Error(type=kind, message=what, hint=hint, exit_code=OUT_OF_MEMORY_EXIT))
    return OUT_OF_MEMORY_EXIT


def _expected(times: PhaseTimes) -> dict[str, float]:
    """Expected seconds by phase name, from the plan."""
    always = [name for name, kind in PHASES.items() if kind.always]
    planned = {name: getattr(times, f"{name}_s") for name in always if hasattr(times, f"{name}_s")}
    return {**planned, "checkpoint": times.save_s}


if __name__ == "__main__":
    code = main(RunDir(Path(sys.argv[1])), Attempt.from_json(sys.stdin.read()))
    sys.stdout.flush()
    sys.stderr.flush()
    # Leaves without torch's teardown, which can take seconds; every file is closed.
    os._exit(code)
