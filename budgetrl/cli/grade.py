"""`budgetrl grade`: completions against gold answers, from a JSONL file."""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from budgetrl.cli.options import Json
from budgetrl.errors import DataError, UsageError

if TYPE_CHECKING:
    from budgetrl.rewards.worker import GradedRow

BATCH = 64
"""Rows between two progress reports."""
FAILURES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file."""

    index: int
    """From 0, counting every line that is not blank."""
    completion: str
    gold: str


def grade(
    file: Annotated[
        Path, typer.Argument(help='JSONL rows with "completion" (or "response") and "gold".')
    ],
    workers: Annotated[int, typer.Option("--workers", min=1, help="Grading processes.")] = 2,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for one answer.")] = 3.0,
    as_json: Json = False,
) -> int:
    """Grade completions against gold answers; hostile ones cost nothing but themselves.

    Exit code 0 whatever the verdicts; 2 if a line cannot be read (the others are graded).
    """
    from budgetrl.rewards.shaping import think_format
    from budgetrl.rewards.worker import GradingPool

    if not 0 < timeout < 3600:
        raise UsageError("--timeout must be a number of seconds above zero.")
    rows, faults = read_rows(file)
    start = time.monotonic()
    with GradingPool(workers=workers, timeout_s=timeout) as pool:
        graded = _graded(pool, rows, quiet=as_json)
    summary = _summary(graded, time.monotonic() - start)
    document = {
        "rows": [
            {
                "index": row.index,
                "verdict": one.verdict.value,
                "reward": None if one.verdict == "error" else float(one.verdict == "correct"),
                "format": think_format(row.completion, prefilled=False),
                "extracted": one.extracted,
                "seconds": one.seconds,
            }
            for row, one in zip(rows, graded, strict=True)
        ],
        "summary": summary,
    }
    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        _show(rows, graded, summary)
    for fault in faults:
        sys.stderr.write(f"DataError: {fault}\n")
    return 2 if faults else 0


def read_rows(file: Path) -> tuple[list[Row], list[str]]:
    """The usable rows of a JSONL file, and what is wrong with the other lines.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}.") from None
    rows: list[Row] = []
    faults: list[str] = []
    lines = [(n, line) for n, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    for index, (number, line) in enumerate(lines):
        values, fault = _parsed(line)
        if fault:
            faults.append(f"{file}:{number}: {fault}.")
        else:
            rows.append(Row(index, values["completion"], values["gold"]))
    return rows, faults


def _parsed(line: bytes) -> tuple[dict[str, Any], str]:
    """The values of a line, or what is wrong with it."""
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 text (byte {error.start})"
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON: {error}"
    if not isinstance(values, dict):
        return {}, "not a JSON object"
    if "completion" not in values and "response" in values:  # what many published files call it
        values["completion"] = values["response"]
    for key in ("completion", "gold"):
        if key not in values:
            return {}, f"lacks the key {key!r}"
        if not isinstance(values[key], str):
            return {}, f"{key!r} is not text"
    return values, ""


def _graded(pool: Any, rows: Sequence[Row], *, quiet: bool) -> "list[GradedRow]":
    from rich.console import Console
    from rich.progress import track

    starts = range(0, len(rows), BATCH)
    console = Console(stderr=True, quiet=quiet or len(rows) < BATCH)
    found: list[GradedRow] = []
    for first in track(starts, "grading", console=console, transient=True):
        found += pool.grade([(row.completion, row.gold) for row in rows[first : first + BATCH]])
    return found


def _summary(graded: "Sequence[GradedRow]", seconds: float) -> dict[str, float]:
    from budgetrl.types import Verdict

    counted = Counter(one.verdict.value for one in graded)
    verdicts: dict[str, float] = {verdict.value: counted[verdict.value] for verdict in Verdict}
    pace = len(graded) / seconds if seconds > 0 else 0.0
    return verdicts | {"seconds": seconds, "rows_per_s": pace}


def _show(rows: Sequence[Row], graded: "Sequence[GradedRow]", summary: dict[str, float]) -> None:
    """A table of verdicts and the most interesting failures."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    verdicts = Table("verdict", "rows", "share", box=None)
    for name in ("correct", "wrong", "unparsable", "timeout", "error"):
        share = summary[name] / len(graded) if graded else 0.0
        verdicts.add_row(name, f"{summary[name]:.0f}", f"{100 * share:.1f} %")
    console.print(verdicts)
    console.print(f"{len(graded)} rows in {summary['seconds']:.1f} s\n")
    order = {"error": 0, "timeout": 1, "wrong": 2, "unparsable": 3}
    pairs = zip(rows, graded, strict=True)
    failures = sorted(
        (pair for pair in pairs if pair[1].verdict != "correct"),
        key=lambda pair: (order[pair[1].verdict], -pair[1].seconds),
    )
    if not failures:
        return
    table = Table("row", "verdict", "answer", "gold", box=None, title="Look at these")
    for row, one in failures[:FAILURES_SHOWN]:
        answer = Text(_printable(one.extracted or row.completion[-60:]), overflow="ellipsis")
        table.add_row(str(row.index), one.verdict.value, answer, Text(_printable(row.gold)))
    console.print(table)


def _printable(text: str, limit: int = 60) -> str:
    """Without control characters, which could drive the terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:limit]
