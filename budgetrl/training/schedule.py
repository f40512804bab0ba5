"""The learning rate over a training: a factor between 0 and 1 for each update."""

import math

from budgetrl.recipe.schema import Schedule


def rate_factor(schedule: Schedule, progress: float) -> float:
    """The share of `learning_rate` at a progress of 0..1 through the schedule.

    Warm-up rises linearly from 0; linear and cosine then fall to `min_share`.
    """
    progress = min(1.0, max(0.0, progress))
    warm = schedule.warmup_share
    if progress < warm:
        return progress / warm
    if schedule.shape == "constant":
        return 1.0
    along = (progress - warm) / (1.0 - warm) if warm < 1.0 else 1.0
    falling = 1.0 - along if schedule.shape == "linear" else 0.5 * (1 + math.cos(math.pi * along))
    return schedule.min_share + (1.0 - schedule.min_share) * falling


def step_progress(schedule: Schedule, step: int) -> float:
    """Progress by steps; 0 for a constant rate without a length."""
    length = schedule.schedule_steps or schedule.stop_after_steps
    return step / length if length else 0.0
