"""Can reinforcement learning help this model on this data? A look for cents.

    evaluation in rounds | groups of the training data -> Seen -> judge -> go, doubtful, no_go

The policy is the base model (B = 0), asked as a run would ask it; nothing is trained.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from budgetrl.budget import Limits, Plan
from budgetrl.data.difficulty import SolveRates
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import LoadedProblems
from budgetrl.data.sampler import ProblemSampler
from budgetrl.data.usable import load_usable
from budgetrl.display.progress import downloads
from budgetrl.engine import open_engine
from budgetrl.engine.base import Engine, Request, requests_of, sample_seed
from budgetrl.errors import BudgetError, BudgetRLError
from budgetrl.estimation.share import with_share
from budgetrl.evaluation.passk import maj_at_k
from budgetrl.evaluation.run import evaluate
from budgetrl.evaluation.suite import prompted, suite_in
from budgetrl.evaluation.think import think_budget, thinking
from budgetrl.files import write_json
from budgetrl.hub.pins import bring, pin, pinned
from budgetrl.plan import make_plan
from budgetrl.probe.feasibility import ProbeVerdict, Seen, judge
from budgetrl.probe.lengths import (
    LONGEST,
    Lengths,
    Limit,
    Written,
    candidates_of,
    limits_of,
    proposed,
)
from budgetrl.probe.warmup import WarmUp, propose
from budgetrl.recipe.load import LoadedRecipe
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.window import check_window
from budgetrl.rewards.pool import GradingPool
from budgetrl.rewards.shaping import think_format
from budgetrl.supervise.gpu_lock import gpu_for, hold_gpu
from budgetrl.types import Completion, EvalResult, EvalWhen, Problem, Verdict
from budgetrl.units import hours, parse_duration_s

SOLVE_RATES = "solve_rates.json"
MAX_GROUPS = 256
EVAL_SHARE = 0.5
"""Of the time after loading, for the evaluation; the groups get the rest."""
LENGTH_SHARE = 0.2
"""Of the groups' time, for writing on what the token limit cut."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe found."""

    recipe: str
    suites: dict[str, EvalResult]
    seen: Seen
    forecast: dict[str, Any]
    verdict: ProbeVerdict
    why: list[str]
    folder: Path
    seconds: float
    limits: list[Limit] = field(default_factory=list)
    """What other values of sampling.max_tokens would do."""
    warm_up: WarmUp | None = None
    """What would make the model fit for it, where it is cold."""

    def to_json(self) -> dict[str, Any]:
        """As `budgetrl probe --json` prints it: suites by name, then what was concluded."""
        suites = {
            name: {
                "pass_at": dict(result.pass_at),
                "interval_95": dict(result.interval_95),
                "samples": result.samples,
                "truncated_share": result.truncated_share,
            }
            for name, result in self.suites.items()
        }
        return suites | {
            "schema_version": 1,
            "recipe": self.recipe,
            "groups_with_signal_share": self.seen.signal_share,
            "training_groups": self.seen.to_json(),
            "forecast": self.forecast,
            "verdict": self.verdict.value,
            "why": self.why,
            "limits": [asdict(one) for one in self.limits],
            "proposed_max_tokens": proposed(self.limits),
            "warm_up": None if self.warm_up is None else asdict(self.warm_up),
            "solve_rates_file": str(self.folder / SOLVE_RATES),
            "seconds": self.seconds,
        }


def probe(
    loaded: LoadedRecipe, limit_s: float, started: float, folder: Path, tell: Progress
) -> Probe:
    """Evaluate the base model and roll out groups of the training data, inside a time limit.

    Args:
        loaded: the recipe that the money would be spent on.
        limit_s: wall seconds, from `started`.
        started: monotonic seconds at which this process began to cost.
        folder: for completions, the solve-rate table and the document.
        tell: shown progress.

    Raises:
        BudgetError: the time is over before anything was seen.
        HardwareError, ModelError, DataError: as of a run.
    """
    plan = _plan(loaded)
    end = started + limit_s
    recipe = _brought(loaded.recipe, end)
    tell(f"loading {recipe.model.id}")
    with GradingPool() as pool, hold_gpu(gpu_for(recipe), folder.absolute(), end):
        pool.start()
        engine = open_engine(with_share(recipe), folder)
        try:
            check_window(recipe, engine.context_tokens)
            renderer = PromptRenderer(engine.tokenizer, recipe.prompt)
            for remark in renderer.remarks().values():
                tell(remark)
            usable = load_usable(recipe, renderer, pool.gold_problems, engine.context_tokens)
            lab = _Lab(recipe, engine, renderer, pool, tell)
            now = time.monotonic()
            results = lab.evaluate(usable.suites, folder, now + EVAL_SHARE * (end - now))
            now = time.monotonic()
            lab.roll_out(usable.problems, end - LENGTH_SHARE * (end - now))
            lab.write_on(end)
        finally:
            engine.close()
    seen, lengths = lab.seen, lab.lengths
    if not results and not seen.correct:
        raise BudgetError(
            "the time was over before anything was seen.", hint="Give more with --hours."
        )
    verdict, why = judge(seen, plan.steps)
    write_json(folder / SOLVE_RATES, lab.rates.to_json())
    share = seen.signal_share
    pace = None if share is None else share * recipe.batch.prompts_per_step / hours(plan.step_s)
    forecast = {
        "steps": plan.steps,
        "step_s": plan.step_s,
        "total_s": plan.total_s if plan.steps else None,
        "total_usd": plan.total_usd if plan.steps else None,
        "groups_with_signal_per_hour": pace,
        "source": plan.source,
    }
    seconds = time.monotonic() - started
    limits = _limits(loaded, lengths, engine.context_tokens)
    warm_up = propose(loaded, seen, verdict, engine.context_tokens)
    found = Probe(
        recipe.name, results, seen, forecast, verdict, why, folder, seconds, limits, warm_up
    )
    write_json(folder / "probe.json", found.to_json())
    return found


def _brought(recipe: Recipe, end: float) -> Recipe:
    """The recipe with what it takes from the hub pinned and downloaded, before the GPU is held."""
    pins = pin(recipe)

    def check(repo: str) -> None:
        if time.monotonic() > end:
            raise BudgetError(
                f"the time was over before {repo} was downloaded; its parts are kept.",
                hint="Give more with --hours.",
            )

    with downloads(check) as follow:
        bring(pins, follow)
    return pinned(recipe, pins)


def _plan(loaded: LoadedRecipe) -> Plan:
    """What the recipe's own budget buys; nothing is refused, that is for the verdict."""
    try:
        return make_plan(loaded, Limits()).plan
    except BudgetError:
        wide = make_plan(loaded, Limits(parse_duration_s("1000h"))).plan
        return replace(wide, affordable_steps=0)


class _Lab:
    """The base model while it is loaded: what it is asked, and what was seen of its answers."""

    def __init__(
        self,
        recipe: Recipe,
        engine: Engine,
        renderer: PromptRenderer,
        pool: GradingPool,
        tell: Progress,
    ) -> None:
        self._recipe, self._engine, self._renderer = recipe, engine, renderer
        self._pool, self._tell = pool, tell
        self.seen, self.lengths = Seen(recipe.grpo.num_generations), Lengths()
        self.rates = SolveRates(recipe.signal.decay)

    def evaluate(
        self, suites: Mapping[str, LoadedProblems], folder: Path, end: float
    ) -> dict[str, EvalResult]:
        """The recipe's baseline evaluation, in as many rounds as there is time for."""
        recipe, engine, renderer, found = self._recipe, self._engine, self._renderer, {}
        specs = [spec for spec in recipe.eval if EvalWhen.BASELINE in spec.when]
        for number, spec in enumerate(specs):
            now = time.monotonic()
            suite_end = now + (end - now) / (len(specs) - number)
            items = prompted(renderer, suites[spec.suite].problems)
            self._tell(f"evaluating {spec.suite}")
            budget = think_budget(recipe, spec, engine, renderer.prefilled)
            result = evaluate(
                thinking(engine, budget),
                suite_in(recipe, spec, items, engine, renderer.date, budget),
                grader=self._pool,
                folder=folder / "evals" / spec.suite,
                when="baseline",
                step=0,
                policy_id="step 0",
                should_stop=lambda limit=suite_end: time.monotonic() > limit,  # type: ignore[misc]
            )
            if result is not None:
                found[spec.suite] = result
        return found

    def roll_out(self, problems: Sequence[Problem], end: float) -> None:
        """Groups of the problems that the first updates would train on."""
        from budgetrl.training.trainer import training_sampling

        recipe, seen, step = self._recipe, self.seen, 0
        sampler = ProblemSampler(problems, recipe.seed, recipe.batch.prompts_per_step)
        sampling = training_sampling(recipe)
        while len(seen.correct) < MAX_GROUPS and time.monotonic() < end:
            batch = sampler.batch(step)[: MAX_GROUPS - len(seen.correct)]
            self._tell(f"groups of training problems: {len(seen.correct)} of {MAX_GROUPS}")
            ids = self._renderer.ids
            requests = requests_of(batch, ids, seen.group_size, recipe.seed, f"probe {step}")
            made = self._engine.generate(requests, sampling, lambda: time.monotonic() > end)
            completions = [one for one in made if one is not None]
            if len(completions) < len(requests):
                return
            self._observe(batch, requests, completions)
            step += 1

    def _observe(
        self,
        batch: Sequence[Problem],
        requests: Sequence[Request],
        completions: Sequence[Completion],
    ) -> None:
        """Note one batch of groups."""
        seen, size = self.seen, self.seen.group_size
        golds = [problem.answer for problem in batch for _ in range(size)]
        graded = self._pool.grade(list(zip((c.text for c in completions), golds, strict=True)))
        correct = [g.verdict is Verdict.CORRECT for g in graded]
        self.lengths.note(requests, golds, completions, correct)
        for number, problem in enumerate(batch):
            rows = graded[number * size : (number + 1) * size]
            right = correct[number * size : (number + 1) * size]
            seen.correct.append(sum(right))
            self.rates.observe(problem, sum(right), size)
            if 0 < sum(right) < size:
                vote = maj_at_k([row.extracted for row in rows], right, size)
                seen.agreement.append(vote - sum(right) / size)
        prefilled = self._renderer.prefilled
        seen.formatted += [think_format(c.text, prefilled=prefilled) for c in completions]
        seen.truncated += [c.truncated for c in completions]

    def write_on(self, end: float) -> None:
        """Go on with completions that the limit cut, to tell what a longer one would give."""
        from budgetrl.training.trainer import training_sampling

        recipe, lengths, window = self._recipe, self.lengths, self._engine.context_tokens
        limit = recipe.sampling.max_tokens
        room = LONGEST * limit
        if window is not None:
            room = min(room, window - recipe.prompt.max_tokens)
        if not lengths.cut or room <= limit:
            return
        cut = f"{len(lengths.cut)} of the {lengths.num_cut} completions that were cut"
        self._tell(f"writing on {cut}")
        sampling = replace(training_sampling(recipe), max_tokens=room - limit, sequence_tokens=None)
        asked = [
            replace(
                request,
                prompt_ids=(*request.prompt_ids, *ids),
                seed=sample_seed(request.seed, "written on", request.sample),
            )
            for request, _, ids in lengths.cut
        ]
        made = self._engine.generate(asked, sampling, lambda: time.monotonic() > end)
        rows = [
            (done, decode([*ids, *done.ids]), gold)
            for (_, gold, ids), done in zip(lengths.cut, made, strict=True)
            if done is not None and (decode := getattr(self._engine, "decode", None)) is not None
        ]
        graded = self._pool.grade([(text, gold) for _, text, gold in rows])
        lengths.longer += [
            Written(limit + done.num_tokens, one.verdict is Verdict.CORRECT, not done.truncated)
            for (done, _, _), one in zip(rows, graded, strict=True)
        ]


def _limits(loaded: LoadedRecipe, lengths: Lengths, window: int | None) -> list[Limit]:
    """What other limits would cut, give and cost."""
    recipe = loaded.recipe
    room = None if window is None else window - recipe.prompt.max_tokens
    limit = recipe.sampling.max_tokens

    def cost(tokens: int, mean: float) -> float | None:
        expected = {"sampling.expected_tokens": max(1.0, min(mean, float(tokens)))}
        try:
            other = replace(loaded, recipe=recipe.but({"sampling.max_tokens": tokens, **expected}))
            return _plan(other).step_s
        except BudgetRLError:  # such a limit cannot be run here, which the plan itself says
            return None

    return limits_of(lengths.all(limit), candidates_of(limit, room), cost)
