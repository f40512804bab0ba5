"""Run a study: arm after arm, each a normal run directory, all inside one budget.

    plan_study(...) -> StudyDir.create(...) -> run_study(study, ...)    or open_study -> run_study

A killed study goes on where it was: finished arms stand, an arm that was cut off is resumed. An
arm that fails is shown and does not stop the others. What is left over stays unspent.
"""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from budgetrl.budget import Budget, Limits, plan
from budgetrl.display.base import GuardedDisplay
from budgetrl.documents import prompt_moment
from budgetrl.errors import BudgetError, BudgetRLError, DataError, ExitCode, RunDirError
from budgetrl.estimation.profile import run_recipe
from budgetrl.evaluation.rounds import judge_rounds
from budgetrl.evaluation.rows import load_eval
from budgetrl.history import read_history
from budgetrl.plan import Planned, create_run, make_plan
from budgetrl.recipe.eval_tables import Rounds
from budgetrl.recipe.load import LoadedRecipe
from budgetrl.rundir import MANIFEST, RunDir
from budgetrl.study.state import ArmState, StudyDir
from budgetrl.supervise.attempt import Attempt, paid_seconds
from budgetrl.supervise.ending import HARD_MARGIN_S, run_reporter
from budgetrl.supervise.resume import continue_run
from budgetrl.supervise.run import Ended, supervise
from budgetrl.supervise.worker import Signals
from budgetrl.types import RunStatus
from budgetrl.units import duration

OpenDisplay = Callable[[], AbstractContextManager[GuardedDisplay]]
"""A fresh display for every arm."""
_STOPPED = (ExitCode.INTERRUPTED, ExitCode.TERMINATED)


def run_study(
    study: StudyDir, open_display: OpenDisplay, started: float, *, gpu: str | None = None
) -> ExitCode:
    """Run what is left of a study, and make its report.

    Args:
        study: new, or one that was cut off.
        open_display: shows one arm.
        started: monotonic seconds at which this process began to cost.
        gpu: name of the GPU to plan for.

    Returns:
        0, or how the user ended it (130, 143).

    Raises:
        RunDirError: another process runs one of its arms.
    """
    paid_before_s = study.paid_s()

    def elapsed_s() -> float:
        return paid_before_s + time.monotonic() - started

    for index in range(len(study.arms)):
        left_s = study.budget.wall_s - study.report_s - elapsed_s()
        with open_display() as display:
            code = _run_arm(study, index, left_s, display, started if index == 0 else None, gpu)
        study.note_paid(elapsed_s())
        if code in _STOPPED:
            return code
    end = started + study.budget.wall_s - paid_before_s
    with open_display() as display:
        command = [sys.executable, "-m", "budgetrl", "report", str(study.path), "--json"]
        run_reporter(command, study.path / "report.log", end - HARD_MARGIN_S, display)
    study.note_paid(elapsed_s())
    return ExitCode.OK


def _run_arm(
    study: StudyDir,
    index: int,
    left_s: float,
    display: GuardedDisplay,
    started: float | None,
    gpu: str | None,
) -> ExitCode:
    """One arm to its end, unless it has ended before."""
    arm, run = study.arms[index], study.run_of(study.arms[index])
    place = f"arm {index + 1} of {len(study.arms)}: {arm.spec.label}"
    if run is not None and run.status() is RunStatus.RUNNING:
        raise RunDirError(
            f"{run.path} is running.", hint=f"Look at it with `budgetrl watch {run.path}`."
        )
    try:
        if run is None:
            display.message(place)
            ended = _begin(study, index, left_s, display, started or time.monotonic(), gpu)
        elif run.status() in (RunStatus.CRASHED, RunStatus.INTERRUPTED):
            display.message(f"{place}, continued")
            ended = _go_on(run, left_s, display, started or time.monotonic())
        else:
            return ExitCode.OK
    except BudgetRLError as error:
        # The other arms may still work; the study says which did not, and why.
        display.message(f"{place} did not run: {error.message}")
        study.update(index, error=f"{error.name}: {error.message}")
        return ExitCode.OK
    return ExitCode(ended.exit_code)


def _begin(
    study: StudyDir,
    index: int,
    left_s: float,
    display: GuardedDisplay,
    started: float,
    gpu: str | None,
) -> Ended:
    arm = study.arms[index]
    loaded = _loaded(study, arm)
    source = _baseline_source(study, loaded.recipe.model.id)
    budget_s = min(arm.row["budget_s"], left_s)
    planned = _planned(loaded, budget_s, study.budget, gpu, has_baseline=source is not None)
    command = ["budgetrl", *sys.argv[1:]]
    run = create_run(planned, study.path, command)
    study.update(index, run=run.name)
    if source is not None:
        _share_baseline(source, run)
    display.start(run)
    attempt = Attempt.first(run, started, allow_code=False)
    with Signals() as signals, run.supervised():
        return supervise(run, attempt, display, signals)


def _loaded(study: StudyDir, arm: ArmState) -> LoadedRecipe:
    """The arm's recipe, with its number of updates where all arms make as many."""
    if study.config["split"] == "steps":
        return arm.spec.load(f"schedule.stop_after_steps={arm.row['planned_steps']}")
    return arm.spec.load()


def _planned(
    loaded: LoadedRecipe, budget_s: float, whole: Budget, gpu: str | None, *, has_baseline: bool
) -> Planned:
    """The arm's plan; without a baseline where an arm on the same model has it."""
    if budget_s <= 0:
        raise BudgetError("nothing of the study's budget is left for it.")
    limits = Limits(budget_s, price=whole.usd_per_hour)
    made = make_plan(loaded, limits, gpu=gpu)
    if not has_baseline:
        return made
    times = replace(made.times, baseline_s=0.0)
    bought = plan(times, made.budget, loaded.recipe.schedule.stop_after_steps)
    return replace(made, times=times, plan=bought)


def _share_baseline(source: RunDir, run: RunDir) -> None:
    """Copy a finished baseline evaluation; the worker then finds it done.

    B = 0 at the start of every arm, so the baseline is the base model's, whatever the rank.
    """
    for file in sorted((source.path / "evals").glob("*/baseline.*")):
        shutil.copy2(file, run.eval_folder(file.parent.name) / file.name)
    moment = prompt_moment(source)
    if moment is not None:  # a template that prints the day would make other prompts
        manifest = run.read_json(MANIFEST)
        run.write_json(MANIFEST, manifest | {"prompt": {"moment": moment.isoformat()}})


def _baseline_source(study: StudyDir, model: str) -> RunDir | None:
    """The first run on a model whose baseline evaluations are all complete."""
    for run in study.runs():
        recipe = run_recipe(run)
        if recipe.model.id != model:
            continue
        wanted = {s.suite: s.rounds for s in recipe.eval if "baseline" in s.when}
        if wanted and all(_is_complete(run.path, name, n) for name, n in wanted.items()):
            return run
    return None


def _is_complete(run: Path, suite: str, wanted: Rounds) -> bool:
    try:
        stored = load_eval(run / "evals" / suite / "baseline.json")
        return judge_rounds(stored.rows, stored.problem_ids, wanted).stopped_by is not None
    except DataError:  # absent or damaged: the next arm makes its own
        return False


def _go_on(run: RunDir, left_s: float, display: GuardedDisplay, started: float) -> Ended:
    """Continue an arm with what is left of its own budget, or of the study's if that is less."""
    attempt = Attempt.first(run, started, allow_code=False)
    own_s = attempt.budget.wall_s - paid_seconds(run, read_history(run))
    if own_s <= left_s:
        return continue_run(run, Limits(), display, started)
    if left_s <= 0:
        raise BudgetError(f"{duration(left_s)} of the study's budget are left for {run.name}.")
    return continue_run(run, Limits(left_s), display, started)


def study_budget(study: StudyDir) -> dict[str, float | None]:
    """Limit and bill of a study, for JSON."""
    whole = study.budget
    paid_s = study.paid_s()
    return {
        "wall_s": whole.wall_s,
        "usd": whole.usd,
        "spent_s": paid_s,
        "spent_usd": whole.usd_of(paid_s),
    }
