"""The learning rate of each update: the recipe's, times a factor between 0 and 1.

By steps it is a function of the updates made, by budget one of the share of the budget that is used
when the update starts; both count over all attempts, so a resumed run goes on where it was.
"""

import math

from budgetrl.recipe.schema import Schedule


def learning_rate(schedule: Schedule, updates: int, budget_used: float) -> float:
    """The rate of an update.

    Args:
        schedule: of the recipe.
        updates: made before it.
        budget_used: share of the budget that is used when it starts.
    """
    if schedule.by == "budget":
        return schedule.learning_rate * rate_factor(schedule, budget_used)
    length = schedule.schedule_steps or schedule.stop_after_steps
    if not length:
        return schedule.learning_rate
    return schedule.learning_rate * rate_factor(schedule, updates / length, (updates + 1) / length)


def rate_factor(schedule: Schedule, start: float, end: float | None = None) -> float:
    """The share of `learning_rate` between two points of the schedule, each 0..1.

    Warm-up rises linearly from 0 and is taken at the end, so that no update is made at a rate of
    0; linear and cosine then fall to `min_share` and are taken at the start.

    Args:
        schedule: of the recipe.
        start: where the update starts.
        end: where it ends; None: nobody knows, and the start stands for it.
    """
    start, warm = min(1.0, max(0.0, start)), schedule.warmup_share
    if start < warm:
        return min(1.0, (start if end is None else end) / warm)
    if schedule.shape == "constant":
        return 1.0
    along = (start - warm) / (1.0 - warm) if warm < 1.0 else 1.0
    falling = 1.0 - along if schedule.shape == "linear" else 0.5 * (1 + math.cos(math.pi * along))
    return schedule.min_share + (1.0 - schedule.min_share) * falling
