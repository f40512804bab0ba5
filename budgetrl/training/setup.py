"""Everything between an open engine and the first update: problems, suites, rewards, trainer.

Checks what only a tokenizer can tell (prompt lengths, the model's window) and writes down what
was loaded in the manifest.
"""

from dataclasses import dataclass
from typing import Any

from budgetrl.budget import PhaseTimes
from budgetrl.data.difficulty import solve_rates
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import LoadedProblems
from budgetrl.data.sampler import ProblemSampler
from budgetrl.data.usable import Usable, load_usable, remark_on_room
from budgetrl.documents import planned_times, prompt_moment, read_standings
from budgetrl.engine.base import TrainableEngine
from budgetrl.estimation.scenario import expected_samples
from budgetrl.evaluation.run import prompted
from budgetrl.evaluation.think import think_budget
from budgetrl.forecast import Forecaster
from budgetrl.grading.rules import GRADER_VERSION
from budgetrl.history import read_history
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.window import check_window
from budgetrl.rewards.pool import GradingPool
from budgetrl.rewards.registry import RewardSum, build_reward
from budgetrl.rundir import MANIFEST, RunDir
from budgetrl.training.alarms import Alarms
from budgetrl.training.callbacks import StepCallback
from budgetrl.training.clock import PhaseClock
from budgetrl.training.evals import Evaluator
from budgetrl.training.log import RunLog
from budgetrl.training.stopper import Stopper
from budgetrl.training.trackers import open_tracker
from budgetrl.training.trainer import TrainerParts, build_trainer
from budgetrl.training.trl_args import UNLIMITED_STEPS

RENEWING = ("eval.", "data: eval.", "model: ", "versions: ")
"""Changes between attempts after which evaluations may be under another protocol."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an attempt trains and evaluates with."""

    run: RunDir
    engine: TrainableEngine
    log: RunLog
    stopper: Stopper
    renderer: PromptRenderer
    sampler: ProblemSampler
    evaluator: Evaluator
    reward: RewardSum


def prepare(
    run: RunDir,
    recipe: Recipe,
    engine: TrainableEngine,
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
    manifest = run.read_json(MANIFEST) or {}
    moment = prompt_moment(run)
    renderer = PromptRenderer(engine.tokenizer, recipe.prompt, moment)
    if "fingerprint" not in manifest.get("prompt", {}):
        for code, remark in renderer.remarks().items():
            log.warn(code, remark)
    usable = load_usable(recipe, renderer, pool.gold_problems, engine.context_tokens)
    _tell_left_out(usable, recipe, log)
    problems, suites = usable.problems, usable.suites
    standings = read_standings(run)
    reward = build_reward(
        recipe.rewards,
        prefilled=renderer.prefilled,
        max_tokens=recipe.sampling.max_tokens,
        pool=pool,
        allow_code=allow_code,
        files=standings[-1].reward_files if standings else None,
    )
    manifest |= {
        "engine": engine.describe(),
        "data": _describe(usable.loaded) | {"used": len(problems)},
        "suites": {name: _describe(suite) for name, suite in suites.items()},
        "prompt": {
            "fingerprint": renderer.fingerprint(),
            "prefilled": renderer.prefilled,
            "date": renderer.date,
            "moment": None if moment is None else moment.isoformat(),
        },
        "grader": GRADER_VERSION,
    }
    run.write_json(MANIFEST, manifest)
    evaluator = Evaluator(
        run=run,
        recipe=recipe,
        engine=engine,
        prompt_date=renderer.date,
        grader=pool,
        grader_version=GRADER_VERSION,
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
    sampler = ProblemSampler(
        problems,
        recipe.seed,
        recipe.batch.prompts_per_step,
        rates=solve_rates(recipe.signal),
        group_size=recipe.grpo.num_generations,
        explore=recipe.signal.explore,
    )
    return Prepared(run, engine, log, stopper, renderer, sampler, evaluator, reward)


def build_follower(prepared: Prepared, recipe: Recipe) -> StepCallback:
    """The trainer of a recipe, inside the callback that follows it."""
    run, log, stopper = prepared.run, prepared.log, prepared.stopper
    follower: StepCallback
    parts = TrainerParts(
        recipe=recipe,
        engine=prepared.engine,
        sampler=prepared.sampler,
        renderer=prepared.renderer,
        reward=prepared.reward,
        clock=PhaseClock(log.ledger.clock),
        folder=run.path / "trainer",
        must_stop=stopper.requested,
        budget_used=lambda: log.ledger.used_share,
        rollout_over=lambda: stopper.requested() or follower.rollout_is_over(),
    )
    follower = StepCallback(
        run=run,
        recipe=recipe,
        parts=parts,
        log=log,
        forecaster=_forecaster(planned_times(run), recipe),
        evaluator=prepared.evaluator,
        alarms=Alarms(
            {name: 1.0 for name in ("accuracy", "format") if name in recipe.reward_names}
        ),
        stopper=stopper,
        tracker=open_tracker(run, recipe, read_history(run), log.warn),
    )
    steps = recipe.schedule.stop_after_steps or UNLIMITED_STEPS
    follower.trainer = build_trainer(parts, steps, [follower])
    return follower


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


def _tell_left_out(usable: Usable, recipe: Recipe, log: RunLog) -> None:
    """One warning for each reason why problems are not used as they are."""
    if dropped := usable.loaded.dropped:
        first = dropped[0]
        log.warn(
            "dropped_rows",
            f"{len(dropped)} training rows were left out, such as {first.where}: "
            f"{first.why}; all are listed in the manifest",
        )
    if usable.loaded.repeats:
        log.warn(
            "repeated_rows",
            f"{usable.loaded.repeats} training rows say the same as an earlier one: left out",
        )
    overlap = usable.overlap
    if overlap.exact or overlap.near:
        log.warn(
            "overlap",
            f"{len(overlap.exact)} training problems also stand in an evaluation suite and were "
            f"left out; {len(overlap.near)} share 13 words with one",
        )
    if usable.overlong:
        log.warn(
            "overlong_prompts",
            f"{usable.overlong} prompts are longer than {recipe.prompt.max_tokens} tokens and were "
            "left out",
        )
    rooms = [remark_on_room(recipe, spec, usable.longest[spec.suite]) for spec in recipe.eval]
    if remarks := [remark for remark in rooms if remark is not None]:
        log.warn("long_suite_prompts", "; ".join(remarks))


def _describe(loaded: LoadedProblems) -> dict[str, Any]:
    return {
        "source": loaded.source,
        "fingerprint": loaded.fingerprint,
        "problems": len(loaded.problems),
        "repeats": loaded.repeats,
        "dropped": [{"where": entry.where, "why": entry.why} for entry in loaded.dropped],
    }
