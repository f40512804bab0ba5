"""What a sweep is asked for: one recipe over a grid of values and seeds, checked before it is paid.

    grid = parse_grid(["lora.rank=8,64", "schedule.learning_rate=1e-6,1e-5"])
    trials_of("quickstart", (), grid, seeds=3) -> [TrialSpec]

All trials on one model share its baseline evaluation and stand side by side, so they must agree on
everything that makes the evaluation's protocol.
"""

import itertools
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from budgetrl.errors import RefusedError, UsageError
from budgetrl.recipe.flat import flat_items, flat_values
from budgetrl.recipe.load import LoadedRecipe, list_recipes, load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.report.best import point_words

Grid = Mapping[str, Sequence[Any]]
"""Flat key -> its values."""
Split = Literal["time", "steps", "asha"]
"""Equal seconds or equal updates for every trial; or few, and more for the best."""
SHOWN = 3
"""Of the keys that a message lists."""
_OURS = {
    "recipe.seed": "give --seeds N: seeds 1 to N of every point",
    "budget.": "a sweep has one budget for all trials: --hours or --usd",
    "sweep.": "a sweep holds no sweeps",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sweep or study was asked for; one that goes on is asked for the same."""

    family: str
    """Name of its recipe, or of a family of the paper's."""
    grid: Grid
    seeds: int = 1
    split: Split = "time"
    kind: Literal["sweep", "study"] = "study"
    """A study is a sweep over ranks that checks the paper's claims."""
    metric: str | None = None
    """Suite whose final pass@1 says which point is the best."""
    comparable: bool = True
    """Whether all trials must evaluate alike."""
    recipe: str | None = None
    sets: tuple[str, ...] = ()

    @property
    def is_sweep(self) -> bool:
        """Whether it was made by `budgetrl sweep`, not by `replicate`."""
        return self.kind == "sweep"

    @property
    def trials(self) -> str:
        """What its documents call the trials."""
        return "trials" if self.is_sweep else "arms"


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


def lasting_name(path: Path) -> str:
    """The bundled name of a recipe, or the whole path: workers may stand in another folder."""
    return next((name for name, at in list_recipes().items() if at == path), str(path))


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


def check_grid(grid: Grid) -> None:
    """Only keys that a sweep may vary, with values that differ; whether they exist is told at load.

    Raises:
        UsageError: one is not for a grid.
    """
    for key, values in grid.items():
        ours = next((why for start, why in _OURS.items() if key.startswith(start)), None)
        if ours is not None:
            raise UsageError(f"--grid {key}: is not for a grid; {ours}.")
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
