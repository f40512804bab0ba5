"""Where a command writes what it found: one JSON document, or lines for people."""

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from budgetrl.errors import UsageError

if TYPE_CHECKING:
    from budgetrl.display.base import DisplayKind


def shown_on(as_json: bool, display: "DisplayKind") -> "tuple[DisplayKind, TextIO]":
    """How a run is shown, and where: beside a JSON document, which has standard output alone.

    Raises:
        UsageError: both want standard output.
    """
    if as_json and display == "json":
        raise UsageError(
            "--json and --display json both want standard output.", hint="Leave one of them out."
        )
    kind: DisplayKind = "plain" if as_json and display == "auto" else display
    return kind, sys.stderr if as_json else sys.stdout


def print_json(document: object, allow_nan: bool = True) -> None:
    """The one JSON document of --json."""
    sys.stdout.write(json.dumps(document, allow_nan=allow_nan) + "\n")


def print_found(as_json: bool, document: object, lines: Iterable[str]) -> None:
    """What a command found: as JSON, or in lines for people."""
    if as_json:
        print_json(document)
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines)
