"""Seconds of every phase of a run on a CPU, as terms: what `phases.make_phases` is for a GPU.

    prompts = read_prompts(recipe)               how long prompts are, counted where possible
    phases = predict(cpu_scenario(recipe), machine, prompts)

From parameters, vocabulary, prompt and completion tokens and the machine's matrix speed. Not here:
what earlier runs measured (`cpu_profile`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from budgetrl.data.prompt_length import PromptLengths, prompt_lengths
from budgetrl.data.rows import load_problems, load_suite
from budgetrl.errors import DataError, ModelError
from budgetrl.estimation.adapters import adapter_of
from budgetrl.estimation.cpu_time import (
    Batch,
    Machine,
    Passes,
    cpu_constants,
    generation,
    reference,
    scoring,
    seconds,
    training,
)
from budgetrl.estimation.lengths import Lengths
from budgetrl.estimation.phases import Phases, length_ratios, step_evaluation, suites_at
from budgetrl.estimation.scenario import Scenario, expected_samples, make_scenario, suite_problems
from budgetrl.estimation.shapes import ModelShape, find_shape, known_models
from budgetrl.estimation.terms import Term
from budgetrl.hardware import Gpu
from budgetrl.hub.repo import is_hub_id
from budgetrl.recipe.schema import Eval, Recipe
from budgetrl.types import EvalWhen

_PARAMETERS = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([mMbB])(?![a-zA-Z])")
_GAP_ROWS, _GAP_SHARE = 4, 64
"""Completions of an update that sampler and trainer are compared on (`engine.plain`)."""
_SAVED_BYTES = 12
"""Adapter and optimiser state per adapter parameter."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """How long a recipe's prompts are."""

    training: PromptLengths
    suites: Mapping[str, PromptLengths]
    """Of suites whose problems are at hand."""

    def of(self, spec: Eval) -> PromptLengths:
        """Those of a suite; as in training where nothing is known."""
        return self.suites.get(spec.suite, self.training)


def read_prompts(recipe: Recipe) -> Prompts:
    """The prompts of a recipe's local files; those of the hub are not looked at.

    A file that cannot be used counts as unknown here: a run refuses it by itself.
    """
    suites = {}
    for spec in recipe.eval:
        if spec.path is not None:
            try:
                problems = load_suite(spec, _accept).problems
            except DataError:
                continue
            suites[spec.suite] = prompt_lengths(recipe.model, recipe.prompt, problems)
    try:
        trained = () if recipe.data.path is None else load_problems(recipe.data, _accept).problems
    except DataError:
        trained = ()
    return Prompts(prompt_lengths(recipe.model, recipe.prompt, trained), suites)


def _accept(answers: Sequence[str]) -> list[str | None]:
    return [None] * len(answers)


def cpu_scenario(recipe: Recipe, processor: Gpu) -> Scenario:
    """A recipe on this machine's processor.

    Raises:
        ModelError: the model's folder has no usable config.json.
        RecipeError: prompt and completion do not fit the model's window.
    """
    return make_scenario(recipe, processor, cpu_constants(), shape=shape_or_guess(recipe))


def shape_or_guess(recipe: Recipe) -> ModelShape:
    """The model's shape; of a hub model that is not here, the bundled one that is nearest in size.

    Raises:
        ModelError: a folder without a usable config.json.
    """
    try:
        return find_shape(recipe.model.id, recipe.model.revision)
    except ModelError:
        size = _size_in(recipe.model.id)
        if size is None or not is_hub_id(recipe.model.id):
            raise
    return min(known_models().values(), key=lambda shape: abs(shape.params - size))


def predict(scenario: Scenario, machine: Machine, prompts: Prompts) -> Phases:
    """All phases of a run, by the formulas."""
    scenario = replace(scenario, prompt_tokens=prompts.training.mean)
    prior = scenario.mean_tokens
    expected, low, high = (
        _phase_terms(scenario, machine, prompts, mean)
        for mean in (prior.value, prior.low, prior.high)
    )
    source = (
        f"the model's size and the speed of this machine ({machine.gflops:.0f} GFLOP/s a thread; "
        f"{reference().gflops:.0f} where the formulas were fitted)"
    )
    ratios = length_ratios(expected, low, high)
    return Phases(scenario, expected, ratios, waves=1.0, source=source, gflops=machine.gflops)


def _phase_terms(
    scenario: Scenario, machine: Machine, prompts: Prompts, mean: float
) -> dict[str, list[Term]]:
    recipe, shape, known = scenario.recipe, scenario.shape, scenario.constants
    lengths = scenario.lengths(mean)
    rows = round(recipe.completions_per_step * scenario.rollout_factor)
    groups = max(1, rows // recipe.grpo.num_generations)
    most = lengths.longest_of(rows)
    rollout = Batch(rows, prompts.training.longest_of(groups), most, groups, lengths.mean)
    suites = [
        evaluation_terms(scenario, machine, prompts, spec, expected_samples(spec), lengths)
        for spec in recipe.eval
    ]
    entropy = _entropy(scenario, machine, prompts, lengths)
    saved = _SAVED_BYTES * scenario.trained_params

    def once(name: str, amount: float = 1.0) -> list[Term]:
        return seconds({name: amount}, machine)

    weights = shape.params * known["cpu_weight_bytes"]
    longest = Passes(
        rows=recipe.batch.micro_batch,
        micro_batches=1,
        prompt_tokens=recipe.prompt.max_tokens,
        completion_tokens=recipe.sampling.max_tokens,
        adapter=adapter_of(recipe),
    )
    return {
        "imports": once("cpu_imports"),
        "model": [*once("cpu_load"), *once("cpu_read_byte", weights)],
        "download": [],
        "data": [*once("cpu_data"), *seconds(training(longest, shape), machine)],
        "baseline": suites_at(recipe, EvalWhen.BASELINE, suites) + entropy,
        "rollout": seconds(generation(rollout, shape), machine),
        "reward": once("cpu_grade", rows),
        "logprob": _scoring(scenario, machine, prompts, lengths),
        "update": _update(scenario, machine, prompts, lengths),
        "other": once("cpu_other"),
        "step_eval": step_evaluation(recipe, suites),
        "final": suites_at(recipe, EvalWhen.FINAL, suites) + entropy,
        "save": [*once("cpu_save"), *once("cpu_read_byte", saved)],
        "report": once("cpu_report"),
    }


def evaluation_terms(
    scenario: Scenario,
    machine: Machine,
    prompts: Prompts,
    spec: Eval,
    samples: int,
    lengths: Lengths,
) -> list[Term]:
    """One suite, batch by batch, each until its longest completion ends.

    Args:
        scenario: recipe and model.
        machine: where.
        prompts: their lengths.
        spec: the suite.
        samples: rounds.
        lengths: of completions.
    """
    recipe = scenario.recipe
    count = suite_problems(spec) * samples
    rows = min(recipe.engine.eval_batch, count)
    limit = float(recipe.eval_max_tokens(spec))
    suite = Lengths.with_mean(min(lengths.mean, limit), limit)
    longest = suite.longest_of(rows)
    batch = Batch(rows, prompts.of(spec).longest_of(rows), longest, mean_steps=suite.mean)
    made = seconds(generation(batch, scenario.shape), machine, count / rows)
    return [*made, *seconds({"cpu_grade": count}, machine)]


def update_passes(
    scenario: Scenario, lengths: Lengths, prompts: PromptLengths | None = None
) -> Passes:
    """Of an update's live rows: by length, in micro-batches that are padded to their longest.

    Args:
        scenario: recipe and model.
        lengths: of completions.
        prompts: their lengths; None: their mean alone is known.
    """
    recipe, made = scenario.recipe, scenario.passes(lengths.mean)
    updates = recipe.batch.updates_per_rollout
    rows, pieces = made.rows / updates, max(1, made.forwards // updates)
    padded = [lengths.of_rank(rows * (piece + 1) / pieces, rows) for piece in range(pieces)]
    groups = max(1, round(min(rows / pieces, rows / recipe.grpo.num_generations)))
    return Passes(
        rows=made.rows,
        micro_batches=updates * pieces,
        prompt_tokens=prompts.longest_of(groups) if prompts else scenario.prompt_tokens,
        completion_tokens=sum(padded) / pieces,
        adapter=adapter_of(recipe),
        checkpointing=recipe.engine.gradient_checkpointing,
    )


def _update(scenario: Scenario, machine: Machine, prompts: Prompts, lengths: Lengths) -> list[Term]:
    work = update_passes(scenario, lengths, prompts.training)
    again = scenario.recipe.grpo.num_iterations
    terms = seconds(training(work, scenario.shape), machine, again)
    if scenario.live_share == 1:
        return terms
    return [Term(t.amount, {**t.powers, "cpu_live_share": 1}, t.name) for t in terms]


def _scoring(
    scenario: Scenario, machine: Machine, prompts: Prompts, lengths: Lengths
) -> list[Term]:
    """Passes without gradients: a few rows sampler against trainer, all for a KL term or reuse."""
    recipe, passes = scenario.recipe, scenario.passes(lengths.mean)
    compared = min(_GAP_ROWS, -(-recipe.completions_per_step // _GAP_SHARE))
    adapter = adapter_of(recipe)
    start = adapter if recipe.grpo.reference == "adapter" else None
    scored = [(compared, compared, adapter)]
    scored += [(passes.rows, passes.forwards, start)] * passes.reference
    scored += [(passes.rows, passes.forwards, adapter)] * passes.old_policy
    found: list[Term] = []
    for rows, micro_batches, beside in scored:
        work = Passes(rows, micro_batches, prompts.training.mean, lengths.mean, beside)
        found += seconds(scoring(work, scenario.shape), machine)
    return found


def _entropy(
    scenario: Scenario, machine: Machine, prompts: Prompts, lengths: Lengths
) -> list[Term]:
    """Fresh completions of a few prompts."""
    rows = scenario.recipe.entropy.prompts
    if not rows:
        return []
    longest = lengths.longest_of(rows)
    batch = Batch(rows, prompts.training.longest_of(rows), longest, mean_steps=lengths.mean)
    return seconds(generation(batch, scenario.shape), machine)


def _size_in(model_id: str) -> float | None:
    """Parameters by a model's name, such as 135M or 0.5B; None where it does not tell."""
    found = _PARAMETERS.search(model_id.replace("-", " ").replace("_", " "))
    return None if found is None else float(found[1]) * {"m": 1e6, "b": 1e9}[found[2].lower()]
