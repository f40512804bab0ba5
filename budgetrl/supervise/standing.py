"""What a resumed run stands on: refuse what differs from the attempt before, or take it on purpose.

    standing = next_standing(run, recipe, number, accepted)     ChangedError says what differs
    write_standing(run, standing)

Nothing is written before everything has been checked.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from budgetrl.damage import way_on
from budgetrl.errors import ModelError, RefusedError, RunDirError
from budgetrl.evaluation.fingerprints import (
    PARTS,
    SCHEMA_VERSION,
    Difference,
    differences,
    fingerprints,
    reward_files,
)
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Recipe
from budgetrl.run_files import Standing, read_manifest
from budgetrl.rundir import MANIFEST, RunDir
from budgetrl.supervise.changes import Change


class ChangedError(RefusedError):
    """Data, rewards, base model or versions are not those that the run was made with."""


def next_standing(
    run: RunDir,
    recipe: Recipe,
    number: int,
    accepted: Collection[str],
    changes: Sequence[Change] = (),
) -> Standing:
    """What the next attempt stands on.

    Args:
        run: to be continued.
        recipe: as it will be.
        number: of the attempt.
        accepted: of `PARTS`, what may differ.
        changes: of recipe keys, that were asked for.

    Raises:
        ChangedError: something else differs; nothing was changed.
        RunDirError: the fingerprints are of a format that this version does not know.
        RecipeError, DataError, ModelError: a file of the recipe is gone.
    """
    manifest = read_manifest(run)
    standings = manifest.attempts
    last = standings[-1] if standings else None
    known = last is not None and last.fingerprints.get("schema_version") == SCHEMA_VERSION
    if not known and not {"data", "reward", "model"} <= set(accepted):
        if not run.file(MANIFEST).exists():
            raise RunDirError(
                f"{run.file(MANIFEST)} is gone, and with it what the run stood on.",
                hint=f"{way_on(run.path, MANIFEST)} Or say that data, rewards and base model are "
                "what they were: --accept-changes data,reward,model.",
            )
        raise RunDirError(
            f"{run.path}: its manifest has no fingerprints that this version can read, so nobody "
            "can say whether data, rewards and base model are what they were.",
            hint=f"Continue it with the budgetrl that made it ({manifest.budgetrl}), or say that "
            "you know: --accept-changes data,reward,model.",
        )
    _refuse_lost_base(recipe)
    files = reward_files(recipe, last.reward_files if last is not None else None)
    now = fingerprints(recipe, files)
    asked = {change["key"] for change in changes}
    found = [
        one
        for one in (differences(last.fingerprints, now) if known and last is not None else [])
        if one.item not in asked
    ]
    _refuse(run, [one for one in found if one.part not in accepted])
    accepted_now: list[Change] = [
        {"key": f"{one.part}: {one.item}", "from": one.before, "to": one.now} for one in found
    ]
    # What was asked for before an attempt that never began still holds.
    begun = last is None or last.attempt < number
    waiting = [] if begun or last is None else last.changes
    return Standing(number, now, files, [*waiting, *changes, *accepted_now])


def write_standing(run: RunDir, standing: Standing) -> None:
    """Add it to the manifest, or put it in the place of one that no attempt ever used.

    Raises:
        OSError: the run directory cannot be written.
    """
    earlier = [one for one in read_manifest(run).attempts if one.attempt < standing.attempt]
    run.note(attempts=[asdict(one) for one in [*earlier, standing]])


def _refuse_lost_base(recipe: Recipe) -> None:
    place = local_path(recipe.model.id)
    if place.startswith("/") and not (Path(place) / "config.json").is_file():
        raise ModelError(
            f"the base model of the run is not in {place} any more.",
            hint="Say where it is now with --model PATH; it is compared by hash.",
        )


def _refuse(run: RunDir, found: Sequence[Difference]) -> None:
    if not found:
        return
    parts = ",".join(part for part in PARTS if part in {one.part for one in found})
    raise ChangedError(
        f"{run.path} does not stand on what it stood on:\n"
        + "".join(f"  {one}\n" for one in found).rstrip(),
        hint=f"Put it back; or, if it is meant, go on with --accept-changes {parts}: events and "
        "report will say so.",
    )
