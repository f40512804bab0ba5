"""The tables of docs/recipe.md: every key of a recipe, from the schema and its docstrings.

Called by scripts/update_readme.py. Types and defaults are those of the JSON Schema that pydantic
makes of `Recipe`, in the words of TOML; meanings are the docstrings behind the fields.
"""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from typing import Any

from budgetrl import types
from budgetrl.recipe import base, eval_tables, schema, stage_tables
from budgetrl.recipe.flat import MERGE_KEYS
from budgetrl.recipe.stage_tables import OVERRIDES

Node = dict[str, Any]
"""A part of a JSON Schema."""

SCHEMA = schema.Recipe.model_json_schema()
DEFS: dict[str, Node] = SCHEMA["$defs"]
KINDS: dict[str, type] = {
    name: kind
    for module in (base, eval_tables, stage_tables, types, schema)
    for name, kind in inspect.getmembers(module, inspect.isclass)
}
NAMED_TOO = {"Reward.name": base.RewardName, "Eval.suite": base.SuiteName}
"""Keys that take other texts besides."""
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
FREE = 10**6
"""Limits from here on only keep numbers finite."""


def recipe_keys() -> str:
    """A line with all tables, then each of them with those inside it."""
    found = {name: _kind(node) for name, node in SCHEMA["properties"].items()}
    links = [f"[`{_brackets(name)}`](#{name})" for name in found]
    sections = [line for name, kind in found.items() for line in _section(name, kind)]
    return "\n".join([f"{', '.join(links)}.", *sections])


def _section(name: str, kind: str) -> Iterator[str]:
    """A table: what it is, its keys, what its choices mean, and the tables inside it."""
    keys, meanings = DEFS[kind]["properties"], _docstrings(KINDS[kind])
    needed = DEFS[kind].get("required", ())
    yield f"\n{'###' if '.' in name else '##'} {_brackets(name)}\n"
    yield _about(KINDS[kind])
    yield "\n| key | type | default | meaning |\n|---|---|---|---|"
    if kind == "Stage":
        keys = {key: node for key, node in keys.items() if key not in OVERRIDES}
    for key, node in keys.items():
        default = "needed" if key in needed else _default(node)
        yield f"| `{key}` | {_type(node, f'{name}.{key}')} | {default} | {meanings[key]} |"
    if kind == "Stage":
        tables = ", ".join(f"[`{key}`](#{key})" for key in OVERRIDES)
        yield f"\nAnd what is different in the stage, of these tables of the run: {tables}."
    for key, node in keys.items():
        choices = NAMED_TOO.get(f"{kind}.{key}") or KINDS.get(_kind(node))
        if choices is not None and issubclass(choices, StrEnum):
            said = _docstrings(choices)
            yield f"\n`{key}`:\n"
            yield from (f'- `"{choice}"`: {said[choice.name]}' for choice in choices)
    for key, node in keys.items():
        inner = _kind(node)
        if "properties" in DEFS.get(inner, {}) and (name, key) != ("eval", "columns"):
            yield from _section(f"{name}.{key}", inner)


def _docstrings(kind: type) -> dict[str, str]:
    """What stands behind each field of a table, or member of an enumeration, in one line."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    return {
        ast.unparse(getattr(field, "target", None) or field.targets[0]): " ".join(
            said.value.value.split()
        )
        for field, said in pairwise(body)
        if isinstance(field, ast.Assign | ast.AnnAssign) and isinstance(said, ast.Expr)
    }


def _about(kind: type) -> str:
    """Its docstring without the name of the table in front."""
    text = " ".join((inspect.getdoc(kind) or "").partition(": ")[2].split())
    return text[0].upper() + text[1:]


def _brackets(name: str) -> str:
    return f"[[{name}]]" if name in MERGE_KEYS else f"[{name}]"


def _kind(node: Node) -> str:
    """The definition that a value refers to, in a list or beside other types too."""
    found = re.search(r'"#/\$defs/(\w+)"', json.dumps(node))
    return found[1] if found else ""


def _default(node: Node) -> str:
    value = node.get("default")
    return "" if value is None or isinstance(value, dict) else _code(value)


def _type(node: Node, name: str) -> str:
    """What may stand there, in words; a table leads to its keys."""
    if kinds := node.get("anyOf") or node.get("oneOf"):
        return " or ".join(_type(kind, name) for kind in kinds if kind.get("type") != "null")
    if "$ref" in node:
        found = DEFS[_kind(node)]
        anchor = "datacolumns" if _kind(node) == "Columns" else name.replace(".", "")
        return _type(found, name) if "enum" in found else f"[table](#{anchor})"
    if "enum" in node or "const" in node:
        return ", ".join(map(_code, node.get("enum") or [node["const"]]))
    kind = node.get("type", "any value")
    if kind == "array":
        return "list of " + re.sub(r"^[a-z]+", r"\g<0>s", _type(node["items"], name))
    return {"object": "table", "boolean": "`true`, `false`"}.get(kind, kind) + _bounds(node)


def _bounds(node: Node) -> str:
    said = [f"{sign} {node[key]:g}" for key, sign in BOUNDS.items() if node.get(key, FREE) < FREE]
    return f" {', '.join(said)}" if said else ""


def _code(value: Any) -> str:
    return f"`{json.dumps(value)}`"
