"""`budgetrl sweep`."""

import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from budgetrl.cli.options import (
    AllowCode,
    DisplayOption,
    Hours,
    Json,
    Offline,
    Price,
    Sets,
    Usd,
    end_here,
    limits_of,
    read_recipe,
)
from budgetrl.cli.study import new_folder, run_study, usage_of_json
from budgetrl.errors import ExitCode, RefusedError, UsageError

if TYPE_CHECKING:
    from budgetrl.budget import Limits
    from budgetrl.recipe.load import LoadedRecipe
    from budgetrl.recipe.schema import Recipe
    from budgetrl.study.cluster import Cluster
    from budgetrl.study.plan import Split, SweepPlan


def sweep(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a bundled one.")],
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
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="NAME|FILE", help="GPU to plan for.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan and stop.")] = False,
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

    Each trial is a normal run. Grid, seeds, budget and metric can stand in the recipe's [sweep]
    table instead. The same command with --out, or `budgetrl resume DIR`, continues.
    """
    from budgetrl.study.asha import RISK, RULE
    from budgetrl.study.place import is_study
    from budgetrl.study.plan import plan_sweep
    from budgetrl.study.specs import check_grid, trials_of
    from budgetrl.study.state import StudyDir, open_study
    from budgetrl.supervise.attempt import process_start
    from budgetrl.units import duration

    usage_of_json(as_json, display)
    started = process_start()
    loaded = read_recipe(recipe, sets or ())
    config = _config(loaded, grid or (), seeds, metric, asha, allow_protocols)
    config |= {"recipe": recipe, "sets": list(sets or ())}
    if out is not None and is_study(out) and not plan:
        study = open_study(out)
        study.check_config(config)
        study.note_on(on)
        return run_study(study, started, gpu, display, as_json, allow_code=allow_code)
    check_grid(loaded.recipe, config["grid"])
    specs = trials_of(_found(loaded, recipe), sets or (), config["grid"], config["seeds"])
    limits = _limits(loaded.recipe, limits_of(hours, usd, price), len(specs))
    limits = replace(limits, end=None if plan else end_here(None))
    split: Split = config["split"]
    with ExitStack() as held:
        pool: Cluster | None = None
        if on != "local":
            from budgetrl.study.cluster import open_cluster

            cuda = loaded.recipe.engine.device == "cuda"
            pool = held.enter_context(open_cluster(on, cuda=cuda, most=len(specs)))
        made = plan_sweep(
            specs, limits, split=split, gpu=gpu, dry_run=plan or pool is not None,
            slots=1 if pool is None else pool.slots, mixed=allow_protocols,
        )  # fmt: skip
        if plan:
            return _print_plan(made, config, as_json)
        sys.stderr.write(
            f"{len(specs)} trials, {made.slots} at a time, in {duration(made.budget.wall_s)} of "
            f"{'this machine' if pool is None else 'all cards'}\n"
        )
        if asha:
            sys.stderr.write(f"{RULE}\n{RISK}\n")
        study = StudyDir.create(out or new_folder("sweeps", loaded.recipe.name), made, config)
        study.note_on(on)
        if pool is not None:
            try:
                pool.check(study.path, loaded.recipe.checkpoint.mirror)
            except RefusedError:
                study.discard()
                raise
        return run_study(study, started, gpu, display, as_json, pool, allow_code=allow_code)


def _found(loaded: "LoadedRecipe", recipe: str) -> str:
    """The bundled name, or the whole path: workers may stand in another folder."""
    from budgetrl.recipe.load import list_recipes

    known = list_recipes()
    return next((name for name, path in known.items() if path == loaded.path), str(loaded.path))


def _config(
    loaded: "LoadedRecipe",
    grid: list[str] | tuple[str, ...],
    seeds: int | None,
    metric: str | None,
    asha: bool,
    mixed: bool,
) -> dict[str, Any]:
    """What a sweep is: flags, or else the recipe's [sweep]."""
    from budgetrl.study.specs import grid_of, parse_grid

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
    return {
        "kind": "sweep",
        "family": loaded.recipe.name,
        "grid": {key: list(values) for key, values in chosen.items()},
        "seeds": count,
        "metric": judged,
        "split": "asha" if asha or (table is not None and table.asha) else "time",
        "comparable": not mixed,
    }


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


def _print_plan(made: "SweepPlan", config: dict[str, Any], as_json: bool) -> int:
    from dataclasses import asdict

    from budgetrl.study.asha import RISK, RULE
    from budgetrl.study.plan import plan_rows
    from budgetrl.units import duration, usd

    rows, least = plan_rows(made), made.detectable().get(config["metric"])
    document: dict[str, Any] = {
        "schema_version": 1,
        "config": config,
        "trials": rows,
        "budget": asdict(made.budget),
        "slots": made.slots,
        "rungs": list(made.rungs),
        "wall_s": made.wall_s,
        "total_s": made.total_s,
        "total_usd": made.budget.usd_of(made.total_s),
        "smallest_detectable_difference": least,
        "over_seeds": made.detectable_over_seeds(),
    }
    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
        return ExitCode.OK
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from budgetrl.report.best import value_word

    keys = list(config["grid"])
    table = Table(*keys, "seed", "budget", "updates", "s/update", "dollars", box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(
            *(value_word(row["values"][key]) for key in keys), str(row["seed"]),
            duration(row["budget_s"]), str(row["planned_steps"]), f"{row['step_s']:.1f}",
            usd(row["expected_usd"]),
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{len(rows)} trials, {made.slots} at a time: about {duration(made.wall_s)}, "
        f"{duration(made.total_s)} of {duration(made.budget.wall_s)} are paid "
        f"({usd(document['total_usd'])}); times from {made.trials[0].plan.source}."
    )
    if made.rungs:
        console.print(f"Judged after {', '.join(map(str, made.rungs))} updates. {RULE} {RISK}")
    if least is not None:
        console.print(
            f"On {config['metric']} a difference between two points below about "
            f"{100 * least:.1f} points is sampling noise, before what seeds add."
        )
    over_seeds = made.detectable_over_seeds()
    console.print(
        "One seed says nothing of the spread between seeds, 5 to 15 points on AIME24 at 1.5B "
        "(arXiv 2504.07086): add --seeds 3 or more."
        if over_seeds is None
        else f"Where seeds spread by 5 points, {made.seeds} of them tell differences above about "
        f"{100 * over_seeds:.1f} points (Student's t; arXiv 2504.07086 saw 5 to 15 on AIME24)."
    )
    return ExitCode.OK
