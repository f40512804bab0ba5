"""`budgetrl export`: a recipe for verl or TRL, a run as a model or an adapter."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from budgetrl.cli.options import Json, MovedModel, Offline, Sets, quiet_libraries, read_recipe
from budgetrl.cli.output import print_found
from budgetrl.errors import UsageError

OF_RECIPES, OF_RUNS = ("verl", "trl"), ("merged", "adapter")


def export(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN", help="A recipe for verl or trl, else a run.")
    ],
    to: Annotated[
        Literal["verl", "trl", "merged", "adapter"],
        typer.Option(
            "--to",
            help="verl, trl: a folder that trains the recipe there. merged: base and adapter as "
            "one model. adapter: the adapter with its card.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")],
    gpus: Annotated[
        int | None, typer.Option("--gpus", metavar="N", min=1, help="That verl has.")
    ] = None,
    sets: Sets = None,
    model: MovedModel = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Take a recipe, or what was trained from it, to another program.

    For verl and TRL: configuration, run script, rows as Parquet, our reward, and a list of what has
    no equal there. Of a run: a model folder that everybody takes, or its adapter.
    """
    from budgetrl.rundir import EVENTS, MANIFEST

    quiet_libraries()
    is_run = any((Path(source) / name).is_file() for name in (MANIFEST, EVENTS))
    if is_run and to in OF_RECIPES:
        raise UsageError(
            f"{source} is a run, and --to {to} takes a recipe.",
            hint=f"Export its recipe: `budgetrl export {source}/recipe.toml --to {to} --out DIR`; "
            "what it trained goes with --to merged or --to adapter.",
        )
    if to in OF_RUNS and not Path(source).is_dir() and _is_recipe(source):
        raise UsageError(
            f"{source} is a recipe, and --to {to} takes a run.",
            hint=f"Train it first: budgetrl run {source}; then give the folder under runs/.",
        )
    if to in OF_RUNS and (sets or gpus):
        raise UsageError(f"--set and --gpus are for recipes, not for --to {to}.")
    if gpus and to == "trl":
        raise UsageError(
            "--gpus is for verl.", hint="With TRL, say it to accelerate: see its `--num_processes`."
        )
    if to in OF_RECIPES:
        _export_recipe(source, to, out, gpus or 1, sets or [], as_json)
    elif to == "merged":
        _export_merged(source, out, model, as_json)
    else:
        _export_adapter(source, out, model, as_json)


def _is_recipe(source: str) -> bool:
    from budgetrl.recipe.load import list_recipes

    return source.endswith(".toml") or source in list_recipes()


def _export_recipe(
    source: str, to: str, out: Path, gpus: int, sets: list[str], as_json: bool
) -> None:
    from budgetrl.export.trl import export_trl
    from budgetrl.export.verl import export_verl

    recipe = read_recipe(source, sets).recipe
    made = export_verl(recipe, out, gpus) if to == "verl" else export_trl(recipe, out)
    print_found(as_json, made.to_json(), map(str, made.files))
    if as_json:
        return
    for left in made.unmapped:
        sys.stderr.write(f"left behind: {left.key} = {json.dumps(left.value)}: {left.why}\n")
    sys.stderr.write(f"Train with: bash {out}/run.sh   (how to install: {out}/README.md)\n")


def _export_merged(source: str, out: Path, model: str | None, as_json: bool) -> None:
    from budgetrl.display.output import aside
    from budgetrl.display.progress import downloads
    from budgetrl.export.merged import export_merged

    with aside(sys.stdout, sys.stderr), downloads() as follow:
        made = export_merged(source, out, model, lambda text: print(text, file=sys.stderr), follow)
    print_found(as_json, made.to_json(), map(str, made.files))
    if not as_json:
        sys.stderr.write(
            f"{made.base} with the adapter in its weights, as {made.dtype}: {made.projection:.2%} "
            f"of what was trained is in them, {made.least:.2%} of the layer that lost most.\n"
        )
    if made.warning:
        sys.stderr.write(f"Warning: {made.warning}.\n")


def _export_adapter(source: str, out: Path, model: str | None, as_json: bool) -> None:
    from budgetrl.display.progress import downloads
    from budgetrl.export.adapter import export_adapter_to

    with downloads() as follow:
        files = [str(file) for file in export_adapter_to(source, out, model, follow)]
    print_found(as_json, {"files": files, "projection": None}, files)
