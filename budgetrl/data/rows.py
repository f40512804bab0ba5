"""Rows of local files or a hub dataset as checked `Problem`s.

    loaded = load_problems(recipe.data, check_answer)     training: bad rows dropped and counted
    suite = load_suite(spec, check_answer)                evaluation: any bad row is an error

Not here: grading (the answer check is an argument), prompts and sampling.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budgetrl.data.files import Number, Row, read_rows
from budgetrl.errors import DataError, first_line
from budgetrl.hub.layout import Need
from budgetrl.hub.pins import download
from budgetrl.hub.repo import Repo
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Columns, Data, Eval
from budgetrl.recipe.suites import SUITES
from budgetrl.types import Problem

_MISSING = object()
_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "problem": ("question", "prompt", "query", "input", "instruction"),
    "answer": ("reward_model.ground_truth", "ground_truth", "final_answer", "target", "solution"),
}
"""What other data sets call these columns, the likeliest first."""
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
    repeats: int = 0
    """Rows that say the same as an earlier one; some data sets hold each row a hundred times."""


def load_problems(data: Data, check_answer: AnswerCheck) -> LoadedProblems:
    """The training problems of a recipe.

    Rows that repeat an earlier one are left out and counted; those that contradict an earlier one,
    or whose answer is empty or unparsable, are dropped.

    Raises:
        DataError: missing, empty or malformed source, or more than 5 % bad rows.
    """
    rows, source = open_rows(data, (*_names(data.columns), *data.filter))
    kept = [row for row in rows if passes(row, data.filter)]
    kept, repeats = _without_repeats(kept, data.columns)
    problems, dropped = _problems(kept, data.columns, check_answer)
    if not problems and not dropped:
        raise DataError(f"{source}: holds no rows.", hint="Check data.split and data.filter.")
    if len(dropped) > MAX_DROPPED_SHARE * (len(problems) + len(dropped)):
        raise DataError(
            f"{source}: {len(dropped)} of {len(problems) + len(dropped)} rows cannot be used:\n"
            + listing(dropped),
            hint="Clean the file, or choose other columns with data.columns.",
        )
    problems = problems[: data.limit]
    return LoadedProblems(tuple(problems), tuple(dropped), fingerprint(problems), source, repeats)


def load_suite(spec: Eval, check_answer: AnswerCheck) -> LoadedProblems:
    """The problems of an evaluation suite.

    Raises:
        DataError: missing or empty, or any row that cannot be used.
    """
    hub = SUITES.get(spec.suite)
    if spec.path is not None or spec.id is not None or hub is None:
        columns, split = spec.columns or Columns(), spec.split or "test"
        named = (spec.path, spec.id, spec.revision, spec.config, split)
    else:
        columns, split = spec.columns or hub.columns, spec.split or hub.split
        named = (None, hub.id, spec.revision, spec.config, split)
    rows, source = _rows(*named, _names(columns))
    problems, dropped = _problems(list(rows), columns, check_answer)
    if dropped:
        raise DataError(
            f"suite {spec.suite} ({source}): {len(dropped)} rows cannot be evaluated:\n"
            + listing(dropped),
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


def open_rows(data: Data, columns: Sequence[str]) -> tuple[Iterator[Row], str]:
    """The rows of a table of data, and where they are from.

    Args:
        data: the table.
        columns: of a Parquet file that has them all nothing else is read.
    """
    return _rows(data.path, data.id, data.revision, data.config, data.split, columns)


def _rows(
    path: str | None,
    hub_id: str | None,
    revision: str | None,
    config: str | None,
    split: str,
    columns: Sequence[str],
) -> tuple[Iterator[Row], str]:
    if path is not None:
        file = Path(local_path(path))
        return read_rows(file, split, columns), str(file)
    assert hub_id is not None
    return _hub_rows(hub_id, revision, config, split), f"{hub_id}[{split}]"


def _hub_rows(hub_id: str, revision: str | None, config: str | None, split: str) -> Iterator[Row]:
    import datasets

    folder = download(Need("data", Repo("dataset", hub_id, revision), "data", split, config=config))
    try:
        loaded = datasets.load_dataset(str(folder), config, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"data set {hub_id!r} (split {split!r}) cannot be read: {first_line(error)}",
            hint="Its files may be damaged; or give a local file with path.",
        ) from None
    for number, values in enumerate(loaded):
        yield Row(f"{hub_id}[{split}] row {number}", values)


def _names(columns: Columns) -> tuple[str, ...]:
    named = (columns.problem, columns.answer, columns.id or "id", columns.level or "level")
    return tuple(dict.fromkeys(named))


def passes(row: Row, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether each column named in a filter holds one of its values."""
    return all(str(cell(row.values, column)) in values for column, values in wanted.items())


def cell(values: Mapping[str, Any], column: str, missing: Any = None) -> Any:
    """The value of a column; `reward_model.ground_truth` looks into nested columns."""
    if column in values:
        return values[column]
    outer, dot, inner = column.partition(".")
    nested = values.get(outer) if dot else None
    return cell(nested, inner, missing) if isinstance(nested, Mapping) else missing


def _without_repeats(rows: Sequence[Row], columns: Columns) -> tuple[list[Row], int]:
    """Rows without those whose problem and answer an earlier one has."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        said = (cell(row.values, columns.problem), cell(row.values, columns.answer))
        key = repr(said)
        if key not in seen or said[0] is None:
            seen.add(key)
            kept.append(row)
    return kept, len(rows) - len(kept)


def _problems(
    rows: Sequence[Row], columns: Columns, check_answer: AnswerCheck
) -> tuple[list[Problem], list[Dropped]]:
    problems: list[Problem] = []
    dropped: list[Dropped] = []
    texts: set[str] = set()
    ids: set[str] = set()
    golds = [gold_text(cell(row.values, columns.answer)) for row in rows]
    answers = list(dict.fromkeys(gold for gold in golds if gold is not None))
    why_not = dict(zip(answers, check_answer(answers), strict=True))
    for number, (row, answer) in enumerate(zip(rows, golds, strict=True)):
        _demand_columns(row, columns)
        text, why = problem_text(cell(row.values, columns.problem))
        own_id = cell(row.values, columns.id or "id")
        identifier = f"row-{number:06d}" if own_id in (None, "") else str(own_id)
        why = why or _unusable(text, answer, texts, why_not)
        if why is None and not _is_unicode(f"{text}{answer}{identifier}"):
            why = "it holds half a character (a lone surrogate)"
        if why is None and identifier in ids:
            why = f"the id {identifier!r} occurs before"
        if why is not None:
            dropped.append(Dropped(row.where, why))
            continue
        texts.add(text)
        ids.add(identifier)
        level = cell(row.values, columns.level or "level")
        problems.append(
            Problem(identifier, text, str(answer), None if level is None else str(level))
        )
    return problems, dropped


def _demand_columns(row: Row, columns: Columns) -> None:
    for name in ("problem", "answer", "id", "level"):
        column = getattr(columns, name)
        if column is None or cell(row.values, column, _MISSING) is not _MISSING:
            continue
        held = sorted(_leaves(row.values))
        near = [known for known in _SYNONYMS.get(name, ()) if known in held]
        near += difflib.get_close_matches(column, held, n=2)
        meant = f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
        raise DataError(
            f"{row.where}: no column {column!r}; there are: {', '.join(held)}.{meant}",
            hint=f"Name it under [data.columns] (or in the [[eval]]): {name} = ...",
        )


def _leaves(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """The names of all columns, nested ones with dots."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def problem_text(value: Any) -> tuple[str, str | None]:
    """The problem of a text or of a list of messages; and why it cannot be used.

    Of messages it is the last turn, which has to be the user's. Turns of the assistant are
    refused, and system turns too: a run has one system text, prompt.system.
    """
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) for turn in value):
        roles = [str(turn.get("role")) for turn in value]
        if roles[-1] != "user" or len(roles) > roles.count("user"):
            return "", (
                f"its messages are of {', '.join(roles)}: only user turns are taken, the last one "
                "is the problem; a system text belongs into prompt.system"
            )
        value = value[-1].get("content")
        if isinstance(value, list):  # content in parts
            value = "\n".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str) or isinstance(value, Number) or not value.strip():
        return "", "the problem is empty or not text"
    return value.strip(), None


def gold_text(value: Any) -> str | None:
    """A gold answer in the file's own spelling; None if it is neither text nor a number."""
    if isinstance(value, list) and value:
        parts = [gold_text(part) for part in value]
        if None in parts:
            return None
        quoted = [f'"{part}"' if '"' not in str(part) else f"'{part}'" for part in parts]
        return f"[{', '.join(quoted)}]"
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else None
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    return None


def _unusable(
    text: str, answer: str | None, texts: set[str], why_not: Mapping[str, str | None]
) -> str | None:
    if text in texts:
        return "the problem occurs before"
    if answer is None:
        return "the answer is neither text nor a number"
    why = why_not[answer]
    return None if why is None else f"the answer {answer[:60]!r} cannot be used: {why}"


def _is_unicode(text: str) -> bool:
    """Whether a text can leave Python: JSON may spell lone surrogates, tokenizers refuse them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def listing(dropped: Sequence[Dropped], limit: int = 20) -> str:
    """Rows that were left out, a line each."""
    lines = [f"  {entry.where}: {entry.why}" for entry in dropped[:limit]]
    if len(dropped) > limit:
        lines.append(f"  and {len(dropped) - limit} more")
    return "\n".join(lines)
