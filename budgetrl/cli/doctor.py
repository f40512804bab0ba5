"""`budgetrl doctor`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetrl.cli.options import Json, Offline, Out

if TYPE_CHECKING:
    from budgetrl.doctor import Check, Level


def doctor(
    recipe: Annotated[
        str, typer.Argument(help="The GPU recipe that this machine is wanted for.")
    ] = "deepscaler_r256",
    out: Out = Path("runs"),
    offline: Offline = False,
    as_json: Json = False,
) -> int:
    """Look at this machine: can the quickstart run here, can the GPU path, and if not, why."""
    from budgetrl.doctor import can_run, examine, why_not
    from budgetrl.recipe.load import load_recipe

    checks = examine(out, load_recipe(recipe).recipe)
    quickstart, gpu = can_run(checks, "quickstart"), can_run(checks, "gpu")
    if as_json:
        document = {
            "ok": quickstart,
            "gpu_ok": gpu,
            "gpu_why": why_not(checks),
            "checks": [asdict(check) for check in checks],
        }
        sys.stdout.write(json.dumps(document) + "\n")
        return 0 if quickstart else 1
    _show(checks, recipe)
    return 0 if quickstart else 1


def _show(checks: "list[Check]", recipe: str) -> None:
    """A table of what is there, then what can run, and what to do about the rest."""
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from budgetrl.doctor import why_not

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "found", "wanted"):
        table.add_column(title, overflow="fold")
    for check in checks:
        bad = "[yellow]-[/]" if check.level != "quickstart" else "[red]x[/]"
        cells = map(escape, (check.name, check.found, check.wanted))
        table.add_row("[green]+[/]" if check.ok else bad, *cells)
    console.print(table)
    parts: tuple[tuple[Level, str, str], ...] = (
        ("quickstart", "The quickstart (CPU)", "budgetrl run quickstart"),
        ("gpu", "The GPU path", f"budgetrl run {recipe}"),
    )
    for level, title, command in parts:
        reasons = why_not(checks, level)
        if not reasons:
            console.print(f"\n[green]{title} can run here:[/] {escape(command)}")
            continue
        console.print(f"\n[yellow]{title} cannot run here:[/]")
        console.print(Padding(escape("\n".join(reasons)), (0, 0, 0, 2)))
    besides = why_not(checks, "note")
    if besides:
        console.print("\nBesides:", Padding(escape("\n".join(besides)), (0, 0, 0, 2)))
