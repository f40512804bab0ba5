"""Grade in processes that can be killed, so that a hostile answer costs nothing but itself.

    with GradingPool(workers=2, timeout_s=3.0) as pool:
        pool.start()                               returns at once; imports take a few seconds
        rows = pool.grade([(completion, gold), ...])               in order

    this process --(one byte)--> fork server: math_verify imported, one thread, no torch
                 <--(a socket)---     |
                 --(answer, gold)--> worker: forked in milliseconds, killed after timeout_s

The boxes are found here, in linear time; mathematics happens in the workers only, one answer at a
time, equal (answer, gold) pairs once. forkserver.py is the other side.
"""

import atexit
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Self

from budgetrl.errors import RewardError
from budgetrl.grading.extraction import find_answer
from budgetrl.grading.rules import MAX_CHARS, form_problem, is_whole_number, judge_whole_numbers
from budgetrl.rewards import DEFAULT_TIMEOUT_S
from budgetrl.rewards.forkserver import READY
from budgetrl.types import Verdict

GRADER = "budgetrl.grading.rules"
_START_TIMEOUT_S = 120.0
_MAX_JOBS = 5_000
"""A worker is replaced after so many answers, since caches of parsers only grow."""
_MAX_DEATHS = 2
"""An answer that ends so many workers is given up."""
_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "import runpy; runpy.run_module('budgetrl.rewards.forkserver', run_name='__main__')"
)


class GradedRow(NamedTuple):
    """What the grader says of one completion."""

    verdict: Verdict
    extracted: str | None
    """The content of the box that was judged."""
    seconds: float
    """Wall time in a worker; 0 where none was needed."""


@dataclass(slots=True)
class _Job:
    answer: str | None
    gold: str
    rows: list[int] = field(default_factory=list)
    deaths: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    """One process and the socket that leads to it."""

    channel: socket.socket
    kill_process: Callable[[], None]
    job: _Job | None = None
    started: float = 0.0
    num_jobs: int = 0
    received: bytes = b""

    def give(self, job: _Job, timeout_s: float) -> None:
        """Send a job; its verdict comes by the channel.

        Raises:
            OSError: the worker is dead.
        """
        self.job, self.started = job, time.monotonic()
        self.num_jobs += 1
        self.channel.sendall((json.dumps([job.answer, job.gold, timeout_s]) + "\n").encode())

    def take(self) -> Verdict | None:
        """The verdict, or None while it is incomplete.

        Raises:
            EOFError: the worker is dead.
        """
        try:
            data = self.channel.recv(65_536)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        self.received += data
        if not self.received.endswith(b"\n"):
            return None
        verdict, problem = json.loads(self.received)
        self.received = b""
        if problem:
            sys.stderr.write(f"The grader failed on an answer: {problem}\n")
        return Verdict(verdict)


class GradingPool:
    """A few grading processes that can be killed. A context manager.

    Args:
        workers: processes that grade at the same time.
        timeout_s: wall seconds for one answer.
        grader: the module with `judge` and `gold_problem`; tests of the time limit name their own.
    """

    def __init__(
        self, workers: int = 2, timeout_s: float = DEFAULT_TIMEOUT_S, *, grader: str = GRADER
    ) -> None:
        if workers < 1 or not 0 < timeout_s < float("inf"):
            raise ValueError("a pool needs a worker or more, and a finite time limit above zero")
        self._num_workers = workers
        self._timeout_s = timeout_s
        self._grader = grader
        self._start_worker: _ForkServer | None = None
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to start the processes, without waiting for them."""
        if self._start_worker is None:
            self._start_worker = _ForkServer(self._grader)

    def wait(self) -> None:
        """Wait until all workers can grade, so that a measurement has no start in it.

        Raises:
            RewardError: they cannot be started.
        """
        with self._lock:
            while len(self._workers) < self._num_workers:
                self._new_worker()

    def close(self) -> None:
        """End every process of the pool; `grade` would start new ones."""
        for worker in list(self._workers):
            self._drop(worker)
        if self._start_worker is not None:
            self._start_worker.close()
            self._start_worker = None

    def grade(
        self,
        rows: Sequence[tuple[str, str]],
        on_progress: Callable[[int], None] = lambda num_rows: None,
    ) -> list[GradedRow]:
        """Judge (completion, gold) pairs, in order; may be called by several threads.

        Args:
            rows: pairs; equal (answer, gold) pairs are judged once.
            on_progress: called with the number of rows that were just judged.

        Raises:
            RewardError: the grading processes cannot be started.
        """
        with self._lock:
            return self._grade(rows, on_progress)

    def gold_problems(self, golds: Sequence[str]) -> list[str | None]:
        """Why each gold answer cannot be graded against, or None: too slow to read is a reason."""
        asked = [gold for gold in golds if not is_whole_number(gold)]
        rows = self.grade([("", gold) for gold in asked])
        problems: dict[str, str | None] = {}
        for gold, row in zip(asked, rows, strict=True):
            if row.verdict is Verdict.TIMEOUT:
                problems[gold] = f"reading it takes more than {self._timeout_s:g} s"
            elif row.verdict is Verdict.ERROR:
                problems[gold] = form_problem(gold) or "it cannot be read"
        return [problems.get(gold) for gold in golds]

    def _grade(
        self, rows: Sequence[tuple[str, str]], on_progress: Callable[[int], None]
    ) -> list[GradedRow]:
        extracted = [find_answer(completion) for completion, _ in rows]
        graded: dict[int, GradedRow] = {}
        jobs: dict[tuple[str | None, str], _Job] = {}
        for index, ((_, gold), answer) in enumerate(zip(rows, extracted, strict=True)):
            verdict = judge_whole_numbers(answer, gold)
            if verdict is not None:
                graded[index] = GradedRow(verdict, answer, 0.0)
                continue
            sent = answer and answer[: MAX_CHARS + 1]
            jobs.setdefault((sent, gold), _Job(sent, gold)).rows.append(index)
        on_progress(len(graded))
        for job, verdict, seconds in self._judge(list(jobs.values())):
            graded |= {i: GradedRow(verdict, extracted[i], seconds) for i in job.rows}
            on_progress(len(job.rows))
        return [graded[index] for index in range(len(rows))]

    def _judge(self, jobs: list[_Job]) -> Iterator[tuple[_Job, Verdict, float]]:
        """All jobs through the workers; those that take too long are killed with their worker."""
        waiting = jobs[::-1]
        with selectors.DefaultSelector() as selector:
            try:
                while waiting or selector.get_map():
                    while waiting and len(selector.get_map()) < self._num_workers:
                        self._give(selector, waiting)
                    for worker in self._ready_workers(selector):
                        yield from self._collect(selector, worker, waiting)
            finally:  # an exception leaves no worker behind whose verdict nobody reads
                for key in list(selector.get_map().values()):
                    self._drop(key.data)

    def _give(self, selector: selectors.BaseSelector, waiting: list[_Job]) -> None:
        """Give the next job to a free worker, or to a new one."""
        job = waiting[-1]
        free = next((worker for worker in self._workers if worker.job is None), None)
        worker = free or self._new_worker()
        try:
            worker.give(job, self._timeout_s)
        except OSError:  # it died while it had nothing to do
            self._drop(worker)
            return
        waiting.pop()
        selector.register(worker.channel, selectors.EVENT_READ, worker)

    def _ready_workers(self, selector: selectors.BaseSelector) -> list[_Worker]:
        """Workers that have an answer, or no time left."""
        busy: list[_Worker] = [key.data for key in selector.get_map().values()]
        deadline = min((worker.started for worker in busy), default=0.0) + self._timeout_s
        events = selector.select(max(0.0, deadline - time.monotonic()))
        ready = [key.data for key, _ in events]
        late = time.monotonic() - self._timeout_s
        return ready + [w for w in busy if w.started <= late and w not in ready]

    def _collect(
        self, selector: selectors.BaseSelector, worker: _Worker, waiting: list[_Job]
    ) -> Iterator[tuple[_Job, Verdict, float]]:
        """Take a verdict. A worker that died has its job done by another one, once."""
        job = worker.job
        assert job is not None
        seconds = time.monotonic() - worker.started
        try:
            verdict = worker.take() if seconds < self._timeout_s else Verdict.TIMEOUT
        except EOFError:
            job.deaths += 1
            verdict = Verdict.TIMEOUT if job.deaths >= _MAX_DEATHS else None
            if verdict is None:
                waiting.append(job)
        else:
            if verdict is None:
                return
            if verdict is not Verdict.TIMEOUT:
                worker.job = None
        selector.unregister(worker.channel)
        if worker.job is not None or worker.num_jobs >= _MAX_JOBS:
            self._drop(worker)
        if verdict is not None:
            yield job, verdict, seconds

    def _new_worker(self) -> _Worker:
        for _ in range(2):  # the second time after somebody ended the fork server
            try:
                self.start()
                assert self._start_worker is not None
                self._workers.append(self._start_worker())
                return self._workers[-1]
            except (OSError, EOFError):
                if self._start_worker is not None:
                    self._start_worker.close()
                self._start_worker = None
        raise RewardError(
            "The grading processes could not be started.",
            hint="What they printed stands above. `python -c 'import math_verify'` must work, and "
            "there must be memory for a few processes of 200 MB.",
        )

    def _drop(self, worker: _Worker) -> None:
        worker.kill_process()
        worker.channel.close()
        self._workers.remove(worker)


class _ForkServer:
    """Starts workers in milliseconds, by asking a process that has everything imported."""

    def __init__(self, grader: str) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_START_TIMEOUT_S)
        self._is_ready = False
        arguments = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid()), grader]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *arguments],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
            },
            start_new_session=True,  # Ctrl-C is for the trainer, which then closes the pool
        )
        theirs.close()

    def __call__(self) -> _Worker:
        if not self._is_ready:
            _expect_ready(self._control)
            self._is_ready = True
        self._control.sendall(b"f")
        data, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
        if not descriptors:
            raise EOFError
        channel = socket.socket(fileno=descriptors[0])
        worker_id = int(data)
        channel.settimeout(_START_TIMEOUT_S)
        _expect_ready(channel)
        return _Worker(channel, lambda: _kill(worker_id))

    def close(self) -> None:
        """End the fork server; the kernel ends its workers with it."""
        self._control.close()
        self._process.kill()
        self._process.wait()


def grade(completion: str, gold: str) -> Verdict:
    """The verdict on one completion, from a worker process that is killed after 3 seconds.

    The first call starts a pool of one worker for this process, which takes a few seconds; it ends
    with the process. For many rows use a `GradingPool`.
    """
    return _pool_of(os.getpid()).grade([(completion, gold)])[0].verdict


@lru_cache(maxsize=1)
def _pool_of(process_id: int) -> GradingPool:
    """A forked child has its own, because sockets cannot be shared."""
    pool = GradingPool(workers=1)
    atexit.register(pool.close)
    return pool


def _expect_ready(channel: socket.socket) -> None:
    received = b""
    while received != READY:
        data = channel.recv(len(READY) - len(received))
        if not data:
            raise EOFError
        received += data


def _kill(process_id: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGKILL)
