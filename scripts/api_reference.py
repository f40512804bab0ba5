"""The reference part of docs/python.md, from signatures and docstrings of the public names.

Called by scripts/update_readme.py; a docstring's sections (Args, Returns, Raises) become lists.
"""

import enum
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import budgetrl

SECTION = re.compile(r"^(Args|Returns|Raises):\n((?:    .*\n?|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"(?<=\n)(?=\S)")


def reference() -> str:
    """Functions, those of budgetrl.api first, then the errors and the other types."""
    public = {name: getattr(budgetrl, name) for name in budgetrl.__all__}
    functions = sorted(
        (name for name, found in public.items() if inspect.isfunction(found)),
        key=lambda name: public[name].__module__ != "budgetrl.api",
    )
    types = {name: found for name, found in public.items() if inspect.isclass(found)}
    errors = {name: kind for name, kind in types.items() if issubclass(kind, Exception)}
    parts = [
        *(_function(name, public[name]) for name in functions),
        "### Errors\n",
        "| error | exit code | meaning |\n|---|---|---|",
        *(f"| `{name}` | {kind.exit_code:d} | {_first(kind)} |" for name, kind in errors.items()),
        "\n### Types\n",
        "| type | meaning |\n|---|---|",
        *(f"| `{name}` | {_type(types[name])} |" for name in types if name not in errors),
    ]
    return "\n".join(parts)


def _function(name: str, found: Callable[..., Any]) -> str:
    """One function: a heading, its call, what its docstring says."""
    doc = inspect.getdoc(found) or ""
    lists = {title: _entries(body) for title, body in SECTION.findall(doc + "\n")}
    said = re.sub(r"\n(?!\n)", " ", SECTION.sub("", doc + "\n").strip()).replace("\n ", "\n\n")
    lines = [f"### {name}\n", f"```python\n{_call(name, found)}\n```\n", said]
    for title, entries in lists.items():
        if title == "Args":
            lines += ["", *(f"- `{key}`: {text}" for key, _, text in map(_split, entries))]
        elif title == "Returns":
            lines += ["", f"Returns {' '.join(entries)[0].lower()}{' '.join(entries)[1:]}"]
        else:
            lines += ["\nRaises\n", *(f"- {entry}" for entry in entries)]
    return "\n".join(lines) + "\n"


def _call(name: str, found: Callable[..., Any]) -> str:
    """The call with its defaults and without types, on lines of at most 88 characters."""
    signature = inspect.signature(found)
    bare = [given.replace(annotation=given.empty) for given in signature.parameters.values()]
    plain = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    return "\n".join(_wrapped(f"{name}{plain.replace(chr(39), chr(34))}"))


def _wrapped(call: str) -> Iterator[str]:
    line = ""
    for part in re.split(r"(?<=, )", call):
        if len(line + part) > 88:
            yield line.rstrip()
            line = "    "
        line += part
    yield line


def _entries(body: str) -> list[str]:
    """The entries of a section, each joined to one line."""
    text = "\n" + inspect.cleandoc(body)
    return [" ".join(entry.split()) for entry in ENTRY.split(text) if entry.strip()]


def _split(entry: str) -> tuple[str, str, str]:
    return entry.partition(": ")


def _first(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")


def _type(kind: type) -> str:
    """Its sentence, and the members of an enumeration."""
    if issubclass(kind, enum.Enum):
        return f"{_first(kind)} {', '.join(f'`{member.value}`' for member in kind)}"
    return _first(kind)
