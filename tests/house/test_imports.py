"""The command line starts without heavy libraries, and every public name is what it says."""

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import budgetrl

HEAVY = {
    "accelerate",
    "datasets",
    "latex2sympy2_extended",
    "math_verify",
    "matplotlib",
    "peft",
    "sympy",
    "torch",
    "transformers",
    "trl",
    "unsloth",
    "vllm",
}
# DESIGN.md "Public Python API" without the error tree: name -> the room it lives in. A name that
# moves or goes breaks users.
PUBLIC = {
    "Budget": "budget",
    "Engine": "engine",
    "Recipe": "recipe",
    "RunResult": "api",
    "StopReason": "types",
    "build_reward": "rewards",
    "compare": "report",
    "detect_gpu": "hardware",
    "estimate": "api",
    "evaluate": "api",
    "grade": "rewards",
    "list_recipes": "recipe",
    "list_runs": "rundir",
    "load_recipe": "recipe",
    "open_engine": "engine",
    "open_run": "rundir",
    "paired_difference": "evaluation",
    "pass_at_k": "evaluation",
    "resume": "api",
    "train": "api",
    "wilson_interval": "evaluation",
    "write_report": "report",
}
SUBMODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(budgetrl.__path__, "budgetrl.")
    # Importing it would change TRL for every later test of this process.
    if module.name != "budgetrl.engine.unsloth"
)


HELP_NEEDS = {"cli", "display", "errors", "garbage", "rewards", "units"}
"""Rooms that `--help` loads; what reads recipes or runs comes with the command."""


def modules_after(statement: str, depth: int = 1) -> set[str]:
    """Names in sys.modules, to a depth, once a fresh interpreter has run the statement."""
    names = f"{{'.'.join(name.split('.')[:{depth}]) for name in sys.modules}}"
    code = f"{statement}\nimport sys\nprint(*{names})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statement",
    [
        "import budgetrl.cli",
        "from budgetrl.recipe.load import list_recipes, load_recipe; load_recipe('quickstart')",
        "import budgetrl.supervise, budgetrl.display, budgetrl.history, budgetrl.estimation",
        "import budgetrl; budgetrl.train, budgetrl.estimate, budgetrl.open_run, budgetrl.pass_at_k",
    ],
)
def test_no_heavy_library_is_loaded_by(statement: str) -> None:
    assert modules_after(statement) & HEAVY == set()


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["recipes", "check", "--help"]])
def test_help_loads_little(words: list[str]) -> None:
    """pydantic alone would be a third of the time to an answer."""
    loaded = modules_after(f"from budgetrl.cli import main; main({words})", depth=2)
    assert loaded & (HEAVY | {"numpy", "pydantic", "tomllib"}) == set()
    rooms = {name.partition(".")[2] for name in loaded if name.startswith("budgetrl.")}
    assert rooms == HELP_NEEDS


def test_help_of_the_command_line_loads_no_heavy_library_and_no_recipe() -> None:
    statement = (
        "import contextlib, budgetrl.cli, sys\n"
        "sys.argv = ['budgetrl', '--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    budgetrl.cli.main()"
    )
    assert modules_after(statement) & {*HEAVY, "pydantic"} == set()


@pytest.mark.parametrize("name", SUBMODULES)
def test_every_submodule_imports(name: str) -> None:
    assert isinstance(importlib.import_module(name), ModuleType)


def test_the_public_names_are_the_documented_ones_and_the_error_tree() -> None:
    errors = importlib.import_module("budgetrl.errors")
    tree = {name for name in budgetrl.__all__ if name.endswith("Error")}
    assert PUBLIC.keys() <= set(budgetrl.__all__) - tree
    assert "BudgetRLError" in tree
    assert all(issubclass(getattr(budgetrl, name), errors.BudgetRLError) for name in tree)


def test_no_submodule_shadows_a_public_name() -> None:
    """`import budgetrl.x` sets the attribute x on the package, over a public name called x."""
    for name in SUBMODULES:
        importlib.import_module(name)
    for name, room in PUBLIC.items():
        found = getattr(budgetrl, name)
        assert not isinstance(found, ModuleType), name
        assert f"{found.__module__}.".startswith(f"budgetrl.{room}."), name


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        budgetrl.no_such_name  # noqa: B018


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "budgetrl", "--version"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.split()) == (0, ["budgetrl", budgetrl.__version__])
