"""Rows of a JSONL file or a hub dataset as checked `Problem`s.

    loaded = load_problems(recipe.data, check_answer)     training: bad rows dropped and counted
    suite = load_suite(spec, check_answer)                evaluation: any bad row is an error

Not here: grading (the answer check is an argument), prompts and sampling.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from budgetrl.errors import DataError, first_line
from budgetrl.hub.layout import Need
from budgetrl.hub.pins import download
from budgetrl.hub.repo import Repo
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Columns, Data, Eval
from budgetrl.recipe.suites import SUITES
from budgetrl.types import Problem

MAX_DROPPED_SHARE = 0.05
"""More bad training rows than this are an error, not a warning."""

AnswerCheck = Callable[[Sequence[str]], Sequence[str | None]]
"""Says of each gold answer why it cannot be used, or None."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that is not trained on."""

    where: str
    """File and line, or dataset and row."""
    why: str


@dataclass(frozen=True, slots=True)
class LoadedProblems:
    """Usable problems and what was left out."""

    problems: tuple[Problem, ...]
    dropped: tuple[Dropped, ...]
    fingerprint: str
    source: str


class _Row(NamedTuple):
    where: str
    values: Mapping[str, Any]


def load_problems(data: Data, check_answer: AnswerCheck) -> LoadedProblems:
    """The training problems of a recipe.

    Rows that repeat an earlier one, or whose answer is empty or unparsable, are dropped.

    Raises:
        DataError: missing, empty or malformed source, or more than 5 % bad rows.
    """
    rows, source = _rows(data.path, data.id, data.revision, data.split)
    kept = [row for row in rows if _passes(row, data.filter)]
    problems, dropped = _problems(kept, data.columns, check_answer, source)
    if not problems and not dropped:
        raise DataError(f"{source}: holds no rows.", hint="Check data.split and data.filter.")
    if len(dropped) > MAX_DROPPED_SHARE * (len(problems) + len(dropped)):
        raise DataError(
            f"{source}: {len(dropped)} of {len(problems) + len(dropped)} rows cannot be used:\n"
            + _listing(dropped),
            hint="Clean the file, or choose other columns with data.columns.",
        )
    problems = problems[: data.limit]
    return LoadedProblems(tuple(problems), tuple(dropped), fingerprint(problems), source)


def load_suite(spec: Eval, check_answer: AnswerCheck) -> LoadedProblems:
    """The problems of an evaluation suite.

    Raises:
        DataError: missing or empty, or any row that cannot be used.
    """
    hub = SUITES.get(spec.suite)
    if spec.path is not None or spec.id is not None or hub is None:
        columns = spec.columns or Columns()
        rows, source = _rows(spec.path, spec.id, spec.revision, spec.split or "test")
    else:
        columns = spec.columns or hub.columns
        rows, source = _rows(None, hub.id, spec.revision, spec.split or hub.split)
    problems, dropped = _problems(list(rows), columns, check_answer, source)
    if dropped:
        raise DataError(
            f"suite {spec.suite} ({source}): {len(dropped)} rows cannot be evaluated:\n"
            + _listing(dropped),
            hint="Every problem of a suite needs its own text and a gold answer that parses.",
        )
    if not problems:
        raise DataError(f"suite {spec.suite} ({source}): holds no problems.")
    known = hub is not None and spec.path is None and spec.id is None and spec.split is None
    if known and hub is not None and len(problems) != hub.problems:
        raise DataError(
            f"suite {spec.suite} ({source}): holds {len(problems)} problems, and this suite has "
            f"{hub.problems}.",
            hint=f"{hub.id} is not what it was: pin a commit of it with "
            f"eval.{spec.suite}.revision, or evaluate it under another name with its id.",
        )
    return LoadedProblems(tuple(problems), (), fingerprint(problems), source)


def fingerprint(problems: Iterable[Problem]) -> str:
    """Hash over ids, texts and answers, in order."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps([problem.id, problem.text, problem.answer]).encode())
    return digest.hexdigest()[:16]


def _rows(
    path: str | None, hub_id: str | None, revision: str | None, split: str
) -> tuple[Iterator[_Row], str]:
    if path is not None:
        file = Path(local_path(path))
        return _file_rows(file), str(file)
    assert hub_id is not None
    return _hub_rows(hub_id, revision, split), f"{hub_id}[{split}]"


def _file_rows(file: Path) -> Iterator[_Row]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read: {error.strerror}.",
            hint="Check the path in the recipe; it is relative to the recipe file.",
        ) from None
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}.", hint="One object per line.") from None
        if not isinstance(values, dict):
            raise DataError(f"{where}: not a JSON object.", hint="One object per line.")
        yield _Row(where, values)


def _hub_rows(hub_id: str, revision: str | None, split: str) -> Iterator[_Row]:
    import datasets

    folder = download(Need("data", Repo("dataset", hub_id, revision), "data", split))
    try:
        loaded = datasets.load_dataset(str(folder), split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"data set {hub_id!r} (split {split!r}) cannot be read: {first_line(error)}",
            hint="Its files may be damaged; or give a local file with path.",
        ) from None
    for number, values in enumerate(loaded):
        yield _Row(f"{hub_id}[{split}] row {number}", values)


def _passes(row: _Row, wanted: Mapping[str, Sequence[str]]) -> bool:
    return all(str(row.values.get(column)) in values for column, values in wanted.items())


def _problems(
    rows: Sequence[_Row], columns: Columns, check_answer: AnswerCheck, source: str
) -> tuple[list[Problem], list[Dropped]]:
    problems: list[Problem] = []
    dropped: list[Dropped] = []
    texts: set[str] = set()
    ids: set[str] = set()
    found = (row.values.get(columns.answer) for row in rows)
    answers = list(dict.fromkeys(str(answer) for answer in found if _is_answer(answer)))
    why_not = dict(zip(answers, check_answer(answers), strict=True))
    for number, row in enumerate(rows):
        for column in (columns.problem, columns.answer, columns.id, columns.level):
            if column is not None and column not in row.values:
                known = ", ".join(sorted(map(str, row.values)))
                raise DataError(
                    f"{row.where}: no column {column!r}; there are: {known}.",
                    hint="Name the columns under [data.columns] (or in the [[eval]]).",
                )
        text, answer = row.values[columns.problem], row.values[columns.answer]
        own_id = row.values.get(columns.id or "id")
        identifier = f"row-{number:06d}" if own_id in (None, "") else str(own_id)
        why = _unusable(text, answer, texts, why_not)
        if why is None and not _is_unicode(f"{text}{answer}{identifier}"):
            why = "it holds half a character (a lone surrogate)"
        if why is None and identifier in ids:
            why = f"the id {identifier!r} occurs before"
        if why is not None:
            dropped.append(Dropped(row.where, why))
            continue
        texts.add(text.strip())
        ids.add(identifier)
        level = row.values.get(columns.level or "level")
        problems.append(
            Problem(identifier, text.strip(), str(answer), None if level is None else str(level))
        )
    return problems, dropped


def _is_answer(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def _unusable(
    text: Any, answer: Any, texts: set[str], why_not: Mapping[str, str | None]
) -> str | None:
    if not isinstance(text, str) or not text.strip():
        return "the problem is empty or not text"
    if text.strip() in texts:
        return "the problem occurs before"
    if not _is_answer(answer):
        return "the answer is neither text nor a number"
    why = why_not[str(answer)]
    return None if why is None else f"the answer {str(answer)[:60]!r} cannot be used: {why}"


def _is_unicode(text: str) -> bool:
    """Whether a text can leave Python: JSON may spell lone surrogates, tokenizers refuse them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listing(dropped: Sequence[Dropped], limit: int = 20) -> str:
    lines = [f"  {entry.where}: {entry.why}" for entry in dropped[:limit]]
    if len(dropped) > limit:
        lines.append(f"  and {len(dropped) - limit} more")
    return "\n".join(lines)
