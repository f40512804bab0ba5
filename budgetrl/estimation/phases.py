"""Seconds of every phase of a GPU run, as terms: the model behind `PhaseTimes`.

    phases = make_phases(scenario, memory)
    phases.times(budget_s)        PhaseTimes at the constants' values
    phases.draws()                the same phases at every draw of constants and lengths

A measured profile (`profile.py`) multiplies phases by what a real run took over what was predicted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from budgetrl.budget import PhaseTimes
from budgetrl.estimation.cadence import saves_every_s, step_evals_every
from budgetrl.estimation.lengths import Lengths
from budgetrl.estimation.memory import MemoryEstimate, weight_bytes
from budgetrl.estimation.rollout import decode
from budgetrl.estimation.scenario import Scenario, suite_problems
from budgetrl.estimation.terms import (
    Constants,
    Term,
    draws,
    length_draws,
    suite_lengths,
    total,
)
from budgetrl.estimation.training_time import grading, logprobs, step_overhead, update
from budgetrl.estimation.workload import Generation, Server, Serving, Update
from budgetrl.phases import UPDATE_PHASES
from budgetrl.recipe.schema import Eval, Recipe
from budgetrl.recipe.training_tables import OPTIMIZER_BYTES
from budgetrl.types import EvalWhen

_MEASURED_RANGE = "measured_model"

EARLY = "early"
"""Among measured factors: one of the first updates over later ones."""


@dataclass(frozen=True)
class Phases:
    """Terms by phase, at the expected completion length."""

    scenario: Scenario
    terms: Mapping[str, list[Term]]
    length_ratio: Mapping[str, tuple[float, float]]
    """By phase: seconds at the low and the high completion length, over the expected."""
    waves: float
    """Times that the completions of an update would fill the KV cache."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """Phases that a real run gave, and the factor it found."""
    source: str = "formulas fitted to published runs; --from-run corrects them"
    gflops: float | None = None
    """Of the processor that the formulas were taken for; None: a GPU."""

    @property
    def constants(self) -> Constants:
        """What the terms are in proportion to."""
        return self.scenario.constants

    @cached_property
    def seconds(self) -> Mapping[str, float]:
        """Expected seconds by phase."""
        return {name: total(terms) for name, terms in self.terms.items()}

    @cached_property
    def draws(self) -> Mapping[str, list[float]]:
        """Seconds by phase at every draw; draws of one index belong together."""
        drawn = {}
        for name, terms in self.terms.items():
            factors = length_draws(*self.length_ratio[name])
            sums = draws(terms, self.constants)
            drawn[name] = [s * f for s, f in zip(sums, factors, strict=True)]
        return drawn

    @cached_property
    def step_draws(self) -> list[float]:
        """Seconds of one update at every draw."""
        return self.summed(UPDATE_PHASES)

    def summed(self, names: Sequence[str]) -> list[float]:
        """Seconds of several phases together at every draw."""
        return [sum(column) for column in zip(*(self.draws[n] for n in names), strict=True)]

    def times(
        self, budget_s: float | None, steps: int | None = None, draw: int | None = None
    ) -> PhaseTimes:
        """Phase times for `budget.plan`.

        Args:
            budget_s: wall seconds of the run, where known.
            steps: expected updates, for evaluations at fractions of the run.
            draw: of the constants; None: their expected values.
        """
        s = self.seconds
        if draw is not None:
            s = {name: drawn[draw] for name, drawn in self.draws.items()}
        recipe = self.scenario.recipe
        step_s = sum(s[name] for name in UPDATE_PHASES)
        return PhaseTimes(
            **{f"{name}_s": seconds for name, seconds in s.items()},
            step_evals_every=step_evals_every(recipe, steps),
            saves_every_s=saves_every_s(recipe, step_s, budget_s),
            source=self.source,
            early_step_s=step_s * self.measured[EARLY] if EARLY in self.measured else None,
            tokens_mean=self.scenario.mean_tokens.value,
        )


def make_phases(scenario: Scenario, memory: MemoryEstimate) -> Phases:
    """All phases of a run."""
    prior = scenario.mean_tokens
    expected = _phase_terms(scenario, memory, prior.value)
    ratio = dict.fromkeys(expected, (1.0, 1.0))
    if prior.low < prior.high:
        ends = [_phase_terms(scenario, memory, mean) for mean in (prior.low, prior.high)]
        ratio = length_ratios(expected, *ends)
    return Phases(scenario, expected, ratio, waves=memory.waves)


def with_measured(phases: Phases, factors: Mapping[str, float], source: str) -> Phases:
    """Phases multiplied by measured factors; what was measured is known within 10 %."""
    terms = dict(phases.terms)
    for name, factor in factors.items():
        if name in terms:
            seconds = factor * total(terms[name])
            terms[name] = [Term(seconds, {_MEASURED_RANGE: 1}, "measured")]
    return replace(phases, terms=terms, measured=factors, source=source)


def length_ratios(
    expected: Mapping[str, list[Term]],
    low: Mapping[str, list[Term]],
    high: Mapping[str, list[Term]],
) -> dict[str, tuple[float, float]]:
    """By phase: seconds at the low and at the high completion length, over the expected."""
    return {name: (_over(low[name], t), _over(high[name], t)) for name, t in expected.items()}


def _over(ends: list[Term], expected: list[Term]) -> float:
    return total(ends) / total(expected) if total(expected) else 1.0


def _phase_terms(scenario: Scenario, memory: MemoryEstimate, mean: float) -> dict[str, list[Term]]:
    recipe, constants = scenario.recipe, scenario.constants
    lengths = scenario.lengths(mean)
    serving = _serving(scenario, memory)
    rolled_out = round(recipe.completions_per_step * scenario.rollout_factor)
    groups = max(1, rolled_out // recipe.grpo.num_generations)
    generation = Generation.of(rolled_out, groups, scenario.prompt_tokens, lengths)
    work = update_work(scenario, lengths)
    shape, gpu = scenario.shape, scenario.gpu
    entropy = _entropy(scenario, lengths, serving)
    suites = [_evaluation(scenario, spec, lengths, serving) for spec in recipe.eval]
    again = recipe.grpo.num_iterations
    return {
        **_setup(scenario),
        "baseline": suites_at(recipe, EvalWhen.BASELINE, suites) + entropy,
        "rollout": decode(generation, serving, shape, gpu, constants).terms,
        "reward": grading(rolled_out, constants),
        "logprob": logprobs(work, shape, gpu, constants),
        "update": _times(update(work, shape, gpu, constants), again),
        "other": step_overhead(scenario.vllm and recipe.engine.standby, constants),
        "step_eval": step_evaluation(recipe, suites),
        "final": suites_at(recipe, EvalWhen.FINAL, suites) + entropy,
        "save": _save(scenario),
        "report": [Term(constants["report_s"], {"report_s": 1}, "report")],
    }


def _times(terms: list[Term], factor: float) -> list[Term]:
    return [Term(t.amount * factor, t.powers, t.name) for t in terms]


def _serving(scenario: Scenario, memory: MemoryEstimate) -> Serving:
    recipe = scenario.recipe
    # The plain engine merges the adapter while it generates, but weights of fewer bits lose too
    # much of it for that; vLLM is asked to by merged_rollouts, with the same exception.
    merges = recipe.engine.merged_rollouts if scenario.vllm else True
    merges = merges and recipe.model.dtype == "float32"
    adapter = 0 if merges else scenario.adapter_params or 0
    if not scenario.vllm:  # it takes all rows at once
        rows = max(recipe.completions_per_step, recipe.engine.eval_batch)
        return Serving(Server.TRANSFORMERS, scenario.precision, adapter, rows)
    kv_bytes = max(memory.kv_room, memory.kv_least / 8)
    return Serving(Server.VLLM, scenario.precision, adapter, recipe.engine.max_num_seqs, kv_bytes)


def update_work(scenario: Scenario, lengths: Lengths) -> Update:
    """The passes of one update at some lengths."""
    recipe = scenario.recipe
    passes = scenario.passes(lengths.mean)
    return Update(
        sequences=passes.rows,
        prompt_tokens=scenario.prompt_tokens,
        mean=lengths.mean,
        mean_square=lengths.mean_square,
        longest_in_micro=lengths.longest_of(recipe.batch.micro_batch),
        micro_batches=passes.forwards,
        adapter_params=scenario.adapter_params,
        precision=scenario.precision,
        checkpointing=recipe.engine.gradient_checkpointing,
        reference=passes.reference,
        old_policy=passes.old_policy,
        optimizer_steps=recipe.batch.updates_per_rollout,
        padded=not scenario.vllm,
        trainer=scenario.trainer,
    )


def _setup(scenario: Scenario) -> dict[str, list[Term]]:
    """Imports, download, model (load, engine start, first compilation) and data."""
    constants = scenario.constants
    imports = "imports_s" if scenario.vllm else "plain_imports_s"
    size = scenario.download_bytes
    if size is None:
        size = weight_bytes(scenario.shape, scenario.precision) + scenario.teacher_bytes
    download_s = size / 1e9 / constants["download_gb_s"]
    names = ("engine_start_s", "first_step_s") if scenario.vllm else ()
    model = [Term(constants[name], {name: 1}, name.removesuffix("_s")) for name in names]
    data = Term(constants["data_s"], {"data_s": 1}, "data")
    return {
        "imports": [Term(constants[imports], {imports: 1}, "imports")],
        "download": [Term(download_s, {"download_gb_s": -1}, "download")],
        "model": model,
        "data": [data, *_preflight(scenario)],
    }


def _preflight(scenario: Scenario) -> list[Term]:
    """Every pass over one micro-batch of the longest completions, and the adapter saved."""
    recipe = scenario.recipe
    limit = float(recipe.sampling.max_tokens)
    longest = replace(
        update_work(scenario, scenario.lengths()),
        sequences=recipe.batch.micro_batch,
        prompt_tokens=recipe.prompt.max_tokens,
        mean=limit,
        mean_square=limit**2,
        longest_in_micro=limit,
        micro_batches=1,
        optimizer_steps=1,
    )
    where = scenario.shape, scenario.gpu, scenario.constants
    return [*logprobs(longest, *where), *update(longest, *where), *_save(scenario)]


def _save(scenario: Scenario) -> list[Term]:
    size = (4 + OPTIMIZER_BYTES[scenario.recipe.optimizer.name]) * scenario.trained_params / 1e9
    seconds = size / scenario.constants["save_gb_s"]
    return [Term(seconds, {"save_gb_s": -1}, "checkpoint"), Term(0.3, {}, "metadata")]


def _entropy(scenario: Scenario, lengths: Lengths, serving: Serving) -> list[Term]:
    """Fresh completions of a few prompts, and one pass over them."""
    prompts = scenario.recipe.entropy.prompts
    if not prompts:
        return []
    generation = Generation.of(prompts, prompts, scenario.prompt_tokens, lengths)
    terms = decode(generation, serving, scenario.shape, scenario.gpu, scenario.constants).terms
    work = Update(
        sequences=prompts,
        prompt_tokens=scenario.prompt_tokens,
        mean=lengths.mean,
        mean_square=lengths.mean_square,
        longest_in_micro=lengths.longest_of(1),
        micro_batches=prompts,
        adapter_params=scenario.adapter_params,
        reference=False,
        old_policy=True,
    )
    return terms + logprobs(work, scenario.shape, scenario.gpu, scenario.constants)


def suites_at(recipe: Recipe, when: EvalWhen, suites: Sequence[list[Term]]) -> list[Term]:
    """All suites of one moment."""
    due = zip(recipe.eval, suites, strict=True)
    return [term for spec, terms in due if when in spec.when for term in terms]


def step_evaluation(recipe: Recipe, suites: Sequence[list[Term]]) -> list[Term]:
    """Suites during training; those evaluated less often count for their share."""
    shortest = step_evals_every(recipe)
    found: list[Term] = []
    for spec, terms in zip(recipe.eval, suites, strict=True):
        if EvalWhen.STEP in spec.when:
            share = shortest / spec.every_steps if spec.every_steps and shortest else 1.0
            found += _times(terms, share)
    return found


def _evaluation(scenario: Scenario, spec: Eval, lengths: Lengths, serving: Serving) -> list[Term]:
    """One suite: generation at the suite's lengths, and grading."""
    constants = scenario.constants
    problems = suite_problems(spec)
    limit = float(scenario.recipe.eval_max_tokens(spec))
    suites = suite_lengths()
    spread = Lengths.with_mean(lengths.mean, lengths.limit, suites.cv)
    longer = spread.stretched(suites.over_training.get(spec.suite, 1.0), limit)
    count = problems * spec.rounds.expected(problems)
    generation = Generation.of(count, problems, scenario.prompt_tokens, longer)
    terms = decode(generation, serving, scenario.shape, scenario.gpu, constants).terms
    terms = [Term(t.amount, {**t.powers, "eval_model": 1}, t.name) for t in terms]
    fixed = Term(constants["eval_fixed_s"], {"eval_fixed_s": 1}, "fixed")
    return [*terms, *grading(count, constants), fixed]
