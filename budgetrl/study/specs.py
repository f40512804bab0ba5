"""What a sweep runs: one recipe over a grid of values and seeds, checked before anything is paid.

    grid = parse_grid(["lora.rank=8,64", "schedule.learning_rate=1e-6,1e-5"])
    trials_of("quickstart", (), grid, seeds=3) -> [TrialSpec]

All trials on one model share its baseline evaluation and stand side by side, so they must agree on
everything that makes the evaluation's protocol.
"""

import difflib
import itertools
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budgetrl.errors import RefusedError, UsageError
from budgetrl.recipe.flat import flat_items, flat_values
from budgetrl.recipe.load import LoadedRecipe, list_recipes, load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.validate import is_key
from budgetrl.report.best import point_words

Grid = Mapping[str, Sequence[Any]]
"""Flat key -> its values."""
SHOWN = 3
"""Of the keys that a message lists."""
_OURS = {
    "recipe.seed": "give --seeds N: seeds 1 to N of every point",
    "budget.": "a sweep has one budget for all trials: --hours or --usd",
    "sweep.": "a sweep holds no sweeps",
}


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One trial, before it is planned."""

    recipe: str
    """What `load_recipe` finds."""
    sets: tuple[str, ...]
    seed: int
    values: Mapping[str, Any]
    """What tells it from trials of the same recipe and seed, by flat key."""

    def load(self, *further: str) -> LoadedRecipe:
        """The trial's recipe.

        Raises:
            RecipeError: a value that the engine does not allow, among others.
        """
        return load_recipe(self.recipe, (*self.sets, *further), self.seed)

    @property
    def label(self) -> str:
        """For people."""
        name = self.recipe if self.recipe in list_recipes() else Path(self.recipe).stem
        return ", ".join([name, *point_words(self.values), f"seed {self.seed}"])


def parse_grid(texts: Iterable[str]) -> dict[str, list[Any]]:
    """The grid of --grid flags: "lora.rank=8,64", each value read as TOML, else as a string.

    Raises:
        UsageError: no key, no values, or one of them twice.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, listed = (part.strip() for part in text.partition("="))
        if not equals or not key or not listed:
            raise UsageError(
                f"--grid {text!r} names no values.", hint="Write --grid lora.rank=8,64,256."
            )
        if key in grid:
            raise UsageError(f"--grid names {key} twice.", hint="Give all its values at once.")
        try:
            grid[key] = tomllib.loads(f"values = [{listed}]")["values"]
        except tomllib.TOMLDecodeError:
            grid[key] = [_alone(value.strip()) for value in listed.split(",")]
    return grid


def _alone(text: str) -> Any:
    """One value of a list in which another is a word, as in 8,64,full."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def grid_of(table: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The grid of a recipe's [sweep] table, whose keys may be dotted or nested."""
    return {
        key: list(value) if isinstance(value, list | tuple) else [value]
        for key, value in flat_items(table)
    }


def check_grid(recipe: Recipe, grid: Grid) -> None:
    """Every key must be one of the recipe, with values that differ.

    Raises:
        UsageError: one is not; names the nearest key.
    """
    known = flat_values(recipe)
    for key, values in grid.items():
        ours = next((why for start, why in _OURS.items() if key.startswith(start)), None)
        if ours is not None:
            raise UsageError(f"--grid {key}: is not for a grid; {ours}.")
        table, *rest = key.split(".")
        if key not in known and not (rest and is_key(table, *rest)):
            near = difflib.get_close_matches(key, known, n=SHOWN, cutoff=0.6)
            hint = f"Did you mean {' or '.join(near)}? " if near else ""
            raise UsageError(
                f"--grid {key}: recipe {recipe.name} has no such key.",
                hint=f"{hint}`budgetrl recipes show {recipe.name} --resolved` lists all.",
            )
        if not values or len({json.dumps(value) for value in values}) < len(values):
            raise UsageError(f"--grid {key}: needs values, each of them once, not {values}.")


def trials_of(recipe: str, sets: Sequence[str], grid: Grid, seeds: int) -> list[TrialSpec]:
    """Every point of a grid with every seed.

    Seeds come last, so that a sweep that is cut short has every point once before any twice.
    """
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    return [
        TrialSpec(recipe, (*sets, *(f"{k}={json.dumps(v)}" for k, v in point.items())), seed, point)
        for seed in range(1, seeds + 1)
        for point in points
    ]


def check_protocols(loaded: Sequence[LoadedRecipe]) -> None:
    """All trials on one model must evaluate alike.

    Raises:
        RefusedError: they do not.
    """
    first: dict[str, LoadedRecipe] = {}
    for trial in loaded:
        other = first.setdefault(trial.recipe.model.id, trial).recipe
        if protocol_key(trial.recipe) != protocol_key(other):
            mine, before = flat_values(trial.recipe), flat_values(other)
            keys = [
                key
                for key, value in mine.items()
                if key.startswith(("eval", "prompt", "sampling")) and before.get(key) != value
            ]
            raise RefusedError(
                f"{trial.recipe.name} and {other.name} evaluate {other.model.id} under different "
                f"protocols ({', '.join(keys[:SHOWN])}), so their results cannot stand side by "
                "side.",
                hint="Give all trials the same [[eval]], [prompt] and sampling.stop, and "
                "eval.SUITE.max_tokens of its own where sampling.max_tokens differs; "
                "`budgetrl sweep --allow-protocols` runs them without comparisons.",
            )


def protocol_key(recipe: Recipe) -> tuple[Any, ...]:
    """What must be equal for two trials on one model to be compared."""
    suites = tuple((spec, recipe.eval_tokens(spec)) for spec in recipe.eval)
    return suites, recipe.prompt, recipe.sampling.stop


def baseline_key(recipe: Recipe) -> tuple[Any, ...]:
    """What must be equal for two trials to share the evaluation before training."""
    return recipe.model, protocol_key(recipe)
