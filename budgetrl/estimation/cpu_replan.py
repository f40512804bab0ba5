"""A CPU run's plan, corrected by its own baseline before the first update is paid.

    times = after_baseline(times, recipe, prompts, results)

The baseline generates with the very model on the very machine: what it took over what was planned,
at the lengths it had, is how fast this machine is today.
"""

from collections.abc import Mapping
from dataclasses import replace

from budgetrl.budget import PhaseTimes
from budgetrl.estimation.cpu_phases import Prompts, cpu_scenario, evaluation_terms, predict
from budgetrl.estimation.cpu_time import reference
from budgetrl.estimation.machine import this_cpu
from budgetrl.estimation.scenario import Scenario
from budgetrl.estimation.shapes import LengthPrior
from budgetrl.estimation.terms import total
from budgetrl.pace import free_cores
from budgetrl.recipe.schema import Recipe
from budgetrl.types import EvalResult

FIRST_USE_S = 2.5
"""Of an evaluation for what is imported and built at the first use, on the machine of the fit."""
PLAN_WEIGHT_S = 5.0
"""A baseline has to last that long to weigh as much as the plan; a short one tells little."""
_LEAST = 0.1


def after_baseline(
    times: PhaseTimes, recipe: Recipe, prompts: Prompts, results: Mapping[str, EvalResult]
) -> PhaseTimes:
    """The planned times of an update, at the speed and with the lengths of the baseline.

    Args:
        times: as planned.
        recipe: of the run.
        prompts: its prompts, counted.
        results: of the baseline, by suite; complete rounds.
    """
    rows = sum(result.problems * result.samples for result in results.values())
    took = sum(result.seconds for result in results.values())
    if not rows or took <= 0 or times.baseline_s <= 0:
        return times
    machine = replace(reference(), threads=recipe.engine.threads or 1, cores=free_cores())
    scenario = cpu_scenario(recipe, this_cpu())
    drawn = sum(r.completion_tokens_mean * r.problems * r.samples for r in results.values())
    seen = min(drawn / rows, float(recipe.sampling.max_tokens))
    before = _at(scenario, times.tokens_mean or scenario.mean_tokens.value)
    now = _at(scenario, max(1.0, seen))
    planned, predicted = predict(before, machine, prompts), predict(now, machine, prompts)
    lengths = now.lengths()
    done = 0.0
    for spec in recipe.eval:
        if spec.suite in results:
            samples = results[spec.suite].samples
            done += total(evaluation_terms(now, machine, prompts, spec, samples, lengths))
    expected = times.baseline_s * done / planned.seconds["baseline"]
    second = times.imports_s / planned.seconds["imports"]  # of the fit, as long as it lasts here
    beside, trust = FIRST_USE_S * second, PLAN_WEIGHT_S * second
    slower = max(_LEAST, (took - beside + trust) / (expected + trust))

    def corrected(phase: str) -> float:
        longer = predicted.seconds[phase] / planned.seconds[phase] if planned.seconds[phase] else 1
        return float(getattr(times, f"{phase}_s") * slower * longer)

    made = replace(
        times,
        rollout_s=corrected("rollout"),
        logprob_s=corrected("logprob"),
        update_s=corrected("update"),
        tokens_mean=seen,
    )
    if times.early_step_s is not None:
        made = replace(made, early_step_s=times.early_step_s * made.step_s / times.step_s)
    return replace(made, source=f"{times.source}; x{slower:.2f} by the baseline")


def _at(scenario: Scenario, mean: float) -> Scenario:
    return replace(scenario, mean_tokens=LengthPrior(mean, mean, mean, "the baseline"))
