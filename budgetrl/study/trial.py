"""One trial of a sweep, on whatever machine: a normal run directory, begun or gone on with.

    ended = run_trial(Job(...), display)        the same in this process and in a worker of Ray

A machine that sees the sweep's directory works in it. One that does not works under the same path
on its own disk; `checkpoint.mirror`, which all machines see, carries the run to the next.
"""

import math
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from budgetrl.account.run import Account, last_beat
from budgetrl.budget import Limits
from budgetrl.display.base import Display
from budgetrl.errors import BudgetError, BudgetRLError
from budgetrl.evaluation.rounds import judge_rounds
from budgetrl.evaluation.rows import load_eval
from budgetrl.history import read_history
from budgetrl.plan import make_plan, replanned
from budgetrl.recipe.eval_tables import Eval
from budgetrl.recipe.load import LoadedRecipe
from budgetrl.recipe.schema import Recipe
from budgetrl.run_files import prompt_moment
from budgetrl.rundir import SUPERVISOR_LOCK, RunDir
from budgetrl.supervise.resume import continue_run
from budgetrl.supervise.run import Ended, start_run
from budgetrl.types import RunStatus

_CUT_OFF = (RunStatus.CRASHED, RunStatus.INTERRUPTED)
ORPHAN_S = 60.0
"""What the worker of a trial whose supervisor was killed has to save and leave."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a trial is run with; whole by itself, for it may go to another machine."""

    index: int
    place: str
    """For people: which trial of how many, and what it is."""
    folder: Path
    """Of the sweep."""
    run: str
    """Name of the trial's run directory, which may exist."""
    loaded: LoadedRecipe
    budget_s: float
    """Wall seconds of the trial itself."""
    end_t: float
    """Unix seconds at which the sweep's budget ends."""
    most_s: float
    """What was left of it when the job was handed out: clocks of machines differ."""
    usd_per_hour: float | None
    siblings: tuple[str, ...] = ()
    """Names of runs on the same model, whose baseline evaluations may be complete."""
    command: tuple[str, ...] = ()
    """What the user typed."""
    gpu: str | None = None
    started: float | None = None
    """Monotonic seconds at which this trial began to cost; None: now."""
    sets: tuple[str, ...] = ()
    """What a trial that goes on does otherwise than before."""
    allow_code: bool = False
    """Whether rewards of the user may be imported."""
    report: bool = True
    """Whether to write the run's own; not where it may go on."""

    @property
    def left_s(self) -> float:
        """Until the sweep's budget ends."""
        return min(self.most_s, self.end_t - time.time())


@dataclass(frozen=True, slots=True)
class Done:
    """How a trial came out of a job."""

    index: int
    exit_code: int = 0
    error: str | None = None
    """Why it could not begin or go on."""
    lost: bool = False
    """Its process or machine is gone, or another process still runs it; it may go on elsewhere."""


def run_trial(job: Job, display: Display, stop: threading.Event | None = None) -> Done:
    """A trial to its end, unless it has ended before.

    Args:
        job: the trial.
        display: shows it.
        stop: once it is set the trial saves and leaves, as after Ctrl-C.
    """
    here = RunDir(job.folder / job.run)
    bring_newer(here, job.loaded.recipe)
    run = here if here.exists() else None
    if run is not None and not _is_left(run):
        display.message(f"{job.place} is still run by another process.")
        return Done(job.index, lost=True)
    started = time.monotonic() if job.started is None else job.started
    try:
        if run is not None and not job.sets and run.status() not in _CUT_OFF:
            return Done(job.index)
        if job.left_s <= 0:
            raise BudgetError("nothing of the sweep's budget is left for it.")
        if run is None:
            display.message(job.place)
            ended = _begin(job, display, started, stop)
        else:
            display.message(f"{job.place}, continued")
            ended = _go_on(job, run, display, started, stop)
    except BudgetRLError as error:
        # The other trials may still work; the sweep says which did not, and why.
        display.message(f"{job.place} did not run: {error.message}")
        return Done(job.index, error=f"{error.name}: {error.message}")
    return Done(job.index, int(ended.exit_code))


def _is_left(run: RunDir) -> bool:
    """Whether nobody runs it, once a worker without its supervisor has had time to leave."""
    until = time.monotonic() + ORPHAN_S
    while run.is_locked() or run.is_locked(SUPERVISOR_LOCK):
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def bring_newer(run: RunDir, recipe: Recipe) -> None:
    """Put a run's second copy in its place if that knows more; a run is whole or not there."""
    copy = _second_copy(recipe, run.name)
    if copy is None or (run.exists() and last_beat(copy) <= last_beat(run)):
        return
    fresh = run.path.with_name(f".tmp-{run.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(copy.path, fresh)
    shutil.rmtree(run.path, ignore_errors=True)
    fresh.rename(run.path)


def _second_copy(recipe: Recipe, name: str) -> RunDir | None:
    """Of a run, if its recipe asks for one and it was made."""
    if recipe.checkpoint.mirror is None:
        return None
    copy = RunDir(Path(recipe.checkpoint.mirror) / name)
    return copy if copy.exists() else None


def _begin(job: Job, display: Display, started: float, stop: threading.Event | None) -> Ended:
    """Without a baseline of its own where a run on the same model has it."""
    limits = Limits(min(job.budget_s, job.left_s), price=job.usd_per_hour)
    planned = make_plan(job.loaded, limits, gpu=job.gpu)
    source = next((run for name in job.siblings if (run := _with_baseline(job, name))), None)
    if source is not None:
        planned = replanned(planned, planned.budget, replace(planned.times, baseline_s=0.0))

    def prepare(run: RunDir) -> None:
        if source is not None:
            _share_baseline(source, run)

    return start_run(
        planned, job.folder, job.command, display, started,
        allow_code=job.allow_code, stop=stop, name=job.run, prepare=prepare, report=job.report,
    )  # fmt: skip


def _go_on(
    job: Job, run: RunDir, display: Display, started: float, stop: threading.Event | None
) -> Ended:
    """With what is left of the trial's own budget, or of the sweep's if that is less.

    A trial that is to make more updates than before has all that is left of the sweep's.
    """
    account, left_s = Account(run, read_history(run)), job.left_s
    own_s = (account.budget_s or math.inf) - account.paid_s
    limits = Limits() if own_s <= left_s and not job.sets else Limits(left_s)
    return continue_run(
        run, limits, display, started,
        allow_code=job.allow_code, sets=job.sets, stop=stop, report=job.report,
    )  # fmt: skip


def _share_baseline(source: RunDir, run: RunDir) -> None:
    """Copy a finished baseline evaluation; the worker then finds it done.

    B = 0 at the start of every trial, so the baseline is the base model's, whatever the rank.
    """
    for file in sorted(source.evals.glob("*/baseline.*")):
        shutil.copy2(file, run.eval_folder(file.parent.name) / file.name)
    moment = prompt_moment(source)
    if moment is not None:  # a template that prints the day would make other prompts
        run.note(prompt={"moment": moment.isoformat()})


def _with_baseline(job: Job, name: str) -> RunDir | None:
    """A run or its second copy that is seen from here, and has all rounds from before training."""
    run = RunDir(job.folder / name)
    found = run if run.exists() else _second_copy(job.loaded.recipe, name)
    wanted = [spec for spec in job.loaded.recipe.eval if "baseline" in spec.when]
    whole = found is not None and wanted and all(_is_complete(found, spec) for spec in wanted)
    return found if whole else None


def _is_complete(run: RunDir, spec: Eval) -> bool:
    try:
        stored = load_eval(run.evals / spec.suite / "baseline.json")
        return judge_rounds(stored.rows, stored.problem_ids, spec.rounds).stopped_by is not None
    except BudgetRLError:  # absent or damaged: the next trial makes its own
        return False
