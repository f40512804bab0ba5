"""What a recipe takes from the hub, pinned: the commit and the files of every repository.

    pins = pin(recipe)                 asks the hub: ids, access, splits, columns; downloads nothing
    pinned(recipe, pins)               the recipe with commits for revisions
    download(need)                     one of them alone, as `budgetrl eval` needs it

A run's manifest keeps the pins, so that every attempt and every evaluation of it has the same
files, whatever the branch has become.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from budgetrl.errors import BudgetRLError, DataError
from budgetrl.hub.errors import not_cached
from budgetrl.hub.fetch import Watch, bytes_missing, fetch, missing
from budgetrl.hub.layout import CARD, DataLayout, Need, data_layout, files_of
from budgetrl.hub.lookup import cached, look_up, moved_to
from budgetrl.hub.peek import columns_of, read_range
from budgetrl.hub.repo import Found, Repo, RepoFile, is_hub_id, is_offline
from budgetrl.recipe.model_tables import Columns
from budgetrl.recipe.schema import EngineName, Eval, Recipe, Stage, StageKind
from budgetrl.recipe.suites import SUITES

MANIFEST_KEY = "hub"
"""Of the pins in a run's manifest."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One repository that a recipe needs, at the commit that it needs."""

    need: Need
    found: Found
    files: tuple[RepoFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def to_download(self) -> int:
        """Bytes that are not on this machine yet."""
        return bytes_missing(self.found, self.files)

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "kind": self.need.repo.kind,
            "id": self.need.repo.id,
            "revision": self.need.repo.revision,
            "commit": self.found.commit,
            "bytes": self.size,
            "files": {file.path: [file.size, file.blob] for file in self.files},
        }


Pins = Mapping[str, Pin]
"""By the key of what is needed."""
OnDownload = Callable[[Pin, Watch], None]
"""Told ten times a second what is downloaded and how far it is; may raise to end it."""


def untold(pin: Pin, watch: Watch) -> None:
    """Nobody waits for it, or it is here already."""


def needs_of(recipe: Recipe) -> Iterator[Need]:
    """What a recipe takes from the hub: model, teacher, training data, suites."""
    model, data = recipe.model, recipe.data
    if is_hub_id(model.id) and recipe.engine.name is not EngineName.SCRIPTED:
        yield Need("model", Repo("model", model.id, model.revision), "model")
    teacher = recipe.teacher
    if teacher is not None and recipe.distils and not teacher.is_self and is_hub_id(teacher.id):
        yield Need("teacher", Repo("model", teacher.id, teacher.revision), "model")
    if data.id is not None:
        repo = Repo("dataset", data.id, data.revision)
        wanted = (*_columns(data.columns), *data.filter)
        yield Need("data", repo, "data", data.split, wanted, data.config)
    for stage in recipe.stages:
        yield from _stage_needs(recipe, stage)
    for spec in recipe.eval:
        if (need := suite_need(spec)) is not None:
            yield need


def _stage_needs(recipe: Recipe, stage: Stage) -> Iterator[Need]:
    """The data of a stage that has its own; what columns demonstrations have is seen at reading."""
    data = recipe.for_stage(stage).data
    if data.id is None or data == recipe.data:
        return
    named = data.columns
    shown = (named.solution, named.thinking) if stage.kind is StageKind.SFT else _columns(named)
    wanted = tuple(name.split(".")[0] for name in shown if name is not None)
    repo = Repo("dataset", data.id, data.revision)
    key = f"stages.{stage.name}.data"
    yield Need(key, repo, "data", data.split, (*wanted, *data.filter), data.config)


def suite_need(spec: Eval) -> Need | None:
    """What a suite takes from the hub; None for one in a file."""
    known = SUITES.get(spec.suite) if spec.id is None else None
    hub_id = spec.id or (known.id if known else None)
    if spec.path is not None or hub_id is None:
        return None
    columns = spec.columns or (known.columns if known else Columns())
    split = spec.split or (known.split if known else "test")
    repo = Repo("dataset", hub_id, spec.revision)
    return Need(f"eval.{spec.suite}", repo, "data", split, _columns(columns), spec.config)


def _columns(columns: Columns) -> tuple[str, ...]:
    named = (columns.problem, columns.answer, columns.id, columns.level)
    return tuple(name.split(".")[0] for name in named if name is not None)


def pin(recipe: Recipe, *, training: bool = True) -> Pins:
    """Ask the hub for everything that a recipe needs: each id, access, split and column.

    Args:
        recipe: what is wanted.
        training: False leaves training data and teacher out.

    Raises:
        ModelError, DataError, HubError: the first that is not right; others are named with it.
    """
    needs = [need for need in needs_of(recipe) if training or need.key not in ("data", "teacher")]
    if not needs:
        return {}
    if any(need.what == "data" for need in needs):
        import datasets  # noqa: F401  # not first in several threads at once
    found = settle_all(needs)
    if errors := [one for one in found if isinstance(one, BudgetRLError)]:
        errors[0].message = "\n".join(dict.fromkeys(error.message for error in errors))
        raise errors[0]
    return {one.need.key: one for one in found if isinstance(one, Pin)}


def settle_all(needs: Sequence[Need]) -> list[Pin | BudgetRLError]:
    """What the hub, or offline its cache, has of each, or why it has not."""
    with ThreadPoolExecutor(len(needs)) as pool:
        return list(pool.map(_settled_or_why, needs))


def _settled_or_why(need: Need) -> Pin | BudgetRLError:
    try:
        return settle(need)
    except BudgetRLError as error:
        return error


@cache
def settle(need: Need) -> Pin:
    """Commit and files of what is needed; of the cache alone where it has a pinned one whole.

    One answer for the whole process, so that the arms of a study have the same commits.

    Raises:
        ModelError, DataError, HubError: see `pin`.
    """
    if need.repo.is_pinned or is_offline():
        here = _whole_in_cache(need)
        if here is not None:
            return here
    found = look_up(need.repo)
    made = _settled(need, found)
    if is_offline() and (lacking := missing(found, made.files)):
        raise not_cached(need.repo, [file.path for file in lacking])
    return made


def _whole_in_cache(need: Need) -> Pin | None:
    found = cached(need.repo)
    if found is None:
        return None
    try:
        made = _settled(need, found)
    except BudgetRLError:  # the hub may have what the cache lacks
        if is_offline():
            raise
        return None
    return None if missing(found, made.files) else made


def _settled(need: Need, found: Found) -> Pin:
    layout = _layout(need, found) if need.what == "data" else None
    files = files_of(need, found, layout)
    if layout is not None:
        _check_columns(need, found, layout)
    return Pin(need, found, files)


def _layout(need: Need, found: Found) -> DataLayout:
    card = found.named(CARD)
    text = None
    if card is not None:
        text = read_range(found, card, 0, card.size).decode("utf-8", errors="replace")
    return data_layout(found, text, need.config)


def _check_columns(need: Need, found: Found, layout: DataLayout) -> None:
    held = layout.columns
    if held is None:
        first = found.named(layout.splits[need.split or ""][0])
        held = None if first is None else columns_of(found, first)
    lacking = [name for name in need.columns if held is not None and name not in held]
    if lacking:
        raise DataError(
            f"{need.repo.label} (split {need.split!r}) has no column {lacking[0]!r}; there are: "
            f"{', '.join(sorted(held or ()))}.",
            hint=f"Name the columns in [{need.key}.columns]: problem, answer, id, level."
            if need.key == "data"
            else f"Name the columns of suite {need.key.removeprefix('eval.')}: problem, answer, "
            "id, level.",
        )


def bring(pins: Pins, tell: OnDownload) -> None:
    """Download what is missing, the smallest first, as a command does that is no run.

    Raises:
        HubError, ModelError, DataError, RefusedError: see `fetch`.
    """
    for one in sorted(pins.values(), key=lambda pin: pin.to_download):
        if one.to_download:
            _fetched(one, tell)


def _fetched(one: Pin, tell: OnDownload) -> Path:
    return fetch(one.found, one.files, Watch(one.to_download, lambda now: tell(one, now)))


def pinned(recipe: Recipe, pins: Pins) -> Recipe:
    """The recipe with the commits of its repositories for revisions."""
    commits = {pin.need.key: (pin.need.repo.id, pin.found.commit) for pin in pins.values()}

    def at(key: str, table: Any) -> Any:
        hub_id, commit = commits.get(key, (None, None))
        suite = SUITES.get(getattr(table, "suite", ""))
        named = table.id or (suite.id if suite else None)
        return table.but({"revision": commit}) if commit and hub_id == named else table

    return recipe.but(
        {
            "model": at("model", recipe.model),
            "teacher": recipe.teacher and at("teacher", recipe.teacher),
            "data": at("data", recipe.data),
            "eval": tuple(at(f"eval.{spec.suite}", spec) for spec in recipe.eval),
            "stages": tuple(_stage_at(stage, commits) for stage in recipe.stages),
        }
    )


def _stage_at(stage: Stage, commits: Mapping[str, tuple[str, str]]) -> Stage:
    """A stage with the commit of its own data."""
    hub_id, commit = commits.get(f"stages.{stage.name}.data", (None, None))
    if commit is None or (stage.data or {}).get("id", hub_id) != hub_id:
        return stage
    return stage.model_copy(update={"data": {**(stage.data or {}), "revision": commit}})


def to_download(pins: Pins) -> int:
    """Bytes that are not on this machine yet."""
    return sum(pin.to_download for pin in pins.values())


def to_json(pins: Pins) -> dict[str, Any]:
    """For the manifest."""
    return {key: pin.to_json() for key, pin in pins.items()}


def from_json(recipe: Recipe, stored: Any) -> Pins:
    """The pins in a manifest; those that the recipe no longer names are left out."""
    pins = {}
    entries = stored if isinstance(stored, dict) else {}
    for need in needs_of(recipe):
        entry = entries.get(need.key)
        if isinstance(entry, dict) and entry.get("id") == need.repo.id and entry.get("commit"):
            files = tuple(RepoFile(p, *about) for p, about in (entry.get("files") or {}).items())
            found = Found(need.repo, entry["commit"], files)
            pins[need.key] = Pin(need, found, files)
    return pins


def still_there(pins: Pins) -> list[str]:
    """Prove that pinned files can still be had, and say which branches have moved since.

    Raises:
        ModelError, DataError: a commit is gone from the hub, and not whole in the cache.
        HubError: the hub has a fault, and the cache does not suffice.
    """
    notes = []
    for pin in pins.values():
        repo, commit = pin.need.repo, pin.found.commit
        if missing(pin.found, pin.files):
            look_up(repo.at(commit))
        if repo.is_pinned or is_offline():
            continue
        now = moved_to(repo)
        if now is not None and now != commit:
            notes.append(
                f"{repo.label} has moved on the hub from {commit[:12]} to {now[:12]}; this run "
                f"stays with {commit[:12]}"
            )
    return notes


def download(need: Need, tell: OnDownload = untold) -> Path:
    """The folder with what is needed, downloaded where it is not here.

    Raises:
        ModelError, DataError, HubError, RefusedError: it cannot be had.
    """
    return _fetched(settle(need), tell)
