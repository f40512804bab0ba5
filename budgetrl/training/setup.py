"""Everything between an open engine and the first update: problems, suites, rewards, trainer.

Checks what only a tokenizer can tell (prompt lengths, the model's window) and writes down what
was loaded in the manifest.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from budgetrl.budget import PhaseTimes
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.sampler import ProblemSampler
from budgetrl.data.usable import load_usable
from budgetrl.diagnosis.story import tell
from budgetrl.engine.base import ModelEngine
from budgetrl.engine.teacher import LoadedTeacher, open_teacher
from budgetrl.estimation.scenario import expected_samples
from budgetrl.evaluation.suite import prompted
from budgetrl.evaluation.think import think_budget
from budgetrl.forecast import Forecaster
from budgetrl.grading.rules import GRADER_VERSION
from budgetrl.history import History, read_history
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.window import check_window
from budgetrl.rewards.pool import GradingPool
from budgetrl.rewards.registry import RewardSum
from budgetrl.run_files import planned_times, prompt_moment, read_manifest
from budgetrl.rundir import RunDir
from budgetrl.training.alarms import Alarms, Watch
from budgetrl.training.callbacks import StepCallback
from budgetrl.training.checkpoints import read_state
from budgetrl.training.clock import PhaseClock
from budgetrl.training.distil import PROBE, check_prompts
from budgetrl.training.evals import Evaluator
from budgetrl.training.kinds import build
from budgetrl.training.leftovers import Leftovers
from budgetrl.training.log import RunLog
from budgetrl.training.progress import Progress
from budgetrl.training.stage import TrainerParts
from budgetrl.training.stopper import Stopper
from budgetrl.training.supplies import Supplier, Supply, describe, staged, tell_left_out
from budgetrl.training.trackers import TrackerThread, open_tracker
from budgetrl.training.trl_args import UNLIMITED_STEPS

RENEWING = ("eval.", "data: eval.", "model: ", "versions: ")
"""Changes between attempts after which evaluations may be under another protocol."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an attempt trains and evaluates with."""

    run: RunDir
    engine: ModelEngine
    log: RunLog
    stopper: Stopper
    renderer: PromptRenderer
    sampler: ProblemSampler
    evaluator: Evaluator
    reward: RewardSum
    progress: Progress
    """The stage that sampler and reward are of."""
    recipes: list[Recipe]
    """Of each stage, with micro-batches that fit once the preflight has tried them."""
    clean: Leftovers
    """The model before any trainer had it."""
    _supplies: tuple[Supply, ...]
    teacher: LoadedTeacher | None = None

    @property
    def recipe(self) -> Recipe:
        """Of the stage."""
        return self.recipes[self.progress.index]

    def at(self, progress: Progress) -> "Prepared":
        """The same for another stage."""
        sampler, reward = self._supplies[progress.index]
        return replace(self, sampler=sampler, reward=reward, progress=progress)


def prepare(
    run: RunDir,
    recipe: Recipe,
    engine: ModelEngine,
    pool: GradingPool,
    log: RunLog,
    stopper: Stopper,
    *,
    allow_code: bool = False,
) -> Prepared:
    """Load and check problems and suites, and build the reward.

    Raises:
        DataError: unusable rows, or nothing left to train on.
        RecipeError: prompts and completions exceed the model's window.
    """
    check_window(recipe, engine.context_tokens)
    manifest, moment = read_manifest(run), prompt_moment(run)
    renderer = PromptRenderer(engine.tokenizer, recipe.prompt, moment)
    if "fingerprint" not in manifest.prompt:
        for code, remark in renderer.remarks().items():
            log.warn(code, remark)
    if engine.without_adapter:
        names = ", ".join(engine.without_adapter)
        remark = f"all-linear leaves out {names}: the model would not use an adapter there"
        log.warn("layers_without_adapter", remark)
    usable = load_usable(recipe, renderer, pool.gold_problems, engine.context_tokens)
    tell_left_out(usable, recipe, log)
    problems, suites = usable.problems, usable.suites
    standings = manifest.attempts
    supplier = Supplier(
        recipe=recipe,
        renderer=renderer,
        engine=engine,
        pool=pool,
        usable=usable,
        log=log,
        allow_code=allow_code,
        reward_files=standings[-1].reward_files if standings else None,
    )
    recipes = list(recipe.parts)
    supplies = tuple(supplier.of(part, stage) for part, stage in staged(recipe, recipes))
    run.note(
        engine=engine.describe(),
        data=describe(usable.loaded) | {"used": len(problems)},
        suites={name: describe(suite) for name, suite in suites.items()},
        prompt={
            "fingerprint": renderer.fingerprint(),
            "prefilled": renderer.prefilled,
            "date": renderer.date,
            "moment": None if moment is None else moment.isoformat(),
        },
        grader=GRADER_VERSION,
        **supplier.manifest(),
    )
    evaluator = Evaluator(
        run=run,
        recipe=recipe,
        engine=engine,
        prompt_date=renderer.date,
        grader=pool,
        suites={name: prompted(renderer, suite.problems) for name, suite in suites.items()},
        budgets={
            spec.suite: think_budget(recipe, spec, engine, renderer.prefilled)
            for spec in recipe.eval
        },
        entropy_prompts=prompted(renderer, problems[: recipe.entropy.prompts]),
        log=log,
        clock=log.ledger.clock,
        renew=any(
            str(change["key"]).startswith(RENEWING)
            for standing in standings[-1:]
            for change in standing.changes
        ),
    )
    progress = stage_of_checkpoint(run, recipe)
    sampler, reward = supplies[progress.index]
    return Prepared(
        run,
        engine,
        log,
        stopper,
        renderer,
        sampler,
        evaluator,
        reward,
        progress,
        recipes,
        Leftovers.of(engine.model),
        supplies,
        _teacher(recipe, engine, renderer, moment),
    )


def _teacher(
    recipe: Recipe, engine: ModelEngine, renderer: PromptRenderer, moment: datetime | None
) -> LoadedTeacher | None:
    if not recipe.distils:
        return None
    teacher = open_teacher(recipe, engine)
    check_prompts(teacher, renderer.text(PROBE), recipe.prompt, moment)
    return teacher


def stage_of_checkpoint(run: RunDir, recipe: Recipe) -> Progress:
    """The stage that this attempt goes on with: that of the newest checkpoint, or the first."""
    if not recipe.stages:
        return Progress()
    newest = run.newest_checkpoint()
    stored = None if newest is None else read_state(newest).get("stage")
    if newest is None or stored is None:
        return Progress(recipe.stages[0])
    return Progress.from_json(recipe.stages, stored, newest.step)


def build_follower(
    prepared: Prepared, recipe: Recipe, before: StepCallback | None = None
) -> StepCallback:
    """The trainer of a recipe, inside the callback that follows it.

    Args:
        prepared: for its stage.
        recipe: of the stage, or of the run that has none.
        before: of the stage before, if it was made in this attempt.
    """
    run, log, stopper = prepared.run, prepared.log, prepared.stopper
    follower: StepCallback
    parts = TrainerParts(
        recipe=recipe,
        engine=prepared.engine,
        sampler=prepared.sampler,
        renderer=prepared.renderer,
        reward=prepared.reward,
        clock=PhaseClock(log.ledger.clock),
        folder=run.scratch("trainer"),
        must_stop=stopper.requested,
        budget_used=lambda: follower.used_share,
        rollout_over=lambda: stopper.requested() or follower.rollout_is_over(),
        progress=prepared.progress,
        teacher=prepared.teacher,
    )
    follower = StepCallback(
        run=run,
        recipe=recipe,
        parts=parts,
        log=log,
        forecaster=_forecaster(planned_times(run, prepared.progress.name), recipe),
        evaluator=prepared.evaluator,
        alarms=Alarms(
            {name: 1.0 for name in ("accuracy", "format") if name in recipe.reward_names}
        ),
        watch=Watch(lambda: tell(log.history, recipe)),
        stopper=stopper,
        tracker=before.tracker if before is not None else _open_tracker(run, recipe, log),
    )
    if before is not None:
        follower.take_over(before)
    steps = recipe.schedule.stop_after_steps or UNLIMITED_STEPS
    if prepared.progress.stage is not None:
        steps = UNLIMITED_STEPS  # a stage may be extended, and says itself when it is over
    follower.trainer = build(parts, steps, [follower])
    return follower


def _open_tracker(run: RunDir, recipe: Recipe, log: RunLog) -> TrackerThread:
    """Only a tracker needs the events as they are written, with this attempt's number."""
    history = History() if recipe.tracker.kind == "none" else read_history(run)
    return open_tracker(run, recipe, history, log.warn)


def _forecaster(times: PhaseTimes | None, recipe: Recipe) -> Forecaster:
    """What the plan says of updates, evaluations and checkpoints, before any was measured."""
    rounds = max(map(expected_samples, recipe.eval), default=1)
    if times is None:
        return Forecaster(0.0, 0.0, 0.0, 0.0, rounds=rounds)
    every = times.step_evals_every
    return Forecaster(
        planned_step_s=times.step_s,
        baseline_eval_s=times.final_s,
        baseline_tokens_mean=0.0,
        save_s=times.save_s,
        planned_early_s=times.early_step_s,
        planned_evals_s=times.step_eval_s / every if every else 0.0,
        rounds=rounds,
    )
