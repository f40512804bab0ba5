"""The columns of a data file from its first or last kilobytes, without the rest of it.

columns_of(found, file) -> ("problem", "answer")       None for formats that do not tell
"""

import csv
import io
import json
from pathlib import PurePosixPath

from budgetrl.hub.lookup import TIMEOUT_S, patiently, repo_folder, request_of
from budgetrl.hub.repo import Found, RepoFile

_FIRST = 1 << 16
_MOST = 1 << 22
"""Bytes after which a first row that does not end is left unread."""


def columns_of(found: Found, file: RepoFile) -> tuple[str, ...] | None:
    """The columns of a data file; None where its format, or its first row, does not tell."""
    suffix = PurePosixPath(file.path).suffix.lower()
    if suffix == ".parquet":
        return _of_parquet(found, file)
    size = _FIRST
    while suffix in (".jsonl", ".ndjson", ".json", ".csv", ".tsv"):
        size = min(size, file.size)
        text = read_range(found, file, 0, size).decode("utf-8", errors="ignore")
        columns = _of_table(text, suffix) if suffix in (".csv", ".tsv") else _of_json(text)
        if columns is not None or size >= min(file.size, _MOST):
            return columns
        size *= 8
    return None


def read_range(found: Found, file: RepoFile, first: int, end: int) -> bytes:
    """Bytes `first` to before `end` of a file, from the cache where it is there.

    Raises:
        BudgetRLError: the hub does not give them.
    """
    blob = repo_folder(found.repo) / "blobs" / file.blob
    shown = repo_folder(found.repo) / "snapshots" / found.commit / file.path
    for path in (blob, shown):
        if path.is_file():
            with path.open("rb") as opened:
                opened.seek(first)
                return opened.read(end - first)
    return patiently(lambda: _ask(found, file, first, end), found.repo, file.path)


def _ask(found: Found, file: RepoFile, first: int, end: int) -> bytes:
    from huggingface_hub import get_session
    from huggingface_hub.utils import hf_raise_for_status

    part = first > 0 or end < file.size
    url, headers = request_of(found, file, f"{first}-{end - 1}" if part else None)
    answer = get_session().get(url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True)
    hf_raise_for_status(answer)
    whole = bytes(answer.content)
    return whole if answer.status_code == 206 else whole[first:end]


def _of_parquet(found: Found, file: RepoFile) -> tuple[str, ...] | None:
    """A Parquet file ends with its schema, the schema's length and four letters."""
    import pyarrow
    import pyarrow.parquet

    tail = read_range(found, file, max(0, file.size - _FIRST), file.size)
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if needed > len(tail) and needed <= min(file.size, _MOST):
        tail = read_range(found, file, file.size - needed, file.size)
    try:
        return tuple(pyarrow.parquet.read_schema(io.BytesIO(tail)).names)
    except (pyarrow.ArrowInvalid, OSError):
        return None


def _of_table(text: str, suffix: str) -> tuple[str, ...] | None:
    line, end, _ = text.partition("\n")
    row = next(csv.reader([line], delimiter="\t" if suffix == ".tsv" else ","), [])
    return tuple(row) if end else None


def _of_json(text: str) -> tuple[str, ...] | None:
    """Of the first object: alone on a line, or the first of a list."""
    start = text.lstrip("\ufeff \t\r\n[")
    try:
        row, _ = json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        return None
    return tuple(row) if isinstance(row, dict) else None
