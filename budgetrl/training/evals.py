"""Evaluations inside a run: which suites when, within the budget, and what is reported of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from budgetrl.engine.base import Engine, StopCheck, requests_of
from budgetrl.engine.thinking import ThinkBudget
from budgetrl.evaluation.run import evaluate
from budgetrl.evaluation.suite import PromptedProblem, suite_in
from budgetrl.evaluation.summary import ASKED, event_of
from budgetrl.evaluation.think import thinking
from budgetrl.events import Entropy, Evaluation
from budgetrl.ledger import Clock
from budgetrl.recipe.schema import Eval, Recipe
from budgetrl.rewards.registry import Grader
from budgetrl.rundir import RunDir
from budgetrl.training.log import RunLog
from budgetrl.training.trainer import training_sampling
from budgetrl.types import EvalResult, EvalWhen

Moment = Literal["baseline", "step", "final"]


@dataclass(slots=True)
class Evaluator:
    """Runs the recipe's [[eval]] tables on the engine's current adapter."""

    run: RunDir
    recipe: Recipe
    engine: Engine
    prompt_date: str | None
    """Of templates that print one."""
    grader: Grader
    suites: Mapping[str, Sequence[PromptedProblem]]
    budgets: Mapping[str, ThinkBudget | None]
    """Of thinking, by suite."""
    entropy_prompts: Sequence[PromptedProblem]
    log: RunLog
    clock: Clock
    renew: bool = False
    """What is evaluated was changed on purpose, so stored results may be of another protocol."""
    final_rounds: int | None = None
    """Of the final evaluation, where time is short; None: as many as the recipe wants."""
    seconds: dict[str, float] = field(default_factory=dict)
    """What a suite's newest evaluation took."""

    def specs(self, when: Moment) -> list[Eval]:
        """The evaluations of a moment."""
        return [spec for spec in self.recipe.eval if EvalWhen(when) in spec.when]

    def evaluate(
        self,
        when: Moment,
        step: int,
        should_stop: StopCheck,
        *,
        only: str | None = None,
        announced: Mapping[str, Evaluation] | None = None,
        rounds: int | None = None,
        quiet: bool = False,
    ) -> dict[str, EvalResult]:
        """Results by suite; a suite without a complete round is left out.

        Args:
            when: the moment; files are named by it.
            step: updates made so far.
            should_stop: cuts rounds.
            only: one suite instead of all of the moment.
            announced: by suite, the event that an earlier attempt has written.
            rounds: at most so many samples of each problem; None: as many as the recipe wants.
            quiet: write no event; another call follows that continues this one.
        """
        results = {}
        for spec in self.specs(when):
            if only is not None and spec.suite != only:
                continue
            budget = self.budgets[spec.suite]
            problems = self.suites[spec.suite]
            suite = suite_in(self.recipe, spec, problems, self.engine, self.prompt_date, budget)
            if rounds is not None:
                suite = replace(suite, rounds=spec.rounds.at_most(rounds))
            result = evaluate(
                thinking(self.engine, budget),
                suite,
                grader=self.grader,
                folder=self.run.eval_folder(spec.suite),
                when=f"step_{step:06d}" if when == "step" else when,
                step=step,
                policy_id=f"step {step}",
                should_stop=should_stop,
                clock=self.clock,
                renew=self.renew,
            )
            if result is not None:
                results[spec.suite] = result
                self.seconds[spec.suite] = result.seconds
                event = event_of(result, when)
                told = (announced or {}).get(spec.suite)
                if not quiet and (told is None or _differs(told, event)):
                    self.log.emit(event)
        return results

    def entropy(self, when: Moment, step: int, should_stop: StopCheck) -> None:
        """Exact token entropy on fresh completions of fixed training prompts (paper Eq. 1)."""
        if not self.entropy_prompts:
            return
        start = self.clock()
        ids = {item.problem: item.prompt_ids for item in self.entropy_prompts}
        seed, purpose = self.recipe.seed, f"entropy {step}"
        requests = requests_of(ids, ids.__getitem__, 1, seed, purpose)
        sampling = training_sampling(self.recipe)
        estimate = self.engine.entropy(requests, sampling, should_stop)
        if estimate is not None:
            self.log.emit(
                Entropy(
                    when=when,
                    step=step,
                    completions=estimate.completions,
                    tokens=estimate.tokens,
                    mean_nats=estimate.mean_nats,
                    temperature=sampling.temperature,
                    seconds=self.clock() - start,
                )
            )


def _differs(told: Evaluation, event: Evaluation) -> bool:
    """Whether an announced evaluation was another one; equal scores alone do not tell."""
    names = ("pass_at", *ASKED, "samples", "problems")
    return any(getattr(told, name) != getattr(event, name) for name in names)
