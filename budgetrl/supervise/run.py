"""Run workers until a run has ended, then make its report."""

import atexit
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from budgetrl.account.ending import last_event, shortfall
from budgetrl.account.result import exit_code_of
from budgetrl.account.run import Account
from budgetrl.display.base import Display
from budgetrl.errors import (
    OUT_OF_MEMORY_EXIT,
    BudgetRLError,
    ExitCode,
    HardwareError,
    RunDirError,
)
from budgetrl.evaluation.fingerprints import reward_files
from budgetrl.events import Error, RunFinished
from budgetrl.history import Followed, History
from budgetrl.plan import Planned, create_run
from budgetrl.rewards.registry import refuse_code
from budgetrl.run_files import read_recipe
from budgetrl.rundir import RunDir
from budgetrl.supervise.attempt import smaller_micro_batch
from budgetrl.supervise.closing import Closing
from budgetrl.supervise.ending import ADAPTER_WRITES, finish, record_death, write_report
from budgetrl.supervise.gpu_lock import gpu_of, hold_gpu
from budgetrl.supervise.worker import Signals, Worker
from budgetrl.training.attempt import WRITES_AT_END, Attempt
from budgetrl.training.on_finish import run_on_finish
from budgetrl.types import Spend, StopReason

MAX_RESTARTS = 2
"""Of one supervisor; `budgetrl resume` starts the count anew."""
FROM_OUTSIDE = (OUT_OF_MEMORY_EXIT, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
"""Exit codes of workers that others may get further than."""


class Ended(NamedTuple):
    """How a supervised run ended."""

    result: dict[str, Any]
    exit_code: ExitCode
    finished: RunFinished
    error: Error | None = None
    """What a run that could not be judged says of its cost."""


class SetupError(BudgetRLError):
    """The worker found that the run cannot start; its directory is removed."""

    def __init__(self, kind: str, message: str, hint: str, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self._kind = kind
        self.exit_code = ExitCode(exit_code)

    @property
    def name(self) -> str:
        """The worker's own error."""
        return self._kind


def start_run(
    planned: Planned,
    out: Path,
    command: Sequence[str],
    display: Display,
    started: float,
    *,
    on_finish: str | None = None,
    allow_code: bool = False,
    stop: threading.Event | None = None,
    name: str | None = None,
    prepare: Callable[[RunDir], None] | None = None,
    report: bool = True,
) -> Ended:
    """Make the directory of a planned run, and run it; from here on signals end it as interrupted.

    Args:
        planned: the run.
        out: folder of the run directory.
        command: what the user typed.
        display: shows the run.
        started: monotonic seconds at which this process began to cost.
        on_finish: shell command that is run at every end, such as one that stops the machine.
        allow_code: whether rewards of the user may be imported.
        stop: once it is set the run is interrupted.
        name: of the run directory; None: a new one.
        prepare: puts files of other runs into it.
        report: as in `supervise`.

    Raises:
        RecipeError: there are some, and they may not.
        HardwareError, SetupError, RunDirError: as `supervise`.
    """
    for reward in reward_files(planned.recipe):
        refuse_code(reward, allow_code)
    with Signals(stop) as signals:
        run = create_run(planned, out, command, name=name)
        if prepare is not None:
            prepare(run)
        with run.supervised():
            display.start(run)
            attempt = Attempt.first(run, started, allow_code=allow_code, on_finish=on_finish)
            return supervise(run, attempt, display, signals, report=report)


def supervise(
    run: RunDir,
    attempt: Attempt,
    display: Display,
    signals: Signals,
    *,
    report: bool = True,
    followed: Followed | None = None,
) -> Ended:
    """Run workers until the run has ended, then make the report.

    Args:
        run: planned, or to be continued; the caller holds it (`RunDir.supervised`).
        attempt: what the first worker may use.
        display: shows the run.
        signals: noted while the caller holds them.
        report: False where the run goes on soon.
        followed: its events, as far as the caller has read them.

    Raises:
        HardwareError: another run has the GPU; a new run's directory is gone.
        SetupError: the first worker refused to start; the run directory is gone.
        RunDirError: somebody removed the run directory, or it cannot be written.
    """
    with ExitStack() as held:
        try:
            gpu = held.enter_context(hold_gpu(gpu_of(run), run.path, attempt.end))
        except HardwareError:
            _remove_unstarted(run, attempt)
            raise
        # Not if another run has the GPU, for its machine must go on.
        call_at_end(attempt.on_finish, run)
        ended = _to_its_end(run, attempt, display, signals, gpu, report, followed or Followed(run))
        display.close(ended.finished)
        return ended


def call_at_end(on_finish: str | None, run: RunDir) -> None:
    """Have a command run when this process ends.

    Only then the result or the error is printed, and the command may stop the machine; and the
    locks are free, for it may start the next run.
    """
    if on_finish is not None:
        atexit.register(run_on_finish, on_finish, run)


def _to_its_end(
    run: RunDir,
    attempt: Attempt,
    display: Display,
    signals: Signals,
    gpu: int | None,
    report: bool,
    followed: Followed,
) -> Ended:
    """One worker after the other, and the report."""
    tried: set[int] = set()
    slow_s = 0.0
    closing = Closing()
    while True:
        worker = Worker(run, attempt, signals, display, closing, gpu, followed)
        exit_code = worker.watch()
        if not run.exists():
            raise RunDirError(f"the run directory {run.path} was removed while the run lasted.")
        slow_s = max(slow_s, worker.slow_s)
        history = followed.history
        ended = history.finished
        if ended is not None and ended.attempt == attempt.number:
            break
        attempt = replace(attempt, trained_s=worker.trained_s)
        from_step = _newest_step(run)
        again = _can_restart(attempt, signals, tried, from_step, exit_code)
        if exit_code == OUT_OF_MEMORY_EXIT:
            micro_batch = smaller_micro_batch(run, attempt.micro_batch)
            again = again and micro_batch is not None
            attempt = replace(attempt, micro_batch=micro_batch)
        try:
            record_death(
                run,
                attempt,
                exit_code,
                history,
                signals,
                again=again,
                at_deadline=worker.at_deadline,
            )
        except RunDirError:  # the worker of a supervisor that was killed still writes
            raise
        except OSError as error:
            display.message(f"the end of the run could not be written down: {error}")
            again = False
        if not again:
            break
        tried.add(from_step)
        attempt = replace(attempt, number=attempt.number + 1)
    with closing.measured():
        followed.read()
        _raise_setup_error(run, attempt, history)
        if history.finished is None:
            account, received = Account(run, history), signals.received
            history.finished = last_event(account, read_recipe(run), received, at_deadline=False)
    exit_code, steps = exit_code_of(history.finished), history.finished.steps
    told = steps or exit_code is not ExitCode.REFUSED  # else there is nothing to report
    if told and report:
        left_by = min(attempt.end, signals.leave_by(attempt.grace_s))
        writes_s = (WRITES_AT_END + ADAPTER_WRITES) * slow_s
        write_report(run, left_by - closing.reserve_s - writes_s, display)
    with closing.measured():
        result = finish(run, attempt, history, closing, slow_s)
    closing.store()
    if exit_code is not ExitCode.REFUSED:
        return Ended(result, exit_code, history.finished)
    spent = result["spent"]
    spend = Spend(spent["wall_s"], spent["train_s"], spent["usd"])
    return Ended(result, exit_code, history.finished, shortfall(steps, spend))


def _newest_step(run: RunDir) -> int:
    newest = run.newest_checkpoint()
    return newest.step if newest is not None else 0


def _can_restart(
    attempt: Attempt, signals: Signals, tried: set[int], from_step: int, exit_code: int
) -> bool:
    """Whether another worker may get further: not after an error that it would meet again.

    Signals and used up memory come from outside; all else is an exception of Python's.
    """
    if exit_code > 0 and exit_code not in FROM_OUTSIDE:
        return False
    left = attempt.deadline - time.monotonic()
    fresh = from_step not in tried and len(tried) < MAX_RESTARTS
    return fresh and not signals.received and left > max(5.0, 3 * attempt.save_s)


def _raise_setup_error(run: RunDir, attempt: Attempt, history: History) -> None:
    """A user error or refusal of the first worker: its message, and no directory left behind."""
    finished = history.finished
    if finished is None or finished.stop_reason is not StopReason.FAILED:
        return
    if finished.exit_code not in (ExitCode.USER, ExitCode.REFUSED):
        return
    error = history.errors[-1]
    _remove_unstarted(run, attempt)
    raise SetupError(error.type, error.message, error.hint, finished.exit_code)


def _remove_unstarted(run: RunDir, attempt: Attempt) -> None:
    if attempt.number == 1:
        shutil.rmtree(run.path, ignore_errors=True)
