"""Turn merged tables into a `Recipe`, or into one error that names every problem and its file.

Not here: reading and merging files (`recipe.load`), and what is valid (`recipe.schema`).
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from budgetrl.errors import RecipeError
from budgetrl.recipe.eval_tables import TAGS
from budgetrl.recipe.flat import PROVENANCE, UNSET, flat_values
from budgetrl.recipe.schema import Recipe, Stage
from budgetrl.recipe.stage_tables import OVERRIDES


@dataclass(frozen=True, slots=True)
class Located:
    """Where the values of a merged recipe were written."""

    path: str
    """The recipe that was asked for."""
    origin: Mapping[str, str]
    """Flat key -> file or "command line"."""
    prefix: str = ""
    """Before each flat key: of a stage."""

    def file_of(self, flat: str) -> str:
        """The file that wrote a key, or a key inside a table that is wrong as a whole."""
        flat = f"{self.prefix}{flat}".removesuffix(".")
        if flat in self.origin:
            return self.origin[flat]
        inside = {file for key, file in self.origin.items() if key.startswith(f"{flat}.")}
        return inside.pop() if flat and len(inside) == 1 else self.path


def validate(tables: Mapping[str, Any], located: Located) -> Recipe:
    """The recipe that the tables describe.

    Raises:
        RecipeError: lists every unknown key, wrong type, bad value and contradiction.
    """
    try:
        recipe = Recipe.model_validate_json(json.dumps(tables))
    except ValidationError as error:
        lines = _lines(error, tables, located)
        raise _error(lines, located) from None
    lines = [line for stage in recipe.stages for line in _stage_lines(recipe, stage, located)]
    if lines:
        raise _error(lines, located)
    problems = list(_provenance_problems(recipe))
    if problems:
        raise _error([f"{located.path}: {problem}" for problem in problems], located)
    return recipe


def _stage_lines(recipe: Recipe, stage: Stage, located: Located) -> list[str]:
    """What is wrong inside a stage, as it would be said of a recipe of its own."""
    tables = stage.tables(recipe.model_dump(mode="json"))
    try:
        recipe.for_stage(stage)
    except ValidationError as error:
        inside = replace(located, prefix=f"stages.{stage.name}.")
        return _lines(error, tables, inside)
    return []


def _error(lines: Sequence[str], located: Located) -> RecipeError:
    if len(lines) == 1:
        return RecipeError(lines[0])
    return RecipeError(f"{located.path}: {len(lines)} problems:\n  " + "\n  ".join(lines))


def _lines(error: ValidationError, tables: Mapping[str, Any], located: Located) -> list[str]:
    """A line for each value that is wrong; of one that may be of several kinds, all of them."""
    told: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, one in enumerate(error.errors()):
        place = tuple(part for part in one["loc"] if not _is_branch(part))
        key = place if len(place) < len(one["loc"]) else (*place, number)
        if key in told:
            told[key]["msg"] += f", or {one['msg'].removeprefix('Input should be ')}"
        else:
            told[key] = {**one, "loc": place}
    return [_line(one, tables, located) for one in told.values()]


def _is_branch(part: Any) -> bool:
    """Whether a part of a location names a kind that a value may be of, not a key."""
    plain = ("int", "float", "str")
    return isinstance(part, str) and ("[" in part or part in plain or "constrained-" in part)


def _line(error: dict[str, Any], tables: Mapping[str, Any], located: Located) -> str:
    loc = tuple(part for part in error["loc"] if part not in TAGS)
    where, flat = _where(loc, tables)
    file = located.file_of(flat)
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = ": unknown key" + _did_you_mean(loc)
    elif error["type"] == "json_invalid":
        message = ": its tables lie too deep in one another"
    elif error["type"] == "missing":
        message = " is missing"
    elif error["type"] in ("list_type", "tuple_type") and isinstance(error["input"], dict):
        message = f": is a list of tables, each of which begins with [[{flat}]]"
    elif error["type"] in ("list_type", "tuple_type"):
        message = f" = {error['input']!r}: is a list, such as [{json.dumps(error['input'])}]"
    elif "input" in error and not isinstance(error["input"], dict | list):
        shown = repr(error["input"])
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        message = f" = {shown}: {message[:1].lower()}{message[1:]}"
    else:
        message = f": {message}"
    if located.prefix:
        where = f"[[stages]] {located.prefix.split('.')[1]} {where}".rstrip()
    return f"{file}: {where}{message}." if where else f"{file}{message}."


def _where(loc: tuple[Any, ...], tables: Any) -> tuple[str, str]:
    """A location for people ("[lora] rank", "[[eval]] aime24 samples") and its flat key."""
    names: list[str] = []
    node = tables
    for part in loc:
        node = node[part] if _has(node, part) else None
        if isinstance(part, int):
            element = node if isinstance(node, dict) else {}
            keys = [element.get(key) for key in ("name", "suite", "key")]
            names.append(next((str(key) for key in keys if key is not None), f"#{part + 1}"))
        else:
            names.append(str(part))
    if not names:
        return "", ""
    table = f"[[{names[0]}]]" if len(loc) > 1 and isinstance(loc[1], int) else f"[{names[0]}]"
    return " ".join([table, *names[1:]]), ".".join(names)


def _has(node: Any, part: Any) -> bool:
    if isinstance(node, dict):
        return part in node
    return isinstance(node, list) and isinstance(part, int) and part < len(node)


def _did_you_mean(loc: tuple[Any, ...]) -> str:
    model = _model_at(Recipe, loc[:-1])
    if model is None:
        return ""
    near = difflib.get_close_matches(str(loc[-1]), model.model_fields, n=1, cutoff=0.5)
    known = ", ".join(model.model_fields)
    return f"; did you mean {near[0]}" if near else f"; known keys: {known}"


def is_key(table: str, *path: str) -> bool:
    """Whether a recipe has such a key; names of array elements are left out."""
    if table == "stages" and path[0] in OVERRIDES:
        table, *rest = path
        return is_key(table, *rest) if rest else True
    model = _model_at(Recipe, (table, *path[:-1]))
    return model is not None and path[-1] in model.model_fields


def _model_at(model: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel] | None:
    for part in loc:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(str(part))
        inner = _model_in(field.annotation) if field is not None else None
        if inner is None:
            return None
        model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple, Annotated):
        for inner in get_args(annotation):
            found = _model_in(inner)
            if found is not None:
                return found
    return None


def _provenance_problems(recipe: Recipe) -> list[str]:
    values = flat_values(recipe)
    problems = []
    for table in PROVENANCE:
        for entry in getattr(recipe, table):
            if entry.key not in values:
                near = difflib.get_close_matches(entry.key, values, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                problems.append(f"[[{table}]] {entry.key}: no such key{hint}")
    for entry in recipe.deviation:
        here = None if entry.here == UNSET else entry.here
        if entry.key in values and values[entry.key] != here:
            problems.append(
                f"[[deviation]] {entry.key}: here = {entry.here!r}, but the recipe resolves to "
                f"{values[entry.key]!r}"
            )
    return problems
