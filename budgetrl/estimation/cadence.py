"""How often a recipe evaluates and saves, for plans: intervals, not moments.

Not here: which update really evaluates or saves; the training loop decides that as it goes.
"""

from budgetrl.recipe.schema import Recipe
from budgetrl.types import EvalWhen

MIN_SAVE_INTERVAL_S = 600.0
SAVE_INTERVAL_SHARE = 0.03
"""Default interval between checkpoints: the larger of ten minutes and 3 % of the budget."""


def step_evals_every(recipe: Recipe, steps: int | None = None) -> int | None:
    """Updates between two evaluations during training; None where there are none.

    Args:
        recipe: with any number of suites; the most frequent one counts.
        steps: expected updates, needed for `at_fractions`; stop_after_steps where absent.
    """
    intervals = [spec.every_steps for spec in recipe.eval if spec.every_steps]
    expected = steps or recipe.schedule.stop_after_steps
    for spec in recipe.eval:
        if spec.at_fractions and expected and EvalWhen.STEP in spec.when:
            intervals.append(max(1, expected // len(spec.at_fractions)))
    return min(intervals, default=None)


def saves_every_s(recipe: Recipe, step_s: float, budget_s: float | None) -> float:
    """Training seconds between two checkpoints; whichever interval comes first.

    Args:
        recipe: its [checkpoint].
        step_s: seconds of one update.
        budget_s: wall seconds of the run, where known.
    """
    checkpoint = recipe.checkpoint
    default_s = max(MIN_SAVE_INTERVAL_S, SAVE_INTERVAL_SHARE * (budget_s or 0.0))
    intervals = []
    if checkpoint.every_minutes is not None:
        intervals.append(60 * checkpoint.every_minutes)
    if checkpoint.every_steps is not None:
        intervals.append(checkpoint.every_steps * step_s)
    return max(min(intervals, default=default_s), 1e-3)
