"""Before the first update of a CPU run: its plan, corrected by what the baseline took."""

from collections.abc import Iterable, Mapping

from budgetrl.data.prompt_length import SAMPLE, PromptLengths
from budgetrl.estimation.cpu_phases import Prompts
from budgetrl.estimation.cpu_replan import after_baseline
from budgetrl.run_files import read_plan
from budgetrl.training.callbacks import StepCallback
from budgetrl.types import EvalResult


def replan(follower: StepCallback, baseline: Mapping[str, EvalResult]) -> None:
    """Forecast updates at the speed and with the lengths of the baseline, and say so."""
    if not baseline:
        return
    parts, suites = follower.parts, follower.evaluator.suites
    problems = parts.sampler.problems
    sample = problems[:: max(1, len(problems) // SAMPLE)][:SAMPLE]
    prompts = Prompts(
        _lengths(len(parts.renderer.ids(problem)) for problem in sample),
        {name: _lengths(len(item.prompt_ids) for item in suite) for name, suite in suites.items()},
    )
    planned = read_plan(follower.run).times
    times = after_baseline(planned, follower.recipe, prompts, baseline)
    if times is not planned:
        follower.replan(times)


def _lengths(tokens: Iterable[int]) -> PromptLengths:
    return PromptLengths(tuple(sorted(tokens)), "counted")
