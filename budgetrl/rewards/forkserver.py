"""The other side of a `GradingPool`: a fork server, and the workers that it forks.

Nothing here runs in the process that trains. Not Python's own `forkserver` start method, because
that one is a single process shared with every library that asks for it, imports the main script
again in each child, and outlives its parent as long as a busy worker does.

    fork_server(control)  imports math_verify, reads a few formulas to warm its parser, then forks
                          a worker for each byte it gets, and sends back the worker's socket
    serve(channel, ..)    one JSON line [answer or null, gold] in, one line [verdict, problem] out

When the training process ends, even by SIGKILL, the fork server sees its socket close and leaves,
and the kernel ends its workers with it, whatever they are computing. A worker also has a timer of
the kernel for each answer, and a limit to its memory.
"""

import array
import ctypes
import importlib
import json
import logging
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from budgetrl.garbage import kept_for_good
from budgetrl.types import Verdict

MEMORY_BYTES = 2 << 30
"""Address space of a worker."""
TIMER_GRACE_S = 1.0
"""How much later than the pool's own limit the kernel's timer ends a worker."""
READY = b"ready\n"
_PR_SET_PDEATHSIG = 1
_WARM_UP = (
    (r"\frac{v_{0}(1+r/2)^{3/2}}{2}", r"\sqrt{2}\sin(x)\cos x"),
    (r"\log_{2}(8)-3", r"e^{2}+|x-3|"),
    (r"-2x^{2}+f(x)", "n!"),
    (r"(3, \infty)", "x > 3"),
)


def fork_server(control: socket.socket, parent_id: int, grader: str) -> None:
    """Fork one worker for each byte that arrives, until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps, so there are no zombies
    with kept_for_good():  # and no worker that is forked copies what a search would mark
        _load(grader)
    with suppress(ConnectionError):  # the parent may close its side at any moment
        control.sendall(READY)
        while _wait(control, parent_id) and control.recv(1):
            _fork_worker(control, grader)


def _fork_worker(control: socket.socket, grader: str) -> None:
    """Start a worker and send its id and its socket."""
    ours, theirs = socket.socketpair()
    worker_id = os.fork()
    if worker_id == 0:
        ours.close()
        control.close()
        end_with(os.getppid())
        with suppress(ConnectionError):
            serve(theirs, grader)
        os._exit(0)
    theirs.close()
    socket.send_fds(control, [f"{worker_id}\n".encode()], array.array("i", [ours.fileno()]))
    ours.close()


def serve(channel: socket.socket, grader: str) -> None:
    """Judge one answer after the other, until the other side closes.

    Args:
        channel: leads to the pool.
        grader: the module whose `judge` and `gold_problem` do it.
    """
    rules: Any = importlib.import_module(grader)
    _limit()
    channel.sendall(READY)
    with channel, channel.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            answer, gold, timeout_s = json.loads(line)
            signal.setitimer(signal.ITIMER_REAL, timeout_s + TIMER_GRACE_S)
            problem = ""
            try:
                if answer is not None:
                    verdict = rules.judge(answer, gold)
                else:
                    verdict = Verdict.ERROR if rules.gold_problem(gold) else Verdict.UNPARSABLE
            except Exception as error:  # a fault of ours must reach the row, not end the worker
                verdict, problem = Verdict.ERROR, f"{type(error).__name__}: {error}"[:500]
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            channel.sendall((json.dumps([verdict, problem]) + "\n").encode())


def _load(grader: str) -> None:
    """Import everything and fill the parser's tables; a cold parser needs seconds for a formula."""
    import math_verify  # noqa: F401

    rules: Any = importlib.import_module(grader)
    logging.disable(logging.CRITICAL)  # math-verify warns that its own time limits are off
    for gold, answer in _WARM_UP:
        rules.judge(answer, gold)


def _wait(control: socket.socket, parent_id: int) -> bool:
    """Wait for a request. A forked child of the parent may hold its socket open, so look twice."""
    while not select.select([control], [], [], 1.0)[0]:
        if os.getppid() != parent_id:
            return False
    return True


def _limit() -> None:
    """Bound the memory of this process; leave no core file; say nothing."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)


def end_with(parent: int) -> None:
    """Ask Linux to end this process with its parent; elsewhere its timer or its socket does."""
    if sys.platform == "linux":
        libc: Any = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    fork_server(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3])
