"""Files that ship with budgetrl, named `asset:NAME` in recipes."""

from pathlib import Path

import budgetrl
from budgetrl.errors import RecipeError

PREFIX = "asset:"


def asset_root() -> Path:
    """The folder of the shipped files."""
    return Path(budgetrl.__file__).resolve().parent / "assets"


def local_path(ref: str) -> str:
    """A reference with `asset:` resolved to a path; anything else as it is.

    Raises:
        RecipeError: no such asset, or a name that leaves the folder.
    """
    if not ref.startswith(PREFIX):
        return ref
    root = asset_root()
    path = (root / ref.removeprefix(PREFIX)).resolve()
    if not path.is_relative_to(root) or not path.exists():
        raise RecipeError(f"{ref!r}: budgetrl ships no such asset.", hint=f"They lie in {root}.")
    return str(path)
