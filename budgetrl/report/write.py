"""Write reports: one run, or several side by side, as HTML, Markdown and JSON."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from budgetrl.account.evaluated import EvaluatedRun, read_run
from budgetrl.errors import RunDirError, UsageError
from budgetrl.files import write_atomic, write_json
from budgetrl.masking import masked_tree, shareable
from budgetrl.report import html, markdown
from budgetrl.report.document import Document, Figure, Figures, shareable_document
from budgetrl.report.ink import standalone
from budgetrl.report.sections import run_document
from budgetrl.report.summary import SCHEMA_VERSION, summary
from budgetrl.rundir import EVENTS, RunDir

HASHED_BYTES = 1 << 20
"""At either end of the events, by which copies are known."""
FORMATS = ("html", "md", "json")


def write_report(
    runs: Sequence[RunDir], out: Path | None = None, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write the report of a run; works for unfinished, crashed and damaged runs too.

    Args:
        runs: run directories; nothing else is read.
        out: folder for the files; where absent, `report/` in the run, or here for several runs.
        formats: of html, md, json.

    Returns:
        The files that were written, the ones to open first.

    Raises:
        UsageError: no run, no format, or an unknown one.
        RunDirError: the folder cannot be written.
    """
    if not runs:
        raise UsageError("no run to report.")
    _check_formats(formats)
    once: dict[str, RunDir] = {}
    for run in runs:
        once.setdefault(_history_hash(run), run)
    read = [read_run(run) for run in once.values()]
    document = _document(read)
    if len(once) < len(runs):
        note = f"{len(runs) - len(once)} of the runs were named before, or are copies: left out."
        document = replace(document, notices=[note, *document.notices])
    folder = out or (runs[0].report if len(once) == 1 else Path("report"))
    return write_document(document, read, folder, formats)


def write_document(
    document: Document,
    runs: Sequence[EvaluatedRun],
    folder: Path,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Write a document that is made already; returns the files.

    Raises:
        UsageError: no format, or an unknown one.
        RunDirError: the folder cannot be written.
    """
    _check_formats(formats)
    try:
        return list(_write(shareable_document(document), runs, folder, formats))
    except OSError as error:
        raise RunDirError(
            f"{folder}: the report cannot be written: {error.strerror}.",
            hint="Give another folder with --out.",
        ) from None


def _history_hash(run: RunDir) -> str:
    """Equal for a run and its copies: every event has the second it was written at."""
    events = run.file(EVENTS)
    if not events.is_file() or events.stat().st_size == 0:
        return str(run.path.resolve())
    size = events.stat().st_size
    with events.open("rb") as file:
        start = file.read(HASHED_BYTES)
        file.seek(max(0, size - HASHED_BYTES))
        return hashlib.sha256(start + file.read(HASHED_BYTES)).hexdigest() + f" {size}"


def _check_formats(formats: Sequence[str]) -> None:
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        wrong = f"unknown format {unknown[0]!r}" if unknown else "no format to write"
        raise UsageError(f"{wrong}.", hint=f"--format takes {', '.join(FORMATS)}.")


def _document(runs: Sequence[EvaluatedRun]) -> Document:
    if len(runs) == 1:
        return run_document(runs[0])
    from budgetrl.report.several import several_document  # loads matplotlib

    return several_document(runs)


def _write(
    document: Document, runs: Sequence[EvaluatedRun], folder: Path, formats: Sequence[str]
) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    if "html" in formats:
        write_atomic(folder / "report.html", html.render(document))
        yield folder / "report.html"
    if "md" in formats:
        pictures = list(_figures(document))
        (folder / "figures").mkdir(exist_ok=True)
        for figure in pictures:
            write_atomic(folder / "figures" / f"{figure.name}.svg", standalone(figure.svg))
        write_atomic(folder / "report.md", markdown.render(document, "figures"))
        yield folder / "report.md"
    if "json" in formats:
        document_json = {"schema_version": SCHEMA_VERSION, "runs": [summary(one) for one in runs]}
        write_json(folder / "report.json", masked_tree(document_json, shareable))
        yield folder / "report.json"


def _figures(document: Document) -> Iterator[Figure]:
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Figures):
                yield from block.figures
