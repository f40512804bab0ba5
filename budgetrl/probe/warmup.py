"""The warm-up that would fit a model which a probe calls cold: recipe lines, seconds and dollars.

    propose(loaded, seen) -> WarmUp | None        None: a warm-up is not what is missing

A model is cold where hardly a group has signal, or right answers are luck. Its own right answers
are no demonstrations then, so the lines name worked solutions of others.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from budgetrl.budget import Limits, usd_of
from budgetrl.errors import BudgetRLError
from budgetrl.files import write_atomic
from budgetrl.plan import make_plan
from budgetrl.probe.feasibility import MAX_TRUNCATED, SOLVED, ProbeVerdict, Seen
from budgetrl.recipe.load import LoadedRecipe, load_recipe

STEPS = 80
"""Updates of 32 rows: a few times over a set of a thousand, as s1 and LIMO."""
ON_A_GPU = """data.id = "simplescaling/s1K"   # or data.path, with a column `solution`
schedule.learning_rate = 1e-4
sft.max_tokens = {window}
sft.micro_batch = 1"""
HERE = """data.path = "worked.jsonl"              # rows of yours: problem, solution, answer
schedule.learning_rate = {rate:g}
sft.max_tokens = {window}
sft.micro_batch = 4"""
LINES = """[[stages]]
name = "warm"
kind = "sft"
steps = {steps}
{data}
gate = {{ signal_share = 0.1, prompts = 16 }}

[[stages]]
name = "rl"
kind = "grpo"
"""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What a probe proposes."""

    lines: str
    """Of a recipe, to be pasted."""
    seconds: float | None
    """Of its updates; None where its data are not known yet."""
    usd: float | None


def is_cold(seen: Seen, verdict: ProbeVerdict) -> bool:
    """Whether demonstrations are what is missing: not where all is solved, or only cut off."""
    if verdict is ProbeVerdict.GO or len(seen.correct) < 2:
        return False
    return (seen.accuracy or 0.0) < SOLVED and fmean(seen.truncated) <= MAX_TRUNCATED


def propose(
    loaded: LoadedRecipe, seen: Seen, verdict: ProbeVerdict, window: int | None
) -> WarmUp | None:
    """The warm-up for a cold model, with what it takes of the recipe's own budget.

    Args:
        loaded: the recipe that was probed.
        seen: what its groups showed.
        verdict: of the probe.
        window: of the model; None: not known.
    """
    recipe = loaded.recipe
    if recipe.stages or not is_cold(seen, verdict):
        return None
    room = min(8192, window or 8192)
    form = HERE if recipe.engine.device == "cpu" else ON_A_GPU
    data = form.format(window=room, rate=recipe.schedule.learning_rate)
    lines = LINES.format(steps=STEPS, data=data)
    if recipe.engine.device == "cpu":
        return WarmUp(lines, None, None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "warm.toml"
        write_atomic(file, f'[recipe]\nextends = ["{loaded.path}"]\n{lines}')
        try:
            plan = make_plan(load_recipe(file), Limits(), dry_run=True).plan
        except BudgetRLError:  # what is wrong with it, its own plan will say
            return WarmUp(lines, None, None)
    warm = plan.stages[0]
    return WarmUp(lines, warm.seconds, usd_of(warm.seconds, plan.usd_per_hour))
