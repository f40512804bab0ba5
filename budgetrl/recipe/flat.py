"""Flat names of recipe values: "lora.rank", "eval.aime24.samples", "rewards.format.weight"."""

from collections.abc import Iterator, Mapping
from typing import Any

from budgetrl.recipe.schema import Recipe

MERGE_KEYS = {
    "rewards": "name",
    "eval": "suite",
    "stages": "name",
    "expected": "key",
    "stated": "key",
    "inferred": "key",
    "deviation": "key",
}
"""Arrays of tables and the key by which their elements merge and are named."""

UNSET = "unset"
"""`--set KEY=unset`, or "unset" in a file, removes an inherited value, and a [[deviation]] says so;
for `--set` the text itself is written `'"unset"'`."""

PROVENANCE = ("stated", "inferred", "deviation")
"""Arrays that say something about other keys."""


def flat_items(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values of nested tables with their flat names."""
    for key, value in tables.items():
        if isinstance(value, dict) and value:
            yield from flat_items(value, f"{prefix}{key}.")
        elif key in MERGE_KEYS and not prefix and is_tables(value):
            for element in value:
                name = element.get(MERGE_KEYS[key], "?")
                yield from flat_items(element, f"{key}.{name}.")
        else:
            yield f"{prefix}{key}", value


def flat_values(recipe: Recipe) -> dict[str, Any]:
    """Every resolved value of a recipe by flat name, without expectations and provenance."""
    tables = recipe.model_dump(mode="json")
    return {
        key: value
        for key, value in flat_items(tables)
        if key.split(".")[0] not in ("expected", *PROVENANCE) and not _is_left_out(key, value)
    }


def _is_left_out(key: str, value: Any) -> bool:
    """Whether a stage leaves a key as the run has it."""
    return key.startswith("stages.") and value is None


def is_tables(value: Any) -> bool:
    """Whether a value is an array of tables."""
    return isinstance(value, list) and all(isinstance(element, dict) for element in value)
