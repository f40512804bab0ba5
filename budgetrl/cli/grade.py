"""`budgetrl grade`: verdicts on a file of completions and gold answers."""

from pathlib import Path
from typing import Annotated

import typer

from budgetrl.cli.options import Json
from budgetrl.rewards import DEFAULT_TIMEOUT_S


def grade(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help='JSON lines with "completion" and "gold".')
    ],
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", help="Processes that grade.")
    ] = 2,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds for one answer.")
    ] = DEFAULT_TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Say of each completion whether the answer in its last box equals the gold answer."""
    from budgetrl.cli.grade_file import grade_file

    return grade_file(file, workers, timeout, as_json)
