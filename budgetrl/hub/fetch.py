"""Download a repository's files into the hub's cache: resumable, checked, and given up in time.

    fetch(found, files, watch) -> the folder of the snapshot

huggingface_hub 1.33 deletes the part of a file that was cut off, or leaves it under a random name,
and waits for minutes on a hub that sends nothing. So the bytes are fetched here, into the layout of
its cache (blobs, and snapshots that link to them): everything else finds them there. A part is kept
as `blobs/NAME.part`; a file is shown only when its hash is right, a snapshot's files only when all
of them are here. Two programs that want one file: one fetches it, the other waits for it.

Not used: Xet, the hub's own transfer protocol, whose parts cannot be continued by another process.
"""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgetrl.errors import BudgetRLError, RefusedError, first_line
from budgetrl.files import lock_exclusively
from budgetrl.hub.errors import (
    RETRY_LATER,
    HubError,
    cache_folder,
    explain,
    not_cached,
    retry_after_s,
)
from budgetrl.hub.lookup import repo_folder, request_of, snapshot_folder
from budgetrl.hub.repo import Found, RepoFile, endpoint, is_offline
from budgetrl.units import duration, gib

READ_TIMEOUT_S = 10
"""Without a byte for this long a connection is made anew; HF_HUB_DOWNLOAD_TIMEOUT replaces it."""
STALL_FACTOR = 6
"""Without a byte for this many read timeouts a download is given up: a minute."""
PARTS = ".part"
_AT_ONCE = 4
_TICK_S = 0.1
_PASSING = (408, 429, 500, 502, 503, 504)
_PAUSES_S = (0.5, 1.5, 4.0)


@dataclass(slots=True)
class Watch:
    """What a download is followed by: the bytes so far, and reasons to give it up."""

    total: int
    """Bytes that were missing at the start."""
    tell: Callable[["Watch"], None] = lambda _: None
    """Called ten times a second; may raise to end the download."""
    stall_s: float | None = None
    """Without a byte for this long it is given up; None: as HF_HUB_DOWNLOAD_TIMEOUT says."""
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    moved: float = field(default_factory=time.monotonic)
    """When the last byte came."""
    fault: str = ""
    """Why the last connection ended."""
    over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        """Note bytes that came; below 0 if they have to come again."""
        with self._lock:
            self.done += count
            self.moved = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Bytes per second so far."""
        return self.done / max(self.elapsed_s, 1e-3)

    @property
    def remaining_s(self) -> float | None:
        """At the pace so far; None before there is one."""
        return (self.total - self.done) / self.rate if self.done > 0 else None


def missing(found: Found, files: Sequence[RepoFile]) -> list[RepoFile]:
    """Those of a repository's files that are not in the cache yet."""
    shown, blobs = snapshot_folder(found), repo_folder(found.repo) / "blobs"
    return [f for f in files if not (shown / f.path).is_file() and not (blobs / f.blob).is_file()]


def bytes_missing(found: Found, files: Sequence[RepoFile]) -> int:
    """What has to be downloaded, less the parts of files that are here."""
    blobs = repo_folder(found.repo) / "blobs"
    return sum(max(0, f.size - _size(_part(blobs, f))) for f in missing(found, files))


def refuse_full_disk(needed: int) -> None:
    """Refuse a download that the disk has no room for.

    Raises:
        RefusedError: says how much is missing where.
    """
    place = cache_folder()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise RefusedError(
            f"{gib(needed)} have to be downloaded, and the disk of {cache_folder()} has "
            f"{gib(free)} free.",
            hint="Make room there, or name a folder on a larger disk with HF_HOME.",
        )


def fetch(found: Found, files: Sequence[RepoFile], watch: Watch | None = None) -> Path:
    """The folder that shows a repository's files, after a download of those that are missing.

    Raises:
        ModelError, DataError: access was taken away, or offline and not cached.
        HubError: faults that do not pass, or no byte for too long; parts are kept.
        RefusedError: the disk is too small.
    """
    shown, wanted = snapshot_folder(found), missing(found, files)
    if wanted:
        if is_offline():
            raise not_cached(found.pinned, [file.path for file in wanted])
        refuse_full_disk(bytes_missing(found, files))
        (repo_folder(found.repo) / "blobs").mkdir(parents=True, exist_ok=True)
        _all(found, wanted, watch or Watch(bytes_missing(found, files)))
    _show(found, files)
    return shown


def _all(found: Found, wanted: Sequence[RepoFile], watch: Watch) -> None:
    """Fetch several files at once, watched from here."""
    pool = ThreadPoolExecutor(_AT_ONCE, "download")
    try:
        jobs = [pool.submit(_one, found, file, watch) for file in wanted]
        watch.moved = time.monotonic()
        while not all(job.done() for job in jobs):
            _raise_first(jobs)
            _refuse_stall(found, watch)
            watch.tell(watch)
            time.sleep(_TICK_S)
        _raise_first(jobs)
        watch.tell(watch)
    finally:
        watch.over.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _raise_first(jobs: Sequence["Future[None]"]) -> None:
    for job in jobs:
        if job.done() and not job.cancelled():
            try:
                job.result()
            except BudgetRLError:
                raise
            except OSError as error:
                raise HubError(
                    f"the hub's cache {cache_folder()} cannot be written: {error.strerror}.",
                    hint="Make room there, or name another folder with HF_HOME.",
                ) from None


def _refuse_stall(found: Found, watch: Watch) -> None:
    limit_s = watch.stall_s or STALL_FACTOR * read_timeout_s()
    if time.monotonic() - watch.moved > limit_s:
        last = f" (last: {watch.fault})" if watch.fault else ""
        raise HubError(
            f"{found.repo.label}: {endpoint()} sent nothing for {duration(limit_s)}{last}; "
            f"{gib(watch.done)} of {gib(watch.total)} came before and are kept.",
            hint=f"Check the network. {RETRY_LATER}",
        )


def read_timeout_s() -> float:
    """Seconds without a byte after which a connection is made anew."""
    try:
        return float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "")) or READ_TIMEOUT_S
    except ValueError:
        return READ_TIMEOUT_S


def _one(found: Found, file: RepoFile, watch: Watch) -> None:
    """Fetch one file, or wait for another program that does."""
    blobs = repo_folder(found.repo) / "blobs"
    target, part = blobs / file.blob, _part(blobs, file)
    seen = _size(part)
    while not target.is_file() and not watch.over.is_set():
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if lock_exclusively(handle) and _same(handle, part):
                _into(handle, found, file, watch)
                if not watch.over.is_set():
                    part.replace(target)
                return
        finally:
            os.close(handle)
        watch.add(_size(part) - seen)
        seen = _size(part)
        time.sleep(0.5)


def _same(handle: int, part: Path) -> bool:
    """Whether a path still leads to an open file: its writer may have moved it meanwhile."""
    with suppress(FileNotFoundError):
        return os.fstat(handle).st_ino == part.stat().st_ino
    return False


def _into(handle: int, found: Found, file: RepoFile, watch: Watch) -> None:
    """Bring a part of a file to its end.

    Raises:
        BudgetRLError: it cannot be had, or does not come as it should.
    """
    from huggingface_hub.errors import HfHubHTTPError

    damaged, faults = 0, 0
    while not watch.over.is_set():
        size = os.lseek(handle, 0, os.SEEK_END)
        if size >= file.size:
            if size == file.size and _hash(handle, file) == file.blob:
                return
            damaged += 1
            os.ftruncate(handle, 0)
            watch.add(-size)
            if damaged > 2:
                raise HubError(
                    f"{found.repo.label}: {file.path} came damaged, twice.",
                    hint=f"A proxy or mirror may change it: check HF_ENDPOINT. {RETRY_LATER}",
                )
        try:
            _stream(handle, found, file, watch)
            faults = 0
        except HfHubHTTPError as error:
            faults += 1
            passing = error.response.status_code in _PASSING and retry_after_s(error) is None
            if not passing or faults > len(_PAUSES_S):
                raise explain(error, found.repo, file.path) from None
            watch.over.wait(_PAUSES_S[faults - 1])


def _stream(handle: int, found: Found, file: RepoFile, watch: Watch) -> None:
    """Append what the hub sends from where a part ends; a cut connection is no error.

    Raises:
        HfHubHTTPError: an answer that is no file.
    """
    import httpx
    from huggingface_hub import get_session
    from huggingface_hub.utils import hf_raise_for_status

    start = os.lseek(handle, 0, os.SEEK_END)
    url, headers = request_of(found, file, f"{start}-" if start else None)
    try:
        with get_session().stream(
            "GET", url, headers=headers, timeout=read_timeout_s(), follow_redirects=True
        ) as answer:
            hf_raise_for_status(answer)
            if start and answer.status_code == 200:  # a server without ranges
                os.ftruncate(handle, 0)
                watch.add(-start)
            for chunk in answer.iter_bytes():
                if watch.over.is_set():
                    return
                os.lseek(handle, 0, os.SEEK_END)
                _write(handle, chunk)
                watch.add(len(chunk))
    except httpx.TransportError as error:
        watch.fault = f"{type(error).__name__}: {first_line(error)}"
        watch.over.wait(_PAUSES_S[0])


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _hash(handle: int, file: RepoFile) -> str:
    """Of a whole file, as the hub names it."""
    digest: Any = hashlib.sha256()
    if not file.is_large:
        digest = hashlib.sha1(b"blob %d\0" % file.size)
    position = 0
    while block := os.pread(handle, 8 << 20, position):
        digest.update(block)
        position += len(block)
    return str(digest.hexdigest())


def _show(found: Found, files: Sequence[RepoFile]) -> None:
    """Link the blobs into the snapshot of the commit, and note what the branch was."""
    folder = repo_folder(found.repo)
    for file in files:
        link, blob = snapshot_folder(found) / file.path, folder / "blobs" / file.blob
        if link.is_file() or not blob.is_file():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another program was quicker
            link.symlink_to(os.path.relpath(blob, link.parent))
    if not found.repo.is_pinned:
        ref = folder / "refs" / (found.repo.revision or "main")
        with suppress(OSError):  # such as a cache that may only be read
            if not ref.is_file() or ref.read_text() != found.commit:
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(found.commit)


def _part(blobs: Path, file: RepoFile) -> Path:
    return blobs / f"{file.blob}{PARTS}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
