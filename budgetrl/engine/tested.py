"""Which versions of torch, trl, Unsloth and vLLM were tried together, and whether these are here.

    nearest_set("unsloth", installed(...)).differences(installed(...))     [] if all is well

Unsloth rewrites TRL's trainer as text and vLLM changes names every month: other versions may train
something else without a word. The sets are in assets/tested_sets.toml; no library is imported.
"""

import importlib.metadata
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from budgetrl.errors import RefusedError
from budgetrl.recipe.schema import EngineName

DECISIVE = ("trl", "unsloth", "unsloth_zoo", "vllm")
"""A run is refused over these, and over any package that is missing; doctor names all."""


class Difference(NamedTuple):
    """A package that is not as in a set."""

    package: str
    found: str | None
    """None: not installed."""
    wanted: str


@dataclass(frozen=True, slots=True)
class VersionSet:
    """Versions that were tried together."""

    name: str
    engine: str
    date: str
    ran: str
    """What was run with it, for people."""
    extra: str
    """The extra of this package that requires it."""
    versions: Mapping[str, str]

    @property
    def install(self) -> str:
        """The command that installs it: the script of this checkout, or pip where there is none."""
        script = Path(__file__).resolve().parents[2] / "scripts" / "install.sh"
        if script.exists():
            return f"bash scripts/install.sh {self.extra}"
        return f"pip install 'budgetrl[{self.extra}]'"

    def differences(self, installed: Mapping[str, str | None]) -> list[Difference]:
        """Packages that are missing or of another version; local builds (+cpu) are the same."""
        return [
            Difference(package, found, wanted)
            for package, wanted in self.versions.items()
            if (found := installed.get(package)) is None or found.partition("+")[0] != wanted
        ]


@cache
def version_sets(engine: str) -> Sequence[VersionSet]:
    """The sets for an engine; the one that install.sh installs is the first."""
    file = resources.files("budgetrl").joinpath("assets/tested_sets.toml")
    sets = [VersionSet(**entry) for entry in tomllib.loads(file.read_text("utf-8"))["sets"]]
    return [entry for entry in sets if entry.engine == engine]


def installed_versions(engine: str) -> dict[str, str | None]:
    """What is installed of the packages in an engine's sets."""
    return {name: version_of(name) for entry in version_sets(engine) for name in entry.versions}


def nearest_set(engine: str, installed: Mapping[str, str | None]) -> VersionSet:
    """The set with the fewest differences; of equal ones the first."""
    return min(version_sets(engine), key=lambda entry: len(entry.differences(installed)))


def refuse_untested(
    engine: EngineName,
    installed: Mapping[str, str | None],
    *,
    cuda: bool = False,
    forced: bool = False,
) -> None:
    """Stop before a run with packages missing, or with versions that nobody tried together.

    Args:
        engine: that of the recipe.
        installed: versions by package.
        cuda: the run takes a GPU, which torch's CPU build cannot use.
        forced: refuse only if a package is missing that no engine can do without.

    Raises:
        RefusedError: names the packages, both versions, and the command that installs a tested set.
    """
    if not version_sets(engine):
        return
    nearest = nearest_set(engine, installed)
    essential = version_sets(EngineName.PLAIN)[0].versions
    if missing := [package for package in essential if installed.get(package) is None]:
        raise RefusedError(f"not installed: {', '.join(missing)}.", hint=f"Run {nearest.install}.")
    if forced:
        return
    wrong = [
        f"{package} {'is not installed' if found is None else found} (tested: {wanted})"
        for package, found, wanted in nearest.differences(installed)
        if found is None or package in DECISIVE
    ]
    torch = installed.get("torch")
    if cuda and torch is not None and torch.endswith("+cpu"):
        wrong.append(f"torch {torch} (needed on a GPU: the CUDA build)")
        nearest = version_sets(EngineName.UNSLOTH)[0]
    if wrong:
        raise RefusedError(
            f"what is installed is no tested set of versions: {', '.join(wrong)}.",
            hint=f"Run {nearest.install}, or go on with `budgetrl run --force versions`.",
        )


def version_of(package: str) -> str | None:
    """What is installed of a package; None: nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
