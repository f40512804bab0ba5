"""One worker process: started in its own session, watched, signalled, and ended at its deadline."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import budgetrl
from budgetrl.display.base import Display
from budgetrl.errors import RunDirError
from budgetrl.history import Followed
from budgetrl.rundir import RunDir
from budgetrl.supervise.attempt import heartbeat
from budgetrl.supervise.closing import Closing
from budgetrl.training.attempt import WRITES_AT_END, Attempt
from budgetrl.training.stopper import CLOSE_SIGNAL, signals_held

TICK_S = 0.1
EXIT_MARGIN_S = 1.0
"""Between the end of a worker that was told to leave and the end of its supervisor."""
ABORT_S = 10.0
"""What a worker has after Ctrl-C, besides a save, to finish or give up what it does."""
INTERRUPTED_REPORT_S = 5.0
"""Longer than this nobody waits for a report after Ctrl-C."""


class Signals:
    """Notes SIGINT and SIGTERM, and lets SIGHUP pass, while a run is supervised.

    Args:
        stop: once it is set, that is a SIGINT; in another thread than the main one signals do not
            arrive.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop
        self.pending: list[signal.Signals] = []
        self.received: list[signal.Signals] = []
        self._first_at: float | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # it was not Python's
                signal.signal(number, handler)

    def look(self) -> None:
        """Notice that somebody asks for the end."""
        if self._stop is not None and self._stop.is_set() and not self.received:
            self._note(signal.SIGINT, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending.append(signal.Signals(number))
        self.received.append(signal.Signals(number))
        self._first_at = self._first_at or time.monotonic()

    def leave_by(self, grace_s: float) -> float:
        """Monotonic seconds by which this process has to be gone; infinite if nobody asks.

        SIGTERM leaves the grace time, a second SIGINT none; one SIGINT leaves a short report.
        """
        if self._first_at is None:
            return math.inf
        if self.received.count(signal.SIGINT) > 1:
            return 0.0
        if signal.SIGTERM in self.received:
            return self._first_at + grace_s
        return time.monotonic() + INTERRUPTED_REPORT_S


class Worker:
    """One worker process, watched until it is dead."""

    def __init__(
        self,
        run: RunDir,
        attempt: Attempt,
        signals: Signals,
        display: Display,
        closing: Closing,
        gpu: int | None = None,
        followed: Followed | None = None,
    ) -> None:
        self._run, self._attempt = run, attempt
        self._inherited = () if gpu is None else (gpu,)
        self._signals, self._display, self._closing = signals, display, closing
        self._kill_at = attempt.deadline
        self._next_beat = 0.0
        self._followed = followed or Followed(run)
        self._followed.read()  # what earlier workers have trained is counted
        self.trained_s = attempt.trained_s
        """Training seconds of all workers so far."""
        self.slow_s = 0.0
        """The longest that writing a heartbeat took: how slow the disk is."""
        self.at_deadline = False
        """Whether the budget ended it."""

    def watch(self) -> int:
        """The worker's exit code; negative for a signal, as in `subprocess`."""
        with self._open_log() as log, signals_held():
            worker = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=self._inherited,
                env=worker_environment(),
            )
        self._hand_over(worker)
        self._closing.pace.watch(worker.pid)
        closing = False
        while worker.poll() is None:
            now = time.monotonic()
            self._beat(now)
            self._forward(worker)
            # The next heartbeat may take as long as the slowest one did, and so may each file that
            # is written after the worker's end.
            soon = now + self._writes_s()
            deadline = self._deadline()
            close_s = max(2.0, 1.5 * self._attempt.save_s * self._closing.pace.slow)
            if soon >= deadline - close_s and not closing:
                closing = True
                _send(worker, CLOSE_SIGNAL)
            if soon >= min(self._kill_at, deadline):
                self.at_deadline = soon >= deadline
                _send(worker, signal.SIGKILL, group=True)
            self._display.tick()
            with suppress(subprocess.TimeoutExpired):
                worker.wait(TICK_S)
        _send(worker, signal.SIGKILL, group=True)
        self.count_training()
        self._display.tick()
        return worker.returncode

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "budgetrl.training", str(self._run.path)]

    def _hand_over(self, worker: "subprocess.Popen[bytes]") -> None:
        """Give it its attempt, which holds --on-finish: trackers store and show command lines."""
        attempt = replace(self._attempt, supervisor=os.getpid())
        assert worker.stdin is not None
        with suppress(BrokenPipeError), worker.stdin as pipe:  # it may be dead already
            pipe.write(attempt.to_json().encode())

    def _beat(self, now: float) -> None:
        if now >= self._next_beat:
            self._next_beat = now + 1.0
            self.count_training()
            self._closing.pace.observe()
            heartbeat(self._run, self._attempt, now, self.trained_s)
            self.slow_s = max(self.slow_s, time.monotonic() - now)
            with suppress(OSError):  # a disk may fail for a moment
                if not self._run.exists():
                    self._kill_at = now  # removed: nothing that is trained can be kept

    def count_training(self) -> None:
        """Add what the newest events tell."""
        self.trained_s += sum(sum(step.phase_s.values()) for step in self._followed.read())

    def _forward(self, worker: "subprocess.Popen[bytes]") -> None:
        self._signals.look()
        while self._signals.pending:
            number = self._signals.pending.pop(0)
            if number is signal.SIGTERM:
                self._display.message("told to leave: saving")
            elif self._signals.received.count(signal.SIGINT) > 1:
                self._display.message("leaving at once")
            else:
                self._display.message("saving before leaving; press Ctrl-C again to leave at once")
            _send(worker, number)
            self._kill_at = min(self._kill_at, self.patience(number))

    def patience(self, number: signal.Signals) -> float:
        """Monotonic seconds at which a worker that was told to leave is ended by force."""
        if number is signal.SIGTERM:
            return self._signals.leave_by(self._attempt.grace_s) - EXIT_MARGIN_S
        if self._signals.received.count(signal.SIGINT) > 1:
            return 0.0
        save_s = max(5.0, 3 * self._attempt.save_s)
        return time.monotonic() + ABORT_S + save_s + self._writes_s()

    def _deadline(self) -> float:
        """Monotonic seconds: as planned, or sooner where the end will take longer today."""
        return min(self._attempt.deadline, self._attempt.end - self._closing.reserve_s)

    def _writes_s(self) -> float:
        return WRITES_AT_END * self.slow_s

    def _open_log(self) -> BinaryIO:
        file = self._run.worker_log
        try:
            return file.open("ab")
        except OSError as error:
            raise RunDirError(f"{file}: cannot be written: {error.strerror}.") from None


def worker_environment() -> dict[str, str]:
    """The environment of the worker: no progress bars, no usage statistics.

    And not the current folder on its path: a `random.py` there is a file like any other. OpenMP's
    threads sleep while they wait: on cores that have other work too, spinning ones took 3.5 times
    the CPU seconds and as much longer.
    """
    quiet = {
        "PYTHONSAFEPATH": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_VERBOSITY": "error",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "DATASETS_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONUNBUFFERED": "1",
    }
    root = str(Path(budgetrl.__file__).resolve().parent.parent)
    if root not in sys.path:  # it is not installed, but lies in the current folder
        quiet["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **quiet}


def _send(worker: "subprocess.Popen[bytes]", number: signal.Signals, group: bool = False) -> None:
    with suppress(ProcessLookupError):
        if group:
            os.killpg(worker.pid, number)
        else:
            worker.send_signal(number)
