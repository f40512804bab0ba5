"""Laws of the house that no type checker knows: of money, of phases, of files."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import budgetrl
from budgetrl.budget import PhaseTimes
from budgetrl.phases import ONCE, PHASES, UPDATE_PHASES, PhaseName

PACKAGE = Path(budgetrl.__file__).parent
MONEY = {"budget.py", "units.py"}
PRICES = {"usd_per_hour", "price"}


def modules(*apart_from: str) -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name not in apart_from:
            yield name, ast.parse(file.read_text(encoding="utf-8"))


def is_price(node: ast.expr) -> bool:
    return getattr(node, "attr", getattr(node, "id", None)) in PRICES


def reckons_money(node: ast.AST) -> bool:
    """Whether hours are made of seconds here, or dollars of a price."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult | ast.Div):
        return False
    sides = (node.left, node.right)
    return any(is_price(s) or (isinstance(s, ast.Constant) and s.value == 3600) for s in sides)


def test_only_the_budget_turns_seconds_into_hours_and_dollars() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in modules(*MONEY)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and reckons_money(node)
    ]
    assert found == [], "ask budget.usd_of, Limits.of or units.hours"
    tree = ast.parse((PACKAGE / "budget.py").read_text(encoding="utf-8"))
    assert any(map(reckons_money, ast.walk(tree))), "the law sees what it forbids"


def names_in(node: ast.AST) -> set[object]:
    """The texts that stand in a list, a tuple, a set, or in front of a dict's values."""
    items = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
    return {item.value for item in items if isinstance(item, ast.Constant)}


def test_a_new_phase_is_added_in_one_place() -> None:
    """Where parts need them by name, as a plan's terms do, they give each something of its own."""
    assert get_args(PhaseName) == tuple(PHASES)
    assert {f"{name}_s" for name in (*ONCE, *UPDATE_PHASES)} <= set(PhaseTimes.__annotations__)
    found = [
        f"{name}:{node.lineno}"
        for name, tree in modules("phases.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.List | ast.Tuple | ast.Set)
        and (len(names_in(node) & set(PHASES)) > 2 or names_in(node) >= {*UPDATE_PHASES[:4]})
    ]
    assert found == [], "ask phases.PHASES, UPDATE_PHASES or ONCE"


def joins_a_runs_path(node: ast.AST) -> bool:
    """`run.path / name` and `run.path.glob(..)`, whatever the run is called."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        at = node.left
    elif isinstance(node, ast.Attribute) and node.attr in ("glob", "rglob", "iterdir"):
        at = node.value
    else:
        return False
    if not (isinstance(at, ast.Attribute) and at.attr == "path"):
        return False
    owner = getattr(at.value, "attr", getattr(at.value, "id", ""))
    return owner.strip("_") in ("run", "mirror", "source", "copy")


def test_only_the_run_directory_knows_where_its_files_lie() -> None:
    found = [
        f"{name}:{getattr(node, 'lineno', 0)}"
        for name, tree in modules("rundir.py", "checkpoint_files.py")
        for node in ast.walk(tree)
        if joins_a_runs_path(node)
    ]
    assert found == [], "ask RunDir: evals, report, adapter, worker_log, file, scratch"
    assert joins_a_runs_path(ast.parse("account.run.path / name", mode="eval").body)


def test_no_module_has_more_than_four_hundred_lines() -> None:
    sizes = {
        file.relative_to(PACKAGE).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in PACKAGE.rglob("*.py")
    }
    assert [name for name, lines in sizes.items() if lines > 400] == [], "split it by idea"
