"""Grade in processes that can be killed, so that a hostile answer costs nothing but itself.

    with GradingPool(workers=2, timeout_s=3.0) as pool:
        pool.start()                                  in the background; imports take a second
        rows = pool.grade([(completion, gold), ...])  in order

    this process --(start a worker)--> fork server, math_verify imported, one thread
                 <--(its socket)-----                  |
                 --(answer, gold)--> worker, forked in milliseconds, killed after timeout_s

The fork server is a process of its own (`python -m budgetrl.rewards.worker`), because forking a
process with torch's threads is not safe. It leaves when its socket closes, and each worker when
the fork server does; a worker also arms a kernel timer whose default action ends it.
"""

import array
import atexit
import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

from budgetrl.rewards.extraction import find_answer, is_blank
from budgetrl.types import Verdict

DEFAULT_TIMEOUT_S = 3.0
MAX_ANSWER_CHARS = 2_000
"""A longer box is no answer to any problem; it is judged by its text alone."""
MEMORY_BYTES = 2 << 30
"""Address space of a worker."""
_START_TIMEOUT_S = 120.0
_PR_SET_PDEATHSIG = 1


class GradedRow(NamedTuple):
    """What the grader says of one completion."""

    verdict: Verdict
    extracted: str | None
    """The content of the box that was judged."""
    seconds: float
    """Time in a worker; 0 where none was needed."""


@dataclass(slots=True)
class _Job:
    answer: str
    gold: str
    rows: list[int]


class _Worker:
    """One forked process and the socket that leads to it."""

    def __init__(self, process_id: int, channel: socket.socket) -> None:
        self.process_id = process_id
        self.channel = channel
        self.job: _Job | None = None
        self.deadline = 0.0
        self.started = 0.0
        self._received = b""

    def give(self, job: _Job, timeout_s: float) -> None:
        """Send a job; the answer comes by the channel."""
        self.job, self.started = job, time.monotonic()
        self.deadline = self.started + timeout_s
        line = json.dumps([job.answer, job.gold, timeout_s]) + "\n"
        self.channel.sendall(line.encode())

    def take(self) -> str | None:
        """The verdict, or None if the worker is dead."""
        try:
            data = self.channel.recv(4096)
        except OSError:
            return None
        self._received += data
        if not data or not self._received.endswith(b"\n"):
            return None if not data else ""
        verdict, self._received = self._received.decode().strip(), b""
        return verdict

    def kill(self) -> None:
        """End the process, whatever it does."""
        with suppress(ProcessLookupError):
            os.kill(self.process_id, signal.SIGKILL)
        self.channel.close()


class GradingPool:
    """A few killable grading processes. A context manager; `grade` may be called by one thread.

    Args:
        workers: processes that grade at the same time.
        timeout_s: wall seconds for one answer.
    """

    def __init__(self, workers: int = 2, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._count = workers
        self._timeout_s = timeout_s
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to start the processes, without waiting for them."""
        if self._server is None:
            ours, theirs = socket.socketpair()
            ours.settimeout(_START_TIMEOUT_S)
            command = [sys.executable, "-m", "budgetrl.rewards.worker", str(theirs.fileno())]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._server = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
            theirs.close()
            self._control = ours

    def close(self) -> None:
        """End every process of the pool."""
        for worker in self._workers:
            worker.kill()
        self._workers = []
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._server is not None:
            with suppress(ProcessLookupError):
                self._server.kill()
            self._server.wait()
            self._server = None

    def grade(self, rows: Sequence[tuple[str, str]]) -> list[GradedRow]:
        """Judge (completion, gold) pairs, in order; equal (answer, gold) pairs once."""
        with self._lock:
            return self._grade(rows)

    def _grade(self, rows: Sequence[tuple[str, str]]) -> list[GradedRow]:
        graded: list[GradedRow | None] = [None] * len(rows)
        extracted: list[str | None] = [find_answer(completion) for completion, _ in rows]
        jobs: dict[tuple[str, str], _Job] = {}
        for index, ((_, gold), answer) in enumerate(zip(rows, extracted, strict=True)):
            at_once = _without_worker(answer, gold)
            if at_once is not None:
                graded[index] = GradedRow(at_once, answer, 0.0)
                continue
            key = (_bounded(answer or ""), gold)
            jobs.setdefault(key, _Job(*key, [])).rows.append(index)
        for job, verdict, seconds in self._judge(list(jobs.values())):
            for index in job.rows:
                graded[index] = GradedRow(verdict, extracted[index], seconds)
        return [row for row in graded if row is not None]

    def _judge(self, jobs: list[_Job]) -> list[tuple[_Job, Verdict, float]]:
        """All jobs through the workers; the slow ones are killed."""
        done: list[tuple[_Job, Verdict, float]] = []
        waiting = jobs[::-1]
        with selectors.DefaultSelector() as selector:
            for _ in range(min(self._count, len(waiting))):
                self._next(selector, waiting, done)
            while selector.get_map():
                busy = [key.data for key in selector.get_map().values()]
                patience = min(worker.deadline for worker in busy) - time.monotonic()
                for key, _ in selector.select(max(0.0, patience)):
                    verdict = key.data.take()
                    if verdict != "":
                        self._finish(selector, key.data, verdict, done)
                        self._next(selector, waiting, done)
                for worker in [w for w in busy if w.job and time.monotonic() > w.deadline]:
                    worker.kill()
                    self._finish(selector, worker, Verdict.TIMEOUT, done)
                    self._next(selector, waiting, done)
        return done

    def _next(
        self,
        selector: selectors.BaseSelector,
        waiting: list[_Job],
        done: list[tuple[_Job, Verdict, float]],
    ) -> None:
        """Give the next job to a free worker, or to a new one."""
        if not waiting:
            return
        job = waiting.pop()
        free = [worker for worker in self._workers if worker.job is None]
        worker = free[0] if free else self._new_worker()
        selector.register(worker.channel, selectors.EVENT_READ, worker)
        try:
            worker.give(job, self._timeout_s)
        except OSError:
            self._finish(selector, worker, None, done)
            self._next(selector, waiting, done)

    def _finish(
        self,
        selector: selectors.BaseSelector,
        worker: _Worker,
        verdict: str | None,
        done: list[tuple[_Job, Verdict, float]],
    ) -> None:
        """Note a verdict; a worker that died without one is at fault, not the answer."""
        with suppress(KeyError, ValueError):
            selector.unregister(worker.channel)
        assert worker.job is not None
        seconds = time.monotonic() - worker.started
        done.append((worker.job, Verdict(verdict or Verdict.ERROR), seconds))
        worker.job = None
        if verdict is None or verdict == Verdict.TIMEOUT:
            worker.kill()
            self._workers.remove(worker)

    def _new_worker(self) -> _Worker:
        self.start()
        assert self._control is not None
        self._control.sendall(b"f")
        data, fds, _, _ = socket.recv_fds(self._control, 64, 1)
        if not fds:
            raise RuntimeError("the grading processes ended unexpectedly")
        worker = _Worker(int(data), socket.socket(fileno=fds[0]))
        self._workers.append(worker)
        return worker


@lru_cache(maxsize=1)
def shared_pool() -> GradingPool:
    """The one pool behind `budgetrl.grade`; it ends with this process."""
    pool = GradingPool(workers=1)
    atexit.register(pool.close)
    return pool


def _without_worker(answer: str | None, gold: str) -> Verdict | None:
    """Verdicts that need no mathematics: no box, or whole numbers on both sides."""
    if answer is None or is_blank(answer):
        return Verdict.UNPARSABLE if gold.strip() else Verdict.ERROR
    a, g = answer.strip(), gold.strip()
    if _is_small_integer(a) and _is_small_integer(g):
        return Verdict.CORRECT if int(a) == int(g) else Verdict.WRONG
    return None


def _is_small_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) <= 18


def _bounded(answer: str) -> str:
    """An answer of at most the longest length that is looked into."""
    return answer if len(answer) <= MAX_ANSWER_CHARS else answer[: MAX_ANSWER_CHARS + 1]


# --- the processes


def _serve_forks(control: socket.socket) -> None:
    """The fork server: one request, one worker."""
    import math_verify  # noqa: F401  # imported once here, so that a fork has it at once

    from budgetrl.rewards.grading import judge

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    judge("1", "1")
    while control.recv(1) == b"f":
        ours, theirs = socket.socketpair()
        process_id = os.fork()
        if process_id == 0:
            ours.close()
            control.close()
            _serve_answers(theirs)
            os._exit(0)
        theirs.close()
        socket.send_fds(control, [str(process_id).encode()], array.array("i", [ours.fileno()]))
        ours.close()


def _serve_answers(channel: socket.socket) -> None:
    """A worker: one answer at a time."""
    from budgetrl.rewards.grading import judge

    _die_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with channel, channel.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            answer, gold, timeout_s = json.loads(line)
            signal.setitimer(signal.ITIMER_REAL, timeout_s + 1.0)
            try:
                verdict = judge(answer, gold)
            except Exception as error:  # whatever the mathematics raises is the row's, and visible
                sys.stderr.write(f"grading failed: {type(error).__name__}: {error}\n"[:500])
                verdict = Verdict.ERROR
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            channel.sendall(f"{verdict}\n".encode())


def _die_with_parent() -> None:
    """Ask Linux to end this process when the fork server ends; elsewhere the timer must do."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    _serve_forks(socket.socket(fileno=int(sys.argv[1])))
