"""The run directory: the only reader and writer of its files.

    run = RunDir.create(Path("runs"), "quickstart")      new folder, nothing is overwritten
    with run.writer(stamp) as events: events.write(Step(...))    one writer at a time, by flock
    for event in run.events(): ...                        tolerant of torn and foreign lines
    run.newest_checkpoint()                               complete ones only

Files are replaced as a whole (temporary name, fsync, rename), so each is the old one or the new
one. What the files mean is not known here: see `events`, `history` and `types`.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from budgetrl.damage import RECIPE as RECIPE
from budgetrl.damage import RESOLVED as RESOLVED
from budgetrl.damage import way_on
from budgetrl.errors import RunDirError
from budgetrl.event_file import EventWriter
from budgetrl.events import Event, RunFinished, Stamp, parse
from budgetrl.files import (
    PRIVATE_MODE,
    PUBLIC_MODE,
    clear_temporary,
    fsync_folder,
    lock_exclusively,
    make_public,
    write_atomic,
    write_json,
)
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
CHECKPOINT_MANIFEST = "checkpoint.json"

PRIVATE = (RECIPE, RESOLVED, PLAN)
"""Hold what a resumption needs as it was given, secrets too; never copied into a report."""

BLOCK_BYTES = 1 << 20
"""Of the event file, at a time."""
HEARTBEAT_FRESH_S = 5.0
"""A heartbeat comes each second; one older than this says that nobody writes it."""

SCHEMA_VERSION = 1
"""Of the run directory as a whole, in its manifest."""


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A complete checkpoint on the disk."""

    path: Path
    step: int
    resumable: bool
    """False for adapter-only checkpoints (best, milestones)."""


class RunDir:
    """One run's folder. Construct by `create` or `open_run`."""

    def __init__(self, path: Path) -> None:
        self.path = path

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

    # --- single files

    def write_json(self, name: str, value: Any) -> None:
        """Replace one of the run's JSON files."""
        write_json(self.path / name, value, mode_of(name))

    def read_json(self, name: str) -> Any:
        """The object in one of the run's JSON files; None if it is absent.

        Raises:
            RunDirError: it is there and holds no JSON object.
        """
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunDirError(f"{self.path / name}: cannot be read: {error.strerror}.") from None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            size = (self.path / name).stat().st_size
            raise RunDirError(
                f"{self.path / name}: is damaged: its {size:,} bytes are no whole JSON object.",
                hint=way_on(self.path, name),
            )
        return value

    # --- events

    @contextmanager
    def writer(self, stamp: Stamp) -> Iterator["EventWriter"]:
        """The one writer of `events.jsonl`, for as long as the context lasts.

        Raises:
            RunDirError: another process holds the lock.
        """
        with self._locked(LOCK, "writes its events"):
            writer = EventWriter(self.path / EVENTS, stamp)
            try:
                yield writer
            finally:
                writer.close()

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """The one supervisor of the run, from before its first write to after its last.

        Raises:
            RunDirError: there is one already, or the folder cannot be written.
        """
        with self._locked(SUPERVISOR_LOCK, "runs it"):
            yield

    @contextmanager
    def _locked(self, name: str, does: str) -> Iterator[None]:
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
        """All whole lines of the event file, read block by block."""
        offset = 0
        while True:
            lines, offset = self.tail_lines(offset, BLOCK_BYTES)
            if not lines:
                return
            yield from lines

    def tail(self, offset: int) -> tuple[list[Event], int]:
        """Events from a byte offset on, and the offset to continue from.

        A last line without line feed is left for the next call.
        """
        lines, offset = self.tail_lines(offset)
        parsed = (parse(line) for line in lines)
        return [event for event in parsed if event is not None], offset

    def tail_lines(self, offset: int, block: int = -1) -> tuple[list[bytes], int]:
        """As `tail`, raw: whole lines of at most about `block` bytes together (-1: all)."""
        try:
            with (self.path / EVENTS).open("rb") as file:
                file.seek(offset)
                data = more = file.read(block)
                while more and b"\n" not in data:
                    more = file.read(block)
                    data += more
        except (FileNotFoundError, NotADirectoryError):
            return [], offset
        except OSError as error:
            raise RunDirError(f"{self.path / EVENTS}: cannot be read: {error.strerror}.") from None
        whole = data.rfind(b"\n") + 1
        return data[:whole].splitlines(), offset + whole

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
        except (RunDirError, KeyError, TypeError, ValueError):
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
        """Store the completions of a step, replacing those of an abandoned attempt; the bytes."""
        lines = (json.dumps(row, ensure_ascii=True) for row in rows)
        content = ("\n".join(lines) + "\n").encode()
        write_atomic(self.completions_file(step), content)
        return len(content)

    def drop_completions(self, step: int) -> None:
        """Delete the completions of a step, if they are there."""
        self.completions_file(step).unlink(missing_ok=True)

    def stored_completions(self) -> dict[int, int]:
        """Bytes of the completions that are stored, by step."""
        found = {}
        with suppress(FileNotFoundError), os.scandir(self.path / "completions") as files:
            for file in files:
                number = file.name.removeprefix("step_").removesuffix(".jsonl")
                if number.isdecimal() and file.name == self.completions_file(int(number)).name:
                    found[int(number)] = file.stat().st_size
        return found

    def eval_folder(self, suite: str) -> Path:
        """Where a suite's results are stored; made if absent."""
        folder = self.path / "evals" / suite
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # --- checkpoints

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint of a step is stored."""
        return self.path / "checkpoints" / f"step_{step:06d}"

    @contextmanager
    def new_checkpoint(self, step: int, resumable: bool = True) -> Iterator[Path]:
        """A temporary folder that becomes the step's checkpoint when the context ends well."""
        final = self.checkpoint_path(step)
        temporary = final.with_name(f".tmp-{final.name}-{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            _seal(temporary, step, resumable)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self.drop_checkpoint(step)
        temporary.rename(final)
        fsync_folder(final.parent)

    def drop_checkpoint(self, step: int) -> None:
        """Delete a checkpoint, if it is there; never half of one under its name."""
        folder = self.checkpoint_path(step)
        if folder.exists():
            doomed = folder.with_name(f".tmp-old-{folder.name}-{os.getpid()}")
            folder.rename(doomed)
            shutil.rmtree(doomed)

    def set_aside_after(self, step: int) -> list[str]:
        """Rename later checkpoints, to make room for a resumed run's; returns their new names.

        They are damaged or cannot be resumed from, or the run would go on from one of them.
        """
        names = []
        for folder in sorted((self.path / "checkpoints").glob("step_*")):
            number = folder.name.removeprefix("step_")
            if number.isdecimal() and int(number) > step:
                kept = folder.with_name(f"unused_{folder.name}")
                shutil.rmtree(kept, ignore_errors=True)
                folder.rename(kept)
                names.append(kept.name)
        return names

    def reduce_checkpoint(self, checkpoint: CheckpointFile, dropped: Sequence[str]) -> None:
        """Take files away for good; it is complete at every moment, but no longer resumable."""
        manifest = json.loads((checkpoint.path / CHECKPOINT_MANIFEST).read_text(encoding="utf-8"))
        kept = {name: entry for name, entry in manifest["files"].items() if name not in dropped}
        write_json(
            checkpoint.path / CHECKPOINT_MANIFEST, manifest | {"resumable": False, "files": kept}
        )
        for name in dropped:
            (checkpoint.path / name).unlink(missing_ok=True)

    def clear_temporary(self) -> None:
        """Delete what killed processes left half written; only for the writer of the events."""
        for folder in (self.path / "checkpoints").glob(".tmp-*"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.path, *self.path.glob("*/"), *self.path.glob("evals/*/")):
            clear_temporary(folder)

    def checkpoints(self) -> list[CheckpointFile]:
        """Complete checkpoints by step; half ones and foreign files are not seen."""
        found = []
        for folder in sorted((self.path / "checkpoints").glob("step_*")):
            checkpoint = read_checkpoint(folder)
            # A copy that somebody made under another name is his, not ours to use or to prune.
            if checkpoint is not None and folder == self.checkpoint_path(checkpoint.step):
                found.append(checkpoint)
        return found

    def newest_checkpoint(self) -> CheckpointFile | None:
        """The newest complete checkpoint that can be resumed from, every byte as it was written."""
        resumable = (c for c in reversed(self.checkpoints()) if c.resumable)
        return next((c for c in resumable if not damaged_files(c)), None)


def mode_of(name: str) -> int:
    """Permissions of one of a run's files."""
    return PRIVATE_MODE if name in PRIVATE else PUBLIC_MODE


def boot_id() -> str | None:
    """Tells this machine, since it was started, from others; says nothing else of it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return None
    return hashlib.sha256(b"budgetrl" + boot).hexdigest()[:12]


def open_run(path: str | os.PathLike[str]) -> RunDir:
    """An existing run directory.

    Raises:
        RunDirError: no such folder, not one of ours, or of a newer budgetrl.
    """
    folder = Path(path).expanduser()
    if not (folder / RESOLVED).is_file():
        wrong = f"no run directory {str(path)!r}"
        if folder.is_dir():
            wrong = f"{path} is not a run directory: it holds no {RESOLVED}"
        raise RunDirError(f"{wrong}.", hint="`budgetrl runs` lists the runs under ./runs.")
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


def read_checkpoint(folder: Path) -> CheckpointFile | None:
    """A folder as a checkpoint, or None unless it is complete: every file with its size."""
    try:
        manifest = json.loads((folder / CHECKPOINT_MANIFEST).read_text(encoding="utf-8"))
        for name, entry in manifest["files"].items():
            if (folder / name).stat().st_size != entry["bytes"]:
                return None
        return CheckpointFile(folder, int(manifest["step"]), bool(manifest["resumable"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _seal(folder: Path, step: int, resumable: bool) -> None:
    """Make every file durable and write the manifest with sizes and hashes, last."""
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        make_public(file)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            os.fsync(opened.fileno())
        size = file.stat().st_size
        files[file.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
    manifest = {"schema_version": 1, "step": step, "resumable": resumable, "files": files}
    write_json(folder / CHECKPOINT_MANIFEST, manifest)


def damaged_files(checkpoint: CheckpointFile) -> Sequence[str]:
    """Files of a checkpoint whose content does not match its hash."""
    manifest = json.loads((checkpoint.path / CHECKPOINT_MANIFEST).read_text(encoding="utf-8"))
    damaged = []
    for name, entry in manifest["files"].items():
        with (checkpoint.path / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                damaged.append(name)
    return damaged
