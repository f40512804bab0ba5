"""The run directory: the only reader and writer of its files.

    run = RunDir.create(Path("runs"), "quickstart")      new folder, nothing is overwritten
    with run.writer(stamp) as events: events.write(Step(...))    one writer at a time, by flock
    for event in run.events(): ...                        tolerant of torn and foreign lines
    run.newest_checkpoint()                               complete ones only

Files are replaced as a whole (temporary name, fsync, rename), so each is the old one or the new
one. What the files mean is not known here: see `events`, `history` and `types`.
"""

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self

from budgetrl.checkpoint_files import CheckpointFolder
from budgetrl.damage import RECIPE as RECIPE, RESOLVED as RESOLVED, way_on
from budgetrl.errors import RunDirError
from budgetrl.event_file import EventWriter, each_whole_line, whole_lines
from budgetrl.events import Event, RunFinished, Stamp, parse
from budgetrl.files import (
    PRIVATE_MODE,
    PUBLIC_MODE,
    clear_temporary,
    lock_exclusively,
    write_atomic,
    write_json,
)
from budgetrl.processor import boot_id
from budgetrl.types import RunStatus

EVENTS = "events.jsonl"
LOCK = "events.lock"
SUPERVISOR_LOCK = "supervisor.lock"
MANIFEST = "manifest.json"
PLAN = "plan.json"
HEARTBEAT = "heartbeat.json"
RESULT = "result.json"
EXPORTED = "adapter"
"""The folder in which a run leaves the adapter of its chosen checkpoint."""

PRIVATE = (RECIPE, RESOLVED, PLAN)
"""Hold what a resumption needs as it was given, secrets too; never copied into a report."""

HEARTBEAT_FRESH_S = 5.0
"""A heartbeat comes each second; one older than this says that nobody writes it."""

SCHEMA_VERSION = 1
"""Of the run directory as a whole, in its manifest."""


class RunDir(CheckpointFolder):
    """One run's folder. Construct by `create` or `open_run`."""

    @classmethod
    def create(
        cls, out: Path, recipe_name: str, now: float | None = None, *, name: str | None = None
    ) -> Self:
        """A new, empty run directory `<recipe>--<utc time>--<short id>` under `out`.

        Args:
            out: folder of run directories.
            recipe_name: a recipe's.
            now: Unix seconds of the name's time.
            name: another one for the folder.

        Raises:
            RunDirError: the folder cannot be made.
        """
        out = out.expanduser()
        path = out / (name or cls.new_name(recipe_name, now))
        try:
            out.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            for name in ("completions", "checkpoints", "evals", "report"):
                (path / name).mkdir()
        except OSError as error:
            raise RunDirError(
                f"cannot create the run directory {path}: {error.strerror}.",
                hint="Give another folder with --out.",
            ) from None
        return cls(path.resolve())

    @staticmethod
    def new_name(recipe_name: str, now: float | None = None) -> str:
        """A name that no other run has."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        return f"{recipe_name.replace('/', '-')}--{stamp}--{secrets.token_hex(3)}"

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.name

    def relative(self, path: Path) -> str:
        """A path in the run directory, as events and results name it."""
        return path.relative_to(self.path).as_posix()

    # --- where its files are; nobody else joins its path

    def file(self, name: str) -> Path:
        """One of its documents, by the names above."""
        return self.path / name

    def exists(self) -> bool:
        """Whether the folder holds a run: its recipe comes last and goes first."""
        return self.file(RESOLVED).is_file()

    @property
    def evals(self) -> Path:
        """The folder of suites with their evaluations."""
        return self.path / "evals"

    def eval_files(self, name: str, suite: str = "*") -> list[Path]:
        """Evaluations of all suites by their name, such as "final" or "eval-*"."""
        return sorted(self.evals.glob(f"{suite}/{name}.json"))

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.path / "report"

    @property
    def adapter(self) -> Path:
        """The folder of the exported adapter; not there before a run has ended well."""
        return self.path / EXPORTED

    @property
    def worker_log(self) -> Path:
        """What the worker prints."""
        return self.path / "worker.log"

    def scratch(self, name: str) -> Path:
        """A file or folder of somebody else's, such as a library's."""
        return self.path / name

    # --- single files

    def write_json(self, name: str, value: Any) -> None:
        """Replace one of the run's JSON files."""
        write_json(self.path / name, value, mode_of(name))

    def note(self, **entries: Any) -> None:
        """Add to the manifest, or replace what it says."""
        self.write_json(MANIFEST, (self.read_json(MANIFEST) or {}) | entries)

    def read_json(self, name: str) -> Any:
        """The object in one of the run's JSON files; None if it is absent.

        Raises:
            RunDirError: it is there and holds no JSON object.
        """
        file, wrong = self.path / name, ""
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            value, wrong = None, f"cannot be read: {error.strerror}"
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        wrong = wrong or f"is damaged: its {file.stat().st_size:,} bytes are no whole JSON object"
        raise RunDirError(f"{file}: {wrong}.", hint=way_on(self.path, name))

    # --- events

    @contextmanager
    def writer(self, stamp: Stamp) -> Iterator["EventWriter"]:
        """The one writer of `events.jsonl`, for as long as the context lasts.

        Raises:
            RunDirError: another process holds the lock.
        """
        with self.locked(LOCK, "writes its events"):
            writer = EventWriter(self.path / EVENTS, stamp)
            try:
                yield writer
            finally:
                writer.close()

    def supervised(self) -> AbstractContextManager[None]:
        """The one supervisor of the run, from before its first write to after its last.

        Raises:
            RunDirError: there is one already, or the folder cannot be written.
        """
        return self.locked(SUPERVISOR_LOCK, "runs it")

    @contextmanager
    def locked(self, name: str, does: str) -> Iterator[None]:
        """A lock by its name, for the one process that `does` what it is for.

        Raises:
            RunDirError: another holds it, or the folder cannot be written.
        """
        try:
            lock = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunDirError(
                f"cannot write to the run directory {self.path}: {error.strerror}.",
                hint="Make it writable, or copy it to where you can write.",
            ) from None
        try:
            if not lock_exclusively(lock):
                raise RunDirError(
                    f"{self.path} is in use: another process {does}.",
                    hint=f"Look at it with `budgetrl watch {self.path}`.",
                )
            yield
        finally:
            os.close(lock)

    def is_locked(self, name: str = LOCK) -> bool:
        """Whether a process writes events right now; with another lock, whether one holds that."""
        try:
            lock = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # Shared, so that two who look at the same time do not see one another.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def events(self) -> Iterator[Event]:
        """All readable events in order."""
        parsed = (parse(line) for line in self.lines())
        return (event for event in parsed if event is not None)

    def lines(self) -> Iterator[bytes]:
        """All whole lines of the event file, one by one, so that a long one has room."""
        return each_whole_line(self.file(EVENTS))

    def tail(self, offset: int) -> tuple[list[Event], int]:
        """Events from a byte offset on, and the offset to continue from.

        A last line without line feed is left for the next call.
        """
        lines, offset = self.tail_lines(offset)
        parsed = (parse(line) for line in lines)
        return [event for event in parsed if event is not None], offset

    def tail_lines(self, offset: int, block: int = -1) -> tuple[list[bytes], int]:
        """As `tail`, raw: whole lines of at most about `block` bytes together (-1: all)."""
        return whole_lines(self.file(EVENTS), offset, block)

    def events_size(self) -> int:
        """Bytes of the event file; 0 if it is absent."""
        try:
            return (self.path / EVENTS).stat().st_size
        except OSError:
            return 0

    def status(self) -> RunStatus:
        """As `status_of`, for who has not read the events."""
        return self.status_of(self.last_finish())

    def status_of(self, finished: RunFinished | None, now: float | None = None) -> RunStatus:
        """What the files and the locks tell about the run: the one rule of all readers.

        Args:
            finished: the last `run_finished` event, if no resumption followed it.
            now: Unix seconds.
        """
        if self.is_locked() or (finished is None and self._is_supervised(now)):
            return RunStatus.RUNNING
        return RunStatus.CRASHED if finished is None else finished.stop_reason.status

    def _is_supervised(self, now: float | None) -> bool:
        """Whether a supervisor lives, also while no worker does.

        On this machine its lock decides. Of another machine, whose locks may not be seen here,
        the heartbeat tells, unless it is of the future: then one of two clocks is wrong.
        """
        if self.is_locked(SUPERVISOR_LOCK):
            return True
        try:
            beat = self.read_json(HEARTBEAT) or {}
            age = (time.time() if now is None else now) - float(beat["t"])
        except (RunDirError, KeyError, TypeError, ValueError, OverflowError):
            return False
        return beat.get("boot") != boot_id() and 0 <= age < HEARTBEAT_FRESH_S

    def last_finish(self) -> RunFinished | None:
        """The last `run_finished` event, if no resumption followed it."""
        last: RunFinished | None = None
        ends = (line for line in self.lines() if b"run_finished" in line or b"run_resumed" in line)
        for event in filter(None, map(parse, ends)):
            if isinstance(event, RunFinished):
                last = event
            elif event.kind == "run_resumed":
                last = None
        return last

    # --- completions and evaluations

    def completions_file(self, step: int) -> Path:
        """Where a step's completions are stored."""
        return self.path / "completions" / f"step_{step:06d}.jsonl"

    def write_completions(self, step: int, rows: Iterable[Mapping[str, Any]]) -> int:
        """Store the completions of a step, replacing those of an abandoned attempt; the bytes.

        The disk has them for good with the next checkpoint, as it has the update.
        """
        lines = (json.dumps(row, ensure_ascii=True) for row in rows)
        content = ("\n".join(lines) + "\n").encode()
        self.completions_file(step).parent.mkdir(exist_ok=True)  # somebody may have deleted all
        write_atomic(self.completions_file(step), content, durable=False)
        return len(content)

    def drop_completions(self, step: int) -> None:
        """Delete the completions of a step, if they are there."""
        self.completions_file(step).unlink(missing_ok=True)

    def stored_completions(self) -> dict[int, int]:
        """Bytes of the completions that are stored, by step."""
        found = {}
        with suppress(OSError), os.scandir(self.path / "completions") as files:
            for file in files:
                number = file.name.removeprefix("step_").removesuffix(".jsonl")
                if number.isdecimal() and file.name == self.completions_file(int(number)).name:
                    found[int(number)] = file.stat().st_size
        return found

    def eval_folder(self, suite: str) -> Path:
        """Where a suite's results are stored; made if absent."""
        folder = self.evals / suite
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_temporary(self) -> None:
        """Delete what killed processes left half written; only for the writer of the events."""
        for folder in (*self.path.glob(".tmp-*"), *self.checkpoint_folder.glob(".tmp-*")):
            shutil.rmtree(folder, ignore_errors=True)
        clear_temporary(self.path, "*/", "evals/*/", "report/*/")


def mode_of(name: str) -> int:
    """Permissions of one of a run's files."""
    return PRIVATE_MODE if name in PRIVATE else PUBLIC_MODE


def open_run(path: str | os.PathLike[str]) -> RunDir:
    """An existing run directory.

    Raises:
        RunDirError: no such folder, not one of ours, or of a newer budgetrl.
    """
    folder = Path(path).expanduser()
    if not (folder / RESOLVED).is_file():
        wrong, near = f"no run directory {str(path)!r}", Path("runs", folder.name)
        if any((folder / document).is_file() for document in (EVENTS, MANIFEST, PLAN)):
            raise RunDirError(f"{path}: its {RESOLVED} is gone.", hint=way_on(folder, RESOLVED))
        if folder.is_dir():
            wrong = f"{path} is not a run directory: it holds no {RESOLVED}"
        above = (place for place in (near, *folder.parents) if (place / RESOLVED).is_file())
        meant = "".join(f"Did you mean {place}? " for place in islice(above, 1))
        raise RunDirError(f"{wrong}.", hint=f"{meant}`budgetrl runs` lists the runs under ./runs.")
    run = RunDir(folder.resolve())
    try:
        made_by = run.read_json(MANIFEST) or {}
    except RunDirError:  # a run can be looked at without it; who needs it will say so
        made_by = {}
    version = made_by.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RunDirError(
            f"{path} is of a newer budgetrl ({made_by.get('budgetrl')}): its run directories have "
            f"version {version}, and this one knows {SCHEMA_VERSION}.",
            hint="Update budgetrl, or use the one that made it.",
        )
    return run


def list_runs(out: str | Path = "runs") -> list[RunDir]:
    """All run directories under a folder, oldest first; without those of unreadable events."""
    folder = Path(out).expanduser()
    files = folder.glob(f"*/{RESOLVED}")
    found = [RunDir(file.parent.resolve()) for file in files if _has_readable_events(file.parent)]
    return sorted(found, key=lambda run: (run.path / RESOLVED).stat().st_mtime)


def _has_readable_events(folder: Path) -> bool:
    """Whether its events can be read, or there are none yet."""
    events = folder / EVENTS
    return not events.exists() or (events.is_file() and os.access(events, os.R_OK))
