"""What a run was planned to be and stands on, read back from its directory and checked.

    read_recipe(run).batch.micro_batch
    read_plan(run).budget.wall_s
    prompt_moment(run)                  the day that its prompts tell
    read_standings(run)[-1].fingerprints

For those who go on with a run. Readers that show one (`display`, `report`) make do with what is
there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from budgetrl.budget import Budget, PhaseTimes, Plan
from budgetrl.damage import way_on
from budgetrl.errors import RunDirError
from budgetrl.hub.pins import MANIFEST_KEY, Pins, from_json, pinned
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import MANIFEST, PLAN, RESOLVED, RunDir


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The content of `plan.json`."""

    budget: Budget
    times: PhaseTimes
    plan: Plan
    reserved_s: float
    """For report and exit, after the worker's deadline."""
    grace_s: float
    slow: float = 1.0
    """How much slower than alone the machine was when the times were made (`budgetrl.pace`)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What an attempt stands on: an entry of the manifest's `attempts`."""

    attempt: int
    fingerprints: dict[str, Any]
    """As `evaluation.fingerprints` makes them."""
    reward_files: dict[str, str]
    """Of the user's own rewards, by name."""
    changes: list[dict[str, Any]]
    """What was changed on purpose before it: key, from, to."""


def read_standings(run: RunDir) -> list[Standing]:
    """What each attempt of a run stood on, oldest first; empty for a run of an older budgetrl.

    Raises:
        RunDirError: the manifest is damaged.
    """
    entries = (run.read_json(MANIFEST) or {}).get("attempts", [])
    try:
        return TypeAdapter(list[Standing]).validate_python(entries)
    except ValidationError as error:
        raise _damaged(run.file(MANIFEST), error) from None


def read_recipe(run: RunDir) -> Recipe:
    """The resolved recipe of a run, with the commits that it was pinned to for revisions.

    Raises:
        RunDirError: its file is missing or damaged.
    """
    return pinned_recipe(run, written_recipe(run))


def pinned_recipe(run: RunDir, recipe: Recipe) -> Recipe:
    """A recipe with the commits that a run was pinned to for revisions."""
    return pinned(recipe, _pins_of(run, recipe))


def read_pins(run: RunDir) -> Pins:
    """What a run takes from the hub; empty where nothing, or where an older budgetrl made it.

    Raises:
        RunDirError: its recipe is missing or damaged.
    """
    return _pins_of(run, written_recipe(run))


def _pins_of(run: RunDir, recipe: Recipe) -> Pins:
    try:
        manifest = run.read_json(MANIFEST) or {}
    except RunDirError:  # who needs the manifest itself will say so
        return {}
    return from_json(recipe, manifest.get(MANIFEST_KEY) or _older(recipe, manifest))


def _older(recipe: Recipe, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Before there were pins only the model's commit was written down, by its engine."""
    commit = (manifest.get("engine") or {}).get("model_revision")
    return {"model": {"id": recipe.model.id, "commit": commit}} if commit else {}


def written_recipe(run: RunDir) -> Recipe:
    """The resolved recipe of a run as its file has it.

    Raises:
        RunDirError: the file is missing or damaged.
    """
    document = run.read_json(RESOLVED) or {}
    try:
        return Recipe.model_validate(document.get("recipe"), strict=False)
    except ValidationError as error:
        raise _damaged(run.file(RESOLVED), error) from None


def read_plan(run: RunDir) -> StoredPlan:
    """The plan of a run, with the budget that it has now.

    Raises:
        RunDirError: its file is missing or damaged.
    """
    try:
        return TypeAdapter(StoredPlan).validate_python(run.read_json(PLAN) or {})
    except ValidationError as error:
        raise _damaged(run.file(PLAN), error) from None


def planned_times(run: RunDir, stage: str | None = None) -> PhaseTimes | None:
    """What the plan says that phases take; None where nobody has planned, as for a measurement.

    Args:
        run: its directory.
        stage: whose updates are asked for; None: those of the whole run.

    Raises:
        RunDirError: its file is damaged.
    """
    document = run.read_json(PLAN)
    if document is None:
        return None
    for entry in document.get("stages", ()):
        if entry["name"] == stage:
            return TypeAdapter(PhaseTimes).validate_python(entry["times"])
    return read_plan(run).times


def rehearsed_micro_batch(run: RunDir, recipe: Recipe) -> int:
    """Completions per pass that the last rehearsal has left of a recipe's."""
    rehearsed = (run.read_json(MANIFEST) or {}).get("micro_batch", recipe.batch.micro_batch)
    return int(min(recipe.batch.micro_batch, rehearsed))


def prompt_moment(run: RunDir) -> datetime | None:
    """What chat templates are told when they ask for the time: the run's start, on every day.

    Runs of one study share that of the run whose baseline they share. None: it is not recorded.

    Raises:
        RunDirError: it cannot be read.
    """
    manifest = run.read_json(MANIFEST) or {}
    text = manifest.get("prompt", {}).get("moment") or manifest.get("created")
    try:
        return None if text is None else datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise RunDirError(
            f"{run.file(MANIFEST)}: {text!r} is no time.", hint="Put the file back from a copy."
        ) from None


def _damaged(file: Path, error: ValidationError) -> RunDirError:
    first = error.errors()[0]
    what = ": ".join([*map(str, first["loc"]), first["msg"]])
    return RunDirError(
        f"{file}: missing, damaged, or of another version: {what}.",
        hint=way_on(file.parent, file.name),
    )
