"""How `--help` looks: switches without a type, paragraphs as wide as the terminal.

Typer shows `--json <bool>`, which reads as if a value had to follow, and keeps the line breaks of
docstrings in markup mode "rich".
"""

import inspect
import re
from typing import Any

from typer.core import TyperCommand, TyperGroup


class _Look:
    """Of a command or a group of them."""

    def __init__(self, *args: Any, help: str | None = None, **kwargs: Any) -> None:
        joined = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(help or ""))
        super().__init__(*args, help=joined, **kwargs)  # type: ignore[call-arg]

    def get_params(self, ctx: Any) -> Any:
        """Its parameters, `--help` among them."""
        params = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
                if param.default is None:  # typer's own: it would load pydantic to read nothing
                    param.default = False
        return params


class Command(_Look, TyperCommand):
    """One command."""


class Group(_Look, TyperGroup):
    """Several commands."""
