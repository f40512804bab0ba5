"""What `budgetrl grade` does: read a file of completions, grade it, print the verdicts."""

import difflib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from budgetrl.account.text import clipped
from budgetrl.cli.output import print_json
from budgetrl.errors import DataError, ExitCode, UsageError
from budgetrl.files import read_stream
from budgetrl.rewards.pool import GradedRow, GradingPool
from budgetrl.rewards.shaping import think_format
from budgetrl.types import Verdict

_NUM_FAILURES = 10
_MAX_OF_A_KIND = 3
"""Of timeouts, errors and missing boxes, so that wrong answers are shown too."""
_MAX_SHOWN_CHARS = 60
_MAX_WORKERS = 256
_MAX_BYTES = 1 << 32
"""Of a file of completions."""
_MAX_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    """Which row of the file, from 0; blank lines do not count."""
    completion: str
    gold: str


def grade_file(path: Path, workers: int, timeout_s: float, as_json: bool) -> int:
    """Grade a file and print the verdicts; returns the exit code, 2 if a line is no row.

    Raises:
        UsageError: no workers, or no time.
        DataError: the file cannot be read, or is empty.
    """
    if not 1 <= workers <= _MAX_WORKERS:
        raise UsageError(f"--workers {workers}: must be from 1 to {_MAX_WORKERS}.")
    if not 0 < timeout_s <= _MAX_TIMEOUT_S:
        raise UsageError(f"--timeout {timeout_s}: must be above zero, and at most an hour (3600).")
    rows, problems = _read(path)
    if not rows and not problems:
        raise DataError(f"{path}: holds no rows.", hint=_HINT)
    workers = min(workers, max(1, len(rows)))
    for problem in problems:
        sys.stderr.write(f"DataError: {problem}\n")
    if problems:
        sys.stderr.write(f"{_HINT}\n")
    with GradingPool(workers, timeout_s) as pool:
        started, graded = _grade(pool, rows)
    document = _document(rows, graded, monotonic() - started)
    if problems:
        document["error"] = {
            "type": "DataError",
            "message": f"{len(problems)} lines cannot be graded: {'; '.join(problems)}",
            "hint": _HINT,
            "exit_code": int(ExitCode.USER),
        }
    if as_json:
        print_json(document, allow_nan=False)
    else:
        _print(rows, graded, document["summary"])
    return ExitCode.USER if problems else ExitCode.OK


_HINT = 'Each line must be one JSON object with texts as "completion" and "gold".'


def _read(path: Path) -> tuple[list[_Row], list[str]]:
    """The rows of a file, and what is wrong with its other lines."""
    try:
        lines = read_stream(path, _MAX_BYTES).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}.",
            hint="Give a file of JSON lines with completion and gold.",
        ) from None
    rows: list[_Row] = []
    problems: list[str] = []
    index = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(index, line))
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
        index += 1
    return rows, problems


def _row(index: int, line: bytes) -> _Row:
    try:
        fields: Any = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("too many brackets inside each other") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(fields, dict):
        raise ValueError("no JSON object")
    if "completion" not in fields and "response" in fields:  # what many published files say
        fields["completion"] = fields["response"]
    missing = [key for key in ("completion", "gold") if key not in fields]
    if missing:
        raise ValueError(f"lacks the key {' and '.join(missing)}")
    for key in ("completion", "gold"):
        if not isinstance(fields[key], str):
            raise ValueError(f"{key} is no text")
    return _Row(index, fields["completion"], fields["gold"])


def _grade(pool: GradingPool, rows: Sequence[_Row]) -> tuple[float, list[GradedRow]]:
    """The verdicts, and when the workers were ready to begin."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not rows:
        return monotonic(), []
    console = Console(stderr=True)
    columns = (TextColumn("grading"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(rows))
        pool.start()
        pool.wait()
        started = monotonic()
        pairs = [(row.completion, row.gold) for row in rows]
        return started, pool.grade(pairs, lambda count: progress.advance(task, count))


def _document(rows: Sequence[_Row], graded: Sequence[GradedRow], seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    counts = Counter(row.verdict for row in graded)
    return {
        "rows": [
            {
                "index": row.index,
                "verdict": one.verdict.value,
                "reward": _reward(one.verdict),
                "format": think_format(row.completion, prefilled=False),
                "extracted": one.extracted,
                "seconds": round(one.seconds, 6),
            }
            for row, one in zip(rows, graded, strict=True)
        ],
        "summary": {verdict.value: counts[verdict] for verdict in Verdict}
        | {
            "seconds": round(seconds, 6),
            "rows_per_s": round(len(graded) / seconds, 3) if graded and seconds > 0 else None,
        },
    }


def _reward(verdict: Verdict) -> float | None:
    if verdict is Verdict.ERROR:
        return None
    return 1.0 if verdict is Verdict.CORRECT else 0.0


def _print(rows: Sequence[_Row], graded: Sequence[GradedRow], summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    verdicts = Table("verdict", "rows", "share", title="Verdicts", title_justify="left")
    for verdict in Verdict:
        share = summary[verdict.value] / len(graded) if graded else 0.0
        verdicts.add_row(verdict.value, str(summary[verdict.value]), f"{share:.1%}")
    console.print(verdicts)
    if summary["rows_per_s"]:
        console.print(
            f"{len(graded)} rows in {summary['seconds']:.1f} s, {summary['rows_per_s']:.0f} rows/s"
        )
    failures = _interesting(rows, graded)
    if failures:
        table = Table("row", "verdict", "box", "gold", title="Failures", title_justify="left")
        for row, one in failures:
            box = "-" if one.extracted is None else _shown(one.extracted)
            table.add_row(str(row.index), one.verdict.value, Text(box), Text(_shown(row.gold)))
        console.print(table)


def _interesting(rows: Sequence[_Row], graded: Sequence[GradedRow]) -> list[tuple[_Row, GradedRow]]:
    """Faults and timeouts first, then wrong answers that look most like their gold."""
    by_verdict: dict[Verdict, list[tuple[_Row, GradedRow]]] = {verdict: [] for verdict in Verdict}
    for row, one in zip(rows, graded, strict=True):
        by_verdict[one.verdict].append((row, one))
    distinct = {(one.extracted, row.gold): (row, one) for row, one in by_verdict[Verdict.WRONG]}
    wrong = sorted(distinct.values(), key=lambda pair: -_likeness(*pair))
    faults = [
        pair
        for verdict in (Verdict.ERROR, Verdict.TIMEOUT)
        for pair in by_verdict[verdict][:_MAX_OF_A_KIND]
    ]
    without_box = by_verdict[Verdict.UNPARSABLE][:_MAX_OF_A_KIND]
    num_wrong = _NUM_FAILURES - len(faults) - len(without_box)
    return faults + wrong[:num_wrong] + without_box


def _likeness(row: _Row, one: GradedRow) -> float:
    answer = (one.extracted or "")[:_MAX_SHOWN_CHARS]
    return difflib.SequenceMatcher(None, answer, row.gold[:_MAX_SHOWN_CHARS]).ratio()


def _shown(text: str) -> str:
    """One short line that no terminal takes for a command."""
    visible = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return clipped(visible, _MAX_SHOWN_CHARS)
