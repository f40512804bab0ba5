"""`budgetrl estimate`: what a recipe costs and whether it fits, before anything is paid."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from budgetrl.cli.options import (
    Gpu,
    Hours,
    Json,
    Offline,
    Price,
    RecipeRef,
    Sets,
    Usd,
    limits_of,
    read_recipe,
)
from budgetrl.cli.output import print_json
from budgetrl.errors import UsageError


def estimate(
    recipe: RecipeRef,
    gpu: Gpu = None,
    all_gpus: Annotated[
        bool, typer.Option("--all-gpus", help="Compare all known GPUs, best value marked.")
    ] = False,
    hours: Hours = None,
    usd: Usd = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="Plan for this many updates instead.")
    ] = None,
    price: Price = None,
    from_run: Annotated[
        str | None,
        typer.Option("--from-run", metavar="RUN", help="Correct phases by what this run took."),
    ] = None,
    from_probe: Annotated[
        Path | None,
        typer.Option(
            "--from-probe",
            metavar="FILE",
            help="Groups with signal by the solve_rates.json that a probe has measured.",
        ),
    ] = None,
    sets: Sets = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Say whether a recipe fits a GPU, what an update takes, and what the money buys.

    Needs no GPU, no network and no torch. Every total has a band and its assumptions.
    """
    from budgetrl.estimation.as_json import estimate_json, estimates_json
    from budgetrl.estimation.request import Request, answer, answer_all

    if gpu is not None and all_gpus:
        raise UsageError(
            "--gpu and --all-gpus exclude one another.", hint="Name one GPU, or compare all."
        )
    if from_probe is not None and all_gpus:
        raise UsageError("--from-probe and --all-gpus exclude one another.", hint="Name one GPU.")
    loaded = read_recipe(recipe, sets or ())
    request = Request(
        recipe=loaded.recipe,
        gpu=gpu,
        limits=limits_of(hours, usd, price),
        steps=steps,
        from_run=from_run,
    )
    if loaded.recipe.engine.device == "cpu" and (gpu is not None or all_gpus):
        sys.stderr.write(
            f'{loaded.recipe.name} runs on a CPU; planned as if engine.device were "cuda", which a '
            "run there needs in its recipe.\n"
        )
    if all_gpus:
        estimates = answer_all(request)
        if as_json:
            print_json(estimates_json(estimates), allow_nan=False)
            return
        from budgetrl.cli.estimate_table import print_table

        print_table(estimates)
        return
    made = answer(request)
    name = loaded.recipe.recipe.beside
    beside = answer(replace(request, recipe=read_recipe(name, ()).recipe)) if name else None
    if as_json:
        print_json(estimate_json(made, beside, from_probe), allow_nan=False)
        return
    from budgetrl.cli.estimate_view import print_estimate

    print_estimate(made, loaded.recipe.recipe.summary, beside, from_probe)
