"""`budgetrl sweep`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetrl.cli.options import (
    AllowCode,
    DisplayOption,
    Gpu,
    Hours,
    Json,
    Offline,
    PlanOnly,
    Price,
    RecipeRef,
    Sets,
    Usd,
    limits_of,
    read_recipe,
)
from budgetrl.cli.trials import begin
from budgetrl.errors import UsageError

if TYPE_CHECKING:
    from budgetrl.budget import Limits
    from budgetrl.recipe.load import LoadedRecipe
    from budgetrl.recipe.schema import Recipe
    from budgetrl.study.specs import Asked


def sweep(
    recipe: RecipeRef,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="KEY=V1,V2..",
            help="Values of a recipe key, such as lora.rank=8,64,256; once for each key.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", min=1, help="Seeds 1 to N of every point.")
    ] = None,
    hours: Hours = None,
    usd: Usd = None,
    price: Price = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", metavar="SUITE", help="Whose final pass@1 is the best; else the first."
        ),
    ] = None,
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="local|ray|ADDRESS",
            help="One trial after another here; on all cards of this machine's Ray cluster, or of "
            "this machine; or on the cluster at HOST:PORT.",
        ),
    ] = "local",
    asha: Annotated[
        bool, typer.Option("--asha", help="End bad trials early: one in four goes on at each rung.")
    ] = False,
    gpu: Gpu = None,
    plan: PlanOnly = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Sweep directory; an existing one goes on."),
    ] = None,
    sets: Sets = None,
    allow_protocols: Annotated[
        bool,
        typer.Option(
            "--allow-protocols",
            help="Run a grid over what makes the evaluation, without comparisons.",
        ),
    ] = False,
    display: DisplayOption = "auto",
    allow_code: AllowCode = False,
    offline: Offline = False,
    as_json: Json = False,
) -> int:
    """One recipe over a grid of values and seeds, in one budget for all trials and cards.

    Each trial is a normal run. Grid, seeds, budget and metric can stand in the table `sweep` of
    the recipe instead. The same command with --out, or `budgetrl resume DIR`, continues.
    """
    from budgetrl.study.specs import check_grid, lasting_name, trials_of

    loaded = read_recipe(recipe, sets or ())
    asked = replace(
        _asked(loaded, grid or (), seeds, metric, asha), comparable=not allow_protocols,
        recipe=recipe, sets=tuple(sets or ()),
    )  # fmt: skip
    check_grid(asked.grid)
    specs = trials_of(lasting_name(loaded.path), sets or (), asked.grid, asked.seeds)
    limits = _limits(loaded.recipe, limits_of(hours, usd, price), len(specs))
    return begin(
        asked, specs, limits, display,
        out=out, gpu=gpu, plan=plan, as_json=as_json, on=on, allow_code=allow_code,
    )  # fmt: skip


def _asked(
    loaded: "LoadedRecipe",
    grid: Sequence[str],
    seeds: int | None,
    metric: str | None,
    asha: bool,
) -> "Asked":
    """What a sweep is: flags, or else the recipe's [sweep]."""
    from budgetrl.study.specs import Asked, grid_of, parse_grid

    table = loaded.recipe.sweep
    chosen = parse_grid(grid) if grid else grid_of(table.grid if table else {})
    count = seeds or (table.seeds if table else 1)
    if not chosen and count < 2:
        raise UsageError(
            "a sweep needs a grid, or more than one seed.",
            hint="Write --grid lora.rank=8,64 (once for each key), or --seeds 3.",
        )
    suites = [spec.suite for spec in loaded.recipe.eval if "final" in spec.when]
    judged = metric or (table.metric if table else None) or next(iter(suites), None)
    if judged not in suites:
        said = f"--metric {judged}: " if judged else ""
        raise UsageError(
            f"{said}recipe {loaded.recipe.name} has no such final evaluation.",
            hint=f"Its suites: {', '.join(suites) or 'none; add an [[eval]]'}.",
        )
    return Asked(
        family=loaded.recipe.name,
        grid={key: list(values) for key, values in chosen.items()},
        seeds=count,
        split="asha" if asha or (table is not None and table.asha) else "time",
        kind="sweep",
        metric=judged,
    )


def _limits(recipe: "Recipe", given: "Limits", trials: int) -> "Limits":
    """Flags; else [sweep]; else the recipe's own budget for every trial."""
    from budgetrl.budget import Limits

    table, own = recipe.sweep, Limits.of(recipe)
    if not given.is_open:
        return given
    if table is not None and (table.hours is not None or table.usd is not None):
        said = recipe.budget.model_copy(update={"hours": table.hours, "usd": table.usd})
        own, trials = Limits.of(recipe.model_copy(update={"budget": said})), 1
    wall_s = None if own.wall_s is None else own.wall_s * trials
    return replace(given, wall_s=wall_s, usd=None if own.usd is None else own.usd * trials)
