"""What a run was planned to be and stands on, read back from its directory and checked.

    read_recipe(run).batch.micro_batch
    read_plan(run).budget.wall_s
    prompt_moment(run)                  the day that its prompts tell
    read_manifest(run).attempts[-1].fingerprints

For those who go on with a run. Readers that show one (`display`, `report`) make do with what is
there.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from budgetrl.budget import Budget, PhaseTimes, Plan
from budgetrl.damage import way_on
from budgetrl.errors import RunDirError
from budgetrl.hub.pins import Pins, from_json, pinned
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import MANIFEST, PLAN, RESOLVED, RunDir

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True)
class StageTimes:
    """What phases take in one stage of a run in stages."""

    name: str
    times: PhaseTimes


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
    stages: list[StageTimes] = field(default_factory=list)


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


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run's manifest says to those who go on with it; what is absent is not known."""

    attempts: list[Standing] = field(default_factory=list)
    """What each stood on, oldest first; none of a run of an older budgetrl."""
    budgetrl: str = "another version"
    """That made it."""
    created: str | None = None
    prompt: dict[str, Any] = field(default_factory=dict)
    """How prompts are made, once a worker has loaded the tokenizer."""
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    gpu: dict[str, Any] | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    hub: dict[str, Any] | None = None
    """Pins."""
    hub_moved: list[str] = field(default_factory=list)
    """Which branches have moved since."""
    micro_batch: int | None = None
    """Completions per pass that the last rehearsal has left."""


def read_manifest(run: RunDir) -> Manifest:
    """What a run was made with and stands on.

    Raises:
        RunDirError: its file is damaged.
    """
    return _read(run, MANIFEST, Manifest)


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
        manifest = read_manifest(run)
    except RunDirError:  # who needs the manifest itself will say so
        return {}
    # Before there were pins only the model's commit was written down, by its engine.
    commit = manifest.engine.get("model_revision")
    older = {"model": {"id": recipe.model.id, "commit": commit}} if commit else {}
    return from_json(recipe, manifest.hub or older)


def written_recipe(run: RunDir) -> Recipe:
    """The resolved recipe of a run as its file has it.

    Raises:
        RunDirError: the file is missing or damaged.
    """
    return _read(run, RESOLVED, Recipe, "recipe")


def read_plan(run: RunDir) -> StoredPlan:
    """The plan of a run, with the budget that it has now.

    Raises:
        RunDirError: its file is missing or damaged.
    """
    return _read(run, PLAN, StoredPlan)


def planned_times(run: RunDir, stage: str | None = None) -> PhaseTimes | None:
    """What the plan says that phases take; None where nobody has planned, as for a measurement.

    Args:
        run: its directory.
        stage: whose updates are asked for; None: those of the whole run.

    Raises:
        RunDirError: its file is damaged.
    """
    if not run.file(PLAN).exists():
        return None
    stored = read_plan(run)
    return next((one.times for one in stored.stages if one.name == stage), stored.times)


def rehearsed_micro_batch(run: RunDir, recipe: Recipe) -> int:
    """Completions per pass that the last rehearsal has left of a recipe's."""
    used = recipe.batch.micro_batch
    return min(used, read_manifest(run).micro_batch or used)


def prompt_moment(run: RunDir) -> datetime | None:
    """What chat templates are told when they ask for the time: the run's start, on every day.

    Runs of one study share that of the run whose baseline they share. None: it is not recorded.

    Raises:
        RunDirError: it cannot be read.
    """
    manifest = read_manifest(run)
    text = manifest.prompt.get("moment") or manifest.created
    try:
        return None if text is None else datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise RunDirError(
            f"{run.file(MANIFEST)}: {text!r} is no time.", hint="Put the file back from a copy."
        ) from None


def _read(run: RunDir, name: str, kind: type[Content], key: str | None = None) -> Content:
    found = run.read_json(name) or {}
    try:
        return TypeAdapter(kind).validate_python(found.get(key) if key else found, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join([*map(str, first["loc"]), first["msg"]])
        file = run.file(name)
        raise RunDirError(
            f"{file}: missing, damaged, or of another version: {what}.",
            hint=way_on(file.parent, file.name),
        ) from None
