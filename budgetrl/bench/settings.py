"""What a bench tries, and what a recipe becomes for it.

    settings_of(recipe, cores)     the recipe as it is, then one change at a time
    benched(recipe, setting)       few updates, no evaluations, nothing kept

Only settings that leave the algorithm alone: an update is the same up to rounding, whatever wins.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from budgetrl.recipe.schema import EngineName, Entropy, Eval, Recipe, Select, Tracker
from budgetrl.types import EvalWhen

UPDATES = 4
"""Per setting; the first warms up and does not count."""
LEAST_TOKENS = 64
"""Completions are not shortened below this."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run a recipe."""

    values: Mapping[str, Any]
    """Keys of the recipe ("batch.micro_batch") with what is tried instead."""

    @property
    def name(self) -> str:
        """As it stands behind --set."""
        texts = [f"{key}={str(value).lower()}" for key, value in self.values.items()]
        return ", ".join(texts) or "as the recipe"


def settings_of(recipe: Recipe, cores: int) -> list[Setting]:
    """The recipe as it is, then one change at a time, the most promising first.

    Args:
        recipe: resolved.
        cores: CPU cores that this process may use.
    """
    return [Setting({}), *(Setting({key: value}) for key, value in _changes(recipe, cores))]


def _changes(recipe: Recipe, cores: int) -> Iterator[tuple[str, Any]]:
    engine, total = recipe.engine, recipe.completions_per_step
    double, less = 2 * recipe.batch.micro_batch, recipe.smaller_micro_batch()
    if recipe.completions_per_update % double == 0:
        yield "batch.micro_batch", double
    if less is not None:
        yield "batch.micro_batch", less
    if recipe.completions_per_update > recipe.batch.micro_batch:
        yield "batch.fill", "tokens" if recipe.batch.fill == "rows" else "rows"
    if engine.device == "cpu":
        if cores > 1:
            yield "engine.threads", cores if engine.threads == 1 else 1
        return
    if engine.name is EngineName.UNSLOTH:
        yield "engine.max_num_seqs", max(1, min(engine.max_num_seqs, total) // 2)
        yield "engine.standby", not engine.standby
        yield "engine.prefix_caching", not engine.prefix_caching
        if not recipe.model.load_in_4bit:
            yield "engine.merged_rollouts", not engine.merged_rollouts
    yield "optimizer.name", "adamw" if recipe.optimizer.name == "adamw_8bit" else "adamw_8bit"
    yield "engine.gradient_checkpointing", not engine.gradient_checkpointing


def benched(recipe: Recipe, setting: Setting, *, evaluates: bool, max_tokens: int) -> Recipe:
    """The recipe under a setting, for a few updates.

    Args:
        recipe: resolved.
        setting: what is tried.
        evaluates: one sample per problem before and after, so that evaluations are timed too.
        max_tokens: limit of completions; shorter than the recipe's where time is short.
    """
    schedule = recipe.schedule.schedule_steps
    suites = tuple(_once(spec, recipe.eval_max_tokens(spec)) for spec in recipe.eval)
    return recipe.but(
        {
            **setting.values,
            "schedule.stop_after_steps": min(UPDATES, schedule or UPDATES),
            "sampling.max_tokens": max_tokens,
            "signal.on_empty": "continue",
            "checkpoint.every_steps": None,
            "checkpoint.every_minutes": 1e6,
            "checkpoint.mirror": None,
            "eval": suites if evaluates else (),
            "entropy": Entropy(prompts=0),
            "select": Select(),
            "tracker": Tracker(),
        }
    )


def _once(spec: Eval, max_tokens: int) -> Eval:
    """A suite before and after, with one sample per problem."""
    when = (EvalWhen.BASELINE, EvalWhen.FINAL)
    values: dict[str, Any] = {"samples": 1, "k": (1,), "max_tokens": max_tokens, "when": when}
    return spec.model_copy(update=values | {"every_steps": None, "at_fractions": ()})
