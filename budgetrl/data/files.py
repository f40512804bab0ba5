"""Rows of local files, with every value as the file says it.

    read_rows(Path("train.csv.gz"), "train", columns)     JSON Lines, JSON, CSV, Parquet, folders

`datasets` reads the same formats by way of pandas and Arrow, which make numbers, dates and missing
values of texts: `007`, `1e3` and `NA` are answers here. Parquet has types of its own and is read by
pyarrow. Not here: which column is what (rows.py), and data sets of the hub.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from budgetrl.errors import DataError
from budgetrl.files import read_regular

MAX_BYTES = 1 << 30
"""Of one file, unpacked: its rows are held in memory."""
_OPTIONAL = {"id", "level"}
"""Columns that are taken where they are there."""
_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")


class Row(NamedTuple):
    """A row and where it stands, for messages."""

    where: str
    values: Mapping[str, Any]


class Number(str):
    """A decimal number of a JSON file, in the file's own digits."""


def read_rows(path: Path, split: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a file, or of all data files of a folder in the order of their names.

    Args:
        path: .jsonl, .json, .csv or .parquet, each perhaps with .gz behind; or a folder of them.
        split: which files of a folder, where they are named by split; else all of them.
        columns: needed ones; of a Parquet file nothing else is read.

    Raises:
        DataError: it cannot be read; says where and how to fix it.
    """
    for file in _files(path, split):
        yield from _READERS[_kind(file)](file, columns)


def _kind(file: Path) -> str:
    """The format, by the name."""
    name = file.name.lower().removesuffix(".gz")
    kind = next((kind for kind in _READERS if name.endswith(kind)), None)
    if kind is None and not file.is_file():
        return ".jsonl"  # the reader says what it is instead
    if kind is None:
        raise DataError(
            f"{file}: not a kind of file that is read.",
            hint=f"Use {', '.join(_READERS)} (each perhaps with .gz behind), or a folder of them.",
        )
    return kind


def _files(path: Path, split: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.name.lower().removesuffix(".gz").endswith(tuple(_READERS))
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    by_split = {file: _split_of(file.relative_to(path)) for file in files}
    if any(by_split.values()):
        files = [file for file in files if by_split[file] == split]
        if not files:
            held = ", ".join(sorted({name for name in by_split.values() if name}))
            raise DataError(
                f"{path}: holds no file of split {split!r}.", hint=f"It has: {held}. Set split."
            )
    if not files:
        raise DataError(
            f"{path}: a folder without data.", hint=f"Data files end with {', '.join(_READERS)}."
        )
    return files


def _split_of(relative: Path) -> str | None:
    """The split that a file or its folder is named by: train-00000-of-00001.parquet, test.csv."""
    for part in reversed(relative.parts):
        name = part.lower().replace("_", "-").split(".")[0].split("-")[0]
        if name in _SPLITS:
            return name
    return None


def _content(file: Path) -> bytes:
    try:
        data = read_regular(file, MAX_BYTES)
        if file.name.lower().endswith(".gz"):
            with gzip.open(io.BytesIO(data)) as unpacked:
                data = unpacked.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file}: not a whole gzip file: {error}.") from None
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read: {error.strerror}.",
            hint="Check the path in the recipe; it is relative to the recipe file.",
        ) from None
    if len(data) > MAX_BYTES:
        raise DataError(f"{file}: more than {MAX_BYTES >> 30} GiB unpacked.", hint="Split it.")
    return data


def _jsonl(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    return _lines(file, _content(file))


def _lines(file: Path, data: bytes) -> Iterator[Row]:
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            where = f"{file}:{number}"
            yield Row(where, _object(where, _parse(where, line, "One object per line.")))


def _json(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    """An array of objects; many files of this name hold JSON Lines."""
    data = _content(file)
    if not data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        yield from _lines(file, data)
        return
    for number, values in enumerate(_parse(str(file), data, "An array of objects is read.")):
        where = f"{file} row {number}"
        yield Row(where, _object(where, values))


def _parse(where: str, text: bytes, hint: str) -> Any:
    try:
        return json.loads(text.removeprefix(b"\xef\xbb\xbf"), parse_float=Number)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}.", hint=hint) from None


def _object(where: str, values: Any) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        hint = "Each row is one object."
        if isinstance(values, list):
            hint += " A file that holds one array of them has to be named .json."
        raise DataError(f"{where}: not a JSON object.", hint=hint)
    return values


def _csv(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    try:
        text = _content(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start}).") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError(f"{file}:1: two columns of the same name: {', '.join(header)}.")
        for cells in reader:
            where = f"{file}:{reader.line_num}"
            if cells and len(cells) != len(header):
                raise DataError(
                    f"{where}: {len(cells)} cells, and the first line names {len(header)} columns.",
                    hint="Text with commas or line breaks stands between double quotes.",
                )
            if cells:
                yield Row(where, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: not CSV: {error}.") from None


def _parquet(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(pyarrow.BufferReader(_in_arrow(_content(file))))
        held = opened.schema_arrow.names
        wanted = {name if name in held else name.split(".")[0] for name in columns}
        is_whole = wanted - _OPTIONAL <= set(held)
        read = [name for name in held if name in wanted or not is_whole]
        number = 0
        for batch in opened.iter_batches(columns=read):
            for values in batch.to_pylist():
                yield Row(f"{file} row {number}", values)
                number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a whole Parquet file: {error}.") from None


def _in_arrow(data: bytes) -> Any:
    """A copy in memory of Arrow's own.

    It reads in threads of its own. One of them that comes to an object of Python while Python ends
    ends the process with SIGABRT, after everything was done.
    """
    import pyarrow

    copy = pyarrow.allocate_buffer(len(data))
    memoryview(copy).cast("B")[:] = data
    return copy


_READERS: Mapping[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
