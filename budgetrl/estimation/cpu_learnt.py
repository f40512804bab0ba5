"""What a finished run on a CPU teaches the next plan, each kind of its training by itself.

    learn(recipe, history, report_s, slow, cache_dir)

An update of SFT draws no answers and one of a distillation asks a teacher too: taken together, or
for GRPO's, they would tell the next run that answers cost nothing, or twice what they do.
"""

from dataclasses import replace
from pathlib import Path

from budgetrl.budget import PhaseTimes
from budgetrl.estimation.cpu_phases import cpu_scenario, predict, read_prompts
from budgetrl.estimation.cpu_profile import Other, seen_length, store_profile
from budgetrl.estimation.cpu_time import Machine
from budgetrl.estimation.demonstrations import demonstration_lengths
from budgetrl.estimation.machine import this_cpu, this_machine
from budgetrl.estimation.stages import learning_s
from budgetrl.estimation.teaching import teaching_s
from budgetrl.history import History, measured_times, only_stages
from budgetrl.recipe.schema import Recipe, Stage, StageKind


def learn(recipe: Recipe, history: History, report_s: float, slow: float, cache_dir: Path) -> None:
    """Keep what each stage of a run measured, and what a run without stages did.

    Args:
        recipe: of the run.
        history: to its end.
        report_s: seconds from the end of the worker to the end of the run.
        slow: how much slower than alone work got on.
        cache_dir: where profiles are kept.

    Raises:
        OSError: the folder cannot be written.
        ModelError, DataError, RecipeError: a file of the recipe is gone.
    """
    machine = this_machine(recipe)
    for stage, part in zip(recipe.stages or (None,), recipe.parts, strict=True):
        steps = only_stages(history, {stage.name if stage else None})
        times = measured_times(steps, report_s, "")
        if times is not None:
            alone = times.scaled(1.0 / slow, times.source)
            other = _other(stage, part, alone, machine)
            store_profile(part, alone, cache_dir, other=other, machine=machine)


def _other(stage: Stage | None, part: Recipe, times: PhaseTimes, machine: Machine) -> Other | None:
    """What the formulas say of an update that is not GRPO's, at the lengths that it had."""
    if stage is None or stage.kind is StageKind.GRPO:
        return None
    scenario = cpu_scenario(part, this_cpu())
    if stage.kind is StageKind.SFT:
        update_s = learning_s(part, scenario, demonstration_lengths(part), machine)
    else:
        scenario = replace(scenario, mean_tokens=seen_length(times.tokens_mean or 1.0, part))
        phases = predict(scenario, machine, read_prompts(part))
        update_s = phases.seconds["update"] + teaching_s(phases.scenario, None, machine)
    return Other(stage.kind, update_s)
