"""`budgetrl doctor`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetrl.cli.options import Json, Out
from budgetrl.cli.output import print_json

if TYPE_CHECKING:
    from budgetrl.doctor import Check, Level


def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="What this machine is wanted for, by name or path."),
    ] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> int:
    """Look at this machine: can the quickstart run here, can the GPU path, and if not, why.

    With RECIPE the exit code answers for that recipe: 0 if it can run here, else 1.
    """
    from budgetrl.doctor import GPU_RECIPE, can_run, examine, level_of, why_not
    from budgetrl.recipe.load import load_recipe

    asked = load_recipe(recipe or GPU_RECIPE).recipe
    checks, level = examine(out, asked), level_of(asked)
    quickstart = can_run(checks, "quickstart")
    wanted = quickstart if recipe is None else can_run(checks, level)
    if as_json:
        own = {"name": asked.name, "ok": wanted, "why": why_not(checks, level)}
        document = {
            "ok": quickstart,
            "gpu_ok": can_run(checks, "gpu"),
            "gpu_why": why_not(checks),
            "recipe": None if recipe is None else own,
            "checks": [asdict(check) for check in checks],
        }
        print_json(document)
    else:
        _show(checks, recipe or GPU_RECIPE, level)
    return 0 if wanted else 1


def _show(checks: "list[Check]", recipe: str, level: "Level") -> None:
    """A table of what is there, then what can run, and what to do about the rest."""
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from budgetrl.doctor import GPU_RECIPE, why_not

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "found", "wanted"):
        table.add_column(title, overflow="fold")
    for check in checks:
        bad = "[yellow]-[/]" if check.level != "quickstart" else "[red]x[/]"
        cells = map(escape, (check.name, check.found, check.wanted))
        table.add_row("[green]+[/]" if check.ok else bad, *cells)
    console.print(table)
    on_gpu = recipe if level == "gpu" else GPU_RECIPE
    parts: list[tuple[Level, str, str]] = [
        ("quickstart", "The quickstart (CPU)", "budgetrl run quickstart"),
        ("gpu", "The GPU path", f"budgetrl run {on_gpu}"),
    ]
    if level == "recipe":
        parts.append(("recipe", recipe, f"budgetrl run {recipe}"))
    for needed, title, command in parts:
        reasons = why_not(checks, needed)
        if not reasons:
            console.print(f"\n[green]{title} can run here:[/] {escape(command)}")
            continue
        console.print(f"\n[yellow]{title} cannot run here:[/]")
        console.print(Padding(escape("\n".join(reasons)), (0, 0, 0, 2)))
    besides = why_not(checks, "note")
    if besides:
        console.print("\nBesides:", Padding(escape("\n".join(besides)), (0, 0, 0, 2)))
