"""`budgetrl bench`: which settings are fastest on this machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetrl.cli.options import AllowCode, Json, RecipeRef, Sets, read_recipe
from budgetrl.cli.output import print_json
from budgetrl.errors import ExitCode

if TYPE_CHECKING:
    from budgetrl.bench.measure import Bench


def bench(
    recipe: RecipeRef,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="M", min=0.1, help="What the bench may take.")
    ] = 10.0,
    sets: Sets = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for what the bench keeps.")
    ] = Path("benches"),
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> int:
    """Measure throughput settings on this machine: a few updates of the recipe under each.

    The recipe as it is comes first, and what it took is kept for `budgetrl estimate` and the plan
    of `budgetrl run`. No setting changes what is learnt, only how long it takes.
    """
    from budgetrl.bench.measure import bench as measure
    from budgetrl.rundir import RunDir
    from budgetrl.supervise.attempt import process_start

    started = process_start()
    loaded = read_recipe(recipe, sets or ())
    folder = out / RunDir.new_name(loaded.recipe.name)
    found = measure(
        loaded, 60 * minutes, started, folder,
        lambda text: print(text, file=sys.stderr), allow_code=allow_code,
    )  # fmt: skip
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    return ExitCode.OK


def _print(found: "Bench") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "setting", "s/update", "rollout", "update", "tokens/s", "peak GiB", box=SIMPLE_HEAD
    )
    for one in found.settings:
        if one.step_s is None or one.tokens_per_s is None:
            table.add_row(one.name, one.error or "")
            continue
        peak = "" if one.peak_gib is None else f"{one.peak_gib:.1f}"
        table.add_row(
            one.name, f"{one.step_s:.2f}", f"{one.phase_s['rollout']:.2f}",
            f"{one.phase_s['update']:.2f}", f"{one.tokens_per_s:,.0f}", peak,
        )  # fmt: skip
    console = Console(highlight=False, markup=False)
    console.print(f"{found.recipe} on {found.machine}, completions to {found.max_tokens} tokens")
    console.print(table)
    if found.fastest.name != found.settings[0].name:
        console.print(f"Fastest: --set {found.fastest.name}")
    if found.not_tried:
        console.print(f"Not tried, for want of time: {', '.join(found.not_tried)}")
    if found.profile_file is not None:
        console.print(f"Kept for estimates and plans: {found.profile_file}")
