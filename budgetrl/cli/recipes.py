"""`budgetrl recipes`: what can be run, what is in it, a copy to edit, and whether it is valid."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from budgetrl.cli.look import Command, Group
from budgetrl.cli.options import Json, Sets
from budgetrl.cli.output import print_json
from budgetrl.errors import BudgetRLError, ExitCode, RecipeError, UsageError

if TYPE_CHECKING:
    from budgetrl.recipe.load import LoadedRecipe

app = typer.Typer(cls=Group, help="Recipes: list, show, copy, check.", no_args_is_help=True)

OVERLAY_BASE = "deepscaler_r64"
"""The recipe that overlays are checked on."""

RecipeName = Annotated[str, typer.Argument(metavar="NAME|PATH", help="A bundled name or a file.")]


@app.command("list", cls=Command)
def list_(as_json: Json = False) -> None:
    """All bundled recipes, with what each is for."""
    from budgetrl.recipe.load import list_recipes, load_recipe

    rows = []
    for name, path in list_recipes().items():
        info = load_recipe(path).recipe.recipe
        rows.append({"name": name, "summary": info.summary, "path": str(path)})
    if as_json:
        print_json({"recipes": rows})
        return
    names = [row["name"] for row in rows] + [f"overlays/{path.stem}" for path in _overlays()]
    width = max(map(len, names)) + 2
    lines = [f"{row['name']:<{width}}{row['summary']}" for row in rows]
    sys.stdout.write("\n".join([*lines, "", *_overlay_lines(width)]) + "\n")


@app.command(cls=Command)
def show(
    recipe: RecipeName,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Every value, and where it comes from.")
    ] = False,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """A recipe as it is written, or every resolved value with its source."""
    from budgetrl.recipe.flat import flat_values
    from budgetrl.recipe.load import load_recipe

    loaded = load_recipe(recipe, sets or ())
    if as_json:
        print_json(
            {
                "name": loaded.recipe.name,
                "path": str(loaded.path),
                "resolved": loaded.recipe.model_dump(mode="json"),
                "sources": dict(loaded.sources),
                "stages": {
                    stage.name: loaded.recipe.for_stage(stage).model_dump(mode="json")
                    for stage in loaded.recipe.stages
                },
                "lora_scale": loaded.recipe.lora.scale,
            }
        )
        return
    body = _resolved(flat_values(loaded.recipe), loaded.sources) if resolved else loaded.text
    sys.stdout.write(f"{_header(loaded)}\n\n{body.rstrip()}\n{_stages(loaded)}")


@app.command(cls=Command)
def copy(
    recipe: RecipeName,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="A new file, or a folder for it.")],
    bare: Annotated[
        bool, typer.Option("--bare", help="Without comments, which your changes may make false.")
    ] = False,
) -> None:
    """Copy a recipe to a file of yours; what it extends is still found."""
    from budgetrl.recipe.load import load_recipe, without_comments

    loaded = load_recipe(recipe)
    try:
        target = dest / loaded.path.name if dest.is_dir() else dest
        if target.exists():
            raise UsageError(
                f"{target} is there already.", hint="Nothing is overwritten: rename it."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        text = without_comments(loaded.text) if bare else loaded.text
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{dest}: cannot be written: {error.strerror}.") from None
    try:
        load_recipe(target)
    except RecipeError as error:
        target.unlink()
        raise RecipeError(
            f"{loaded.path} cannot be copied to {target}: {error.message}",
            hint="It extends files beside it: copy the folder, or write their full paths.",
        ) from None
    sys.stdout.write(f"{target}\n")


class Checked(NamedTuple):
    """One recipe, or one overlay on a recipe, and what is wrong with it."""

    name: str
    path: Path
    error: str | None


@app.command(cls=Command)
def check(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="Files; else all bundled ones.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Load recipes and say everything that is wrong with them; exit 2 if anything is.

    Without paths: all bundled recipes, and every overlay on top of one.
    """
    from budgetrl.account.text import scrub

    found = [_checked(ref, ref) for ref in paths] if paths else list(_check_bundled())
    bad = [one for one in found if one.error is not None]
    if as_json:
        rows = [
            {"name": one.name, "path": str(one.path), "ok": one.error is None, "error": one.error}
            for one in found
        ]
        document: dict[str, Any] = {"ok": not bad, "recipes": rows}
        if bad:
            document["error"] = {
                "type": "RecipeError",
                "message": f"{len(bad)} of {len(found)} recipes are not valid.",
                "hint": "`recipes` says why.",
                "exit_code": int(ExitCode.USER),
            }
        print_json(document)
    else:
        for one in found:
            sys.stdout.write(f"{'ok ' if one.error is None else 'BAD'}  {one.name}\n")
            if one.error is not None:
                sys.stdout.writelines(f"     {scrub(line)}\n" for line in one.error.splitlines())
        sys.stdout.write(f"{len(found) - len(bad)} of {len(found)} are valid\n")
    return ExitCode.USER if bad else ExitCode.OK


def _check_bundled() -> Iterator[Checked]:
    from budgetrl.recipe.load import list_recipes

    for name in list_recipes():
        yield _checked(name, name)
    for overlay in _overlays():
        with tempfile.TemporaryDirectory() as folder:
            combined = Path(folder) / "combined.toml"
            bases = json.dumps([f"{OVERLAY_BASE}.toml", f"overlays/{overlay.name}"])
            combined.write_text(f"[recipe]\nextends = {bases}\n", encoding="utf-8")
            checked = _checked(str(combined), f"{OVERLAY_BASE} + overlays/{overlay.stem}")
        yield checked._replace(path=overlay)


def _checked(ref: str, name: str) -> Checked:
    """Load a recipe and hold it against its model's window, where its shape is known."""
    from budgetrl.errors import ModelError
    from budgetrl.estimation.shapes import find_shape
    from budgetrl.hub.errors import HubError
    from budgetrl.recipe.load import load_recipe
    from budgetrl.recipe.window import check_window

    path = Path(ref)
    try:
        loaded = load_recipe(ref)
        path = loaded.path
        check_window(loaded.recipe, find_shape(loaded.recipe.model.id).window)
    except (ModelError, HubError):  # whether it is there, and fits, the run will say
        return Checked(name, path, None)
    except BudgetRLError as error:
        return Checked(name, path, str(error))
    return Checked(name, path, None)


def _overlays() -> list[Path]:
    from budgetrl.recipe.load import recipes_root

    return sorted((recipes_root() / "overlays").glob("*.toml"))


def _overlay_lines(width: int) -> list[str]:
    """Overlays with the first line of their header, which is a sentence."""
    lines = ["Overlays, named last in the `extends` of a recipe of yours:"]
    for path in _overlays():
        first = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"{'overlays/' + path.stem:<{width}}{first}")
    return lines


def _header(loaded: "LoadedRecipe") -> str:
    recipe = loaded.recipe
    lora = recipe.lora
    scale = "alpha/sqrt(r)" if lora.alpha_policy.value == "rslora" else "alpha/r"
    trained = lora.description
    if lora.scale is not None:
        trained += f", alpha {lora.resolved_alpha:g}: scale {scale} = {lora.scale:g}"
    return f"{recipe.name}: {recipe.recipe.summary}\n{loaded.path}\n{trained}"


def _stages(loaded: "LoadedRecipe") -> str:
    """The stages side by side: how long each lasts, and what is not the same in all of them."""
    from budgetrl.account.text import clipped
    from budgetrl.recipe.flat import flat_values

    stages = loaded.recipe.stages
    if not stages:
        return ""
    columns = [
        {
            "kind": stage.kind.value,
            "share": stage.share,
            "steps": stage.steps,
            "until": stage.until and " ".join(map(str, stage.until.condition)),
            "gate": stage.gate and f"{stage.gate.signal_share:.0%} of {stage.gate.prompts}",
            **flat_values(loaded.recipe.for_stage(stage)),
        }
        for stage in stages
    ]
    keys = [key for key in columns[0] if len({json.dumps(c.get(key)) for c in columns}) > 1]
    rows = [["stage", *(stage.name for stage in stages)]]
    rows += [[key, *(clipped(_shown(c.get(key)), 36) for c in columns)] for key in keys]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{t:<{w}}" for t, w in zip(row, widths, strict=True)) for row in rows]
    return "\n" + "\n".join(line.rstrip() for line in lines) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _resolved(values: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """Every value by table, with where it is from in a column of its own."""
    from budgetrl.account.text import clipped

    tables: dict[str, list[str]] = {}
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        if not table:  # one that the recipe does not have
            continue
        shown = f"{name} = {clipped(json.dumps(value, ensure_ascii=False), 60)}"
        tables.setdefault(table, []).append(f"{shown:<44}  {sources.get(key, 'default')}")
    return "\n\n".join("\n".join([f"[{table}]", *lines]) for table, lines in tables.items())
