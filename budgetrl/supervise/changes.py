"""What a resumed run may do differently, by `--set` and `--model`, and what that changes.

    recipe, changes = changed_recipe(old, ["schedule.learning_rate=1e-5"])

Only what says how a run goes on, never what was trained on or with: for that there are new runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from budgetrl.errors import ModelError, UsageError
from budgetrl.recipe.flat import flat_values
from budgetrl.recipe.load import change_recipe
from budgetrl.recipe.schema import Recipe

Change = dict[str, Any]
"""What a `changed` event says: key, from, to."""

TABLES = ("schedule", "checkpoint", "eval", "budget", "signal")
"""Tables of a recipe that a resumed run may change."""
OF_A_STAGE = ("steps", "share", "until", "gate", "on_fail", "schedule", "signal")
"""Keys of a [[stages]] that it may change: how long a stage lasts, and what its gate wants."""
_FIXED = {
    "budget.gpu": "it names what the run was planned for",
    "budget.usd_per_hour": "what was paid is in the books at the old price",
    **dict.fromkeys(
        (f"eval.{name}" for name in ("suite", "path", "id", "revision", "split", "columns")),
        "another suite is another evaluation: `budgetrl eval RUN --suite PATH`",
    ),
}
PROTOCOL_KEYS = ("max_tokens", "temperature", "top_p", "seed")
"""Of an [[eval]]: with another value its results are not comparable with earlier ones."""


def changed_recipe(recipe: Recipe, sets: Sequence[str]) -> tuple[Recipe, list[Change]]:
    """A run's recipe with other values, and which are other ones.

    Raises:
        UsageError: a key that a resumed run may not change.
        RecipeError: a value that makes no sense.
    """
    for text in sets:
        _refuse_fixed(recipe, text)
    changed = change_recipe(recipe, sets)
    before, after = flat_values(recipe), flat_values(changed)
    changes = [
        {"key": key, "from": before.get(key), "to": value}
        for key, value in after.items()
        if before.get(key) != value
    ]
    return changed, changes


def with_base(recipe: Recipe, place: str | None) -> tuple[Recipe, list[Change]]:
    """A recipe whose local base model has moved; whether it is the same one is checked by hash.

    Raises:
        ModelError: there is no model.
    """
    if place is None:
        return recipe, []
    folder = Path(place).expanduser().resolve()
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"--model {place}: no model folder (it needs config.json).",
            hint="Name the folder to which the base model of the run was moved.",
        )
    if (now := str(folder)) == recipe.model.id:
        return recipe, []
    change = {"key": "model.id", "from": recipe.model.id, "to": now}
    return recipe.but({"model.id": now}), [change]


def _refuse_fixed(recipe: Recipe, text: str) -> None:
    key = text.partition("=")[0].strip()
    table, _, rest = key.partition(".")
    last = rest.rpartition(".")[2]
    why = _FIXED.get(f"{table}.{last}", "")
    if table == "stages" and rest.split(".")[1:2] and rest.split(".")[1] in OF_A_STAGE:
        return
    if table not in TABLES:
        why = "it shapes what was trained so far"
    elif (
        recipe.select.use == "best"
        and rest.startswith(f"{recipe.select.suite}.")
        and last in PROTOCOL_KEYS
        and table == "eval"
    ):
        why = "the best checkpoint was chosen by it"
    if why:
        raise UsageError(
            f"--set {text!r}: a resumed run keeps its {key}; {why}.",
            hint=f"It may change {', '.join(TABLES)}, and of a stage {', '.join(OF_A_STAGE)}. "
            "Everything else takes a new run.",
        )
