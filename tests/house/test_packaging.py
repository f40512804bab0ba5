"""What a user installs is what is tested: pins, wheel, shell scripts."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from budgetrl.recipe.load import list_recipes

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CORE = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
DEV = PYPROJECT["dependency-groups"]["dev"]
GENERATED = {"build", "dist", "evals", "runs"}


def files(pattern: str) -> list[Path]:
    """The checkout's own files, without environments, caches and run directories."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob(pattern))
    return sorted(
        path
        for path in found
        if path.parts[0] not in GENERATED and not any(part.startswith(".") for part in path.parts)
    )


def pins(name: str) -> dict[str, str]:
    """Canonical name -> exact version of one constraint file."""
    lines = (ROOT / "scripts" / f"constraints-{name}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", ["train", "dev", "gpu", "sweep"])
def test_constraint_files_hold_sorted_exact_public_versions_and_nothing_else(name: str) -> None:
    """No hosts, hashes or local builds: `torch==2.13.0+cpu` would bind everybody to one index."""
    text = (ROOT / "scripts" / f"constraints-{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[a-z0-9.]+", line)] == []
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names)) == [canonicalize_name(name) for name in names]


@pytest.mark.parametrize(
    ("requirements", "files"),
    [
        (CORE + EXTRAS["train"], ["train"]),
        (CORE + EXTRAS["train"] + EXTRAS["gpu"], ["gpu"]),
        (DEV, ["train", "dev"]),
        (DEV, ["gpu", "dev"]),
        (EXTRAS["sweep"], ["sweep"]),
    ],
    ids=["train", "gpu", "dev-on-train", "dev-on-gpu", "sweep"],
)
def test_every_declared_requirement_is_pinned_to_a_version_it_allows(
    requirements: list[str], files: list[str]
) -> None:
    pinned = {name: version for file in files for name, version in pins(file).items()}
    for text in requirements:
        requirement = Requirement(text)
        if requirement.name != "budgetrl":
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), (text, version)


@pytest.mark.parametrize("added", ["dev", "sweep"])
def test_what_comes_on_top_never_moves_a_version_of_the_environment_under_it(added: str) -> None:
    for base in ("train", "gpu"):
        both = pins(base).keys() & pins(added).keys()
        assert {name: pins(base)[name] for name in both} == {
            name: pins(added)[name] for name in both
        }


@pytest.mark.parametrize("text", [*CORE, *EXTRAS["train"], *EXTRAS["gpu"], *EXTRAS["sweep"], *DEV])
def test_every_requirement_has_an_upper_bound(text: str) -> None:
    requirement = Requirement(text)
    own = requirement.name == "budgetrl"
    assert own or any(part.operator in ("==", "<", "<=") for part in requirement.specifier)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the backend of pyproject.toml without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = folder.glob("budgetrl-*.whl")
    return built


def test_the_wheel_carries_recipes_model_licence_and_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"budgetrl/_recipes/{path}" for path in toml_files(ROOT / "recipes")}
    assert recipes <= names
    assert "budgetrl/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(re.fullmatch(r"budgetrl/assets/.*\.safetensors", name) for name in names)
    assert {name.split("/")[0] for name in names} == {"budgetrl", "budgetrl-0.1.0.dist-info"}


def toml_files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*.toml"))


def test_recipes_list_works_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import budgetrl, sys; from budgetrl.cli import main; print(budgetrl.__file__);"
        "sys.exit(main(['recipes', 'list', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert [name for name in list_recipes() if f'"{name}"' not in done.stdout] == []


def test_every_recipe_file_of_the_checkout_is_listed() -> None:
    """A recipe that lies in the wrong folder would never be parsed by the recipe tests."""
    runnable = {
        path.stem
        for path in (ROOT / "recipes").rglob("*.toml")
        if not path.stem.startswith("_") and "overlays" not in path.parts
    }
    assert {path.stem for path in list_recipes().values()} == runnable


@pytest.mark.parametrize("script", [*map(str, files("*.sh")), ".ci/run"])
def test_shell_scripts_are_strict_and_parse(script: str) -> None:
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True, timeout=10)
    text = (ROOT / script).read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text or "exec " in text


def test_ci_runs_the_test_script_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[1:]
    assert len(lines) == 1
    assert lines[0].startswith("exec bash ")
    assert lines[0].endswith('/scripts/test.sh"')
