"""Flat keys as YAML that every reader takes the same way: values as JSON, numbers with a point.

    to_yaml({"a.b": 3e-6, "a.c": [1, "x"]}) -> "a:\\n  b: 3.0e-06\\n  c: [1, \\"x\\"]\\n"

YAML 1.1, which PyYAML reads, takes 3e-06 for a text. Only writes, and needs no library for it.
"""

import json
from collections.abc import Mapping
from typing import Any


def to_yaml(values: Mapping[str, Any]) -> str:
    """A document of nested tables; keys that share a beginning have to follow each other."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, _Table())
        node[last] = value
    return "".join(_lines(tree, 0))


class _Table(dict[str, Any]):
    """A level of nesting, as opposed to a value that is a dictionary."""


def _lines(tree: Mapping[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in tree.items():
        head = f"{'  ' * depth}{_key(key)}:"
        if isinstance(value, _Table):
            lines += [f"{head}\n", *_lines(value, depth + 1)]
        else:
            lines.append(f"{head} {_value(value)}\n")
    return lines


def _key(key: str) -> str:
    return f'"{key}"' if key in ("n", "y") else key  # else they are truth values to YAML 1.1


def _value(value: Any) -> str:
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
