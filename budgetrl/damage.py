"""What can be done where a file of a run directory is damaged or gone.

    way_on(folder, "plan.json")     a hint: the second copy's command, or what is possible without

Reads the recipe only to find where second copies lie (`checkpoint.mirror`).
"""

import json
import os
import tomllib
from contextlib import suppress
from pathlib import Path

RESOLVED, RECIPE = "recipe.resolved.json", "recipe.toml"
"""The recipe as it counts, and as it was given."""


def way_on(run: Path, name: str) -> str:
    """What can be done without one of a run's JSON files.

    Args:
        run: the run directory.
        name: of the file.
    """
    shown = f"`budgetrl report {run}` shows what was measured all the same"
    if (run / name).is_file() and not os.access(run / name, os.R_OK):
        return f"Only its owner may read it, for it may hold secrets. {shown}."
    mirror = _mirror(run)
    if mirror is not None and _is_whole(mirror / run.name / name):
        return (
            f"Its second copy is whole: `cp {mirror / run.name / name} {run / name}`, or go on "
            f"there with `budgetrl resume {mirror / run.name}`."
        )
    shown = f"{shown}, and " if (run / RESOLVED).is_file() else ""
    return (
        f"Put it back from a copy, if there is one. {shown}"
        "checkpoints/ holds the adapters; copied elsewhere, each is a target of `budgetrl eval`."
    )


def _mirror(run: Path) -> Path | None:
    """The folder of second copies, by whichever of the two recipe files can be read."""
    for file, parse in ((RESOLVED, json.loads), (RECIPE, tomllib.loads)):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            tables = parse((run / file).read_text(encoding="utf-8"))
            if file == RESOLVED:
                tables = tables["recipe"]
            return Path(tables["checkpoint"]["mirror"])
    return None


def _is_whole(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        return False
