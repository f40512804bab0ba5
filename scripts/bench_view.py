"""Measures what looking at a run costs.

    python scripts/bench_view.py             --once, memory and CPU over a run of 10,000 updates
    python scripts/bench_view.py --training  what the view slows a real training by
    either with --json

For the first, the run is made up and written through the package's own writer; the viewers are
real processes, the live one on a pseudo-terminal, while updates go on arriving.

For the second, one real run on this machine is watched by turns: a live view of 120 x 40 is
stopped and continued by signals. Of four blocks of updates in a row the inner two are watched and
compared with the outer two, so that neither the trend of a training nor a slow drift of the
machine counts. All updates are made to do the same work.
"""

import argparse
import fcntl
import json
import math
import os
import pty
import resource
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
STEADY = (
    "schedule.learning_rate=1e-9",
    "schedule.stop_after_steps=100000",
    "sampling.temperature=0.01",
    "data.limit=16",
    'signal.skip="off"',
    'signal.on_empty="continue"',
)
"""Every update asks the same problems of the same model, which answers the same."""
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import synthetic_run as made  # noqa: E402

from budgetrl.evaluation.passk import mean_interval  # noqa: E402
from budgetrl.events import Phase, Step  # noqa: E402
from budgetrl.rundir import RunDir, list_runs  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="How long to watch live.")
    parser.add_argument("--training", action="store_true", help="Measure a real training.")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--hours", default="280s", help="Budget of the real training.")
    parser.add_argument("--block", type=int, default=1, help="Updates of one block.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.training:
            result = slow_down(Path(folder), options.recipe, options.hours, options.block)
        else:
            result = measure(Path(folder), options.steps, options.seconds)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:<28} {value:.3f}" if isinstance(value, float) else f"{name:<28} {value}")


def measure(folder: Path, steps: int, seconds: float) -> dict[str, Any]:
    """All numbers, for a run that is still going on."""
    budget_s = 4.0 * steps
    run, clock = made.create(folder, budget_s), made.Clock()
    with run.writer(clock.stamp) as writer:
        made.setup(writer, clock, budget_s)
        writer.write(made.events.Phase(name="train", state="started"))
        made.train(writer, clock, 1, steps, 2 * steps, budget_s)
        size = (run.path / "events.jsonl").stat().st_size
        once_s, once_cpu_s = sorted(_once(run.path) for _ in range(5))[2]
        stop = threading.Event()

        def train_on() -> None:
            number = steps
            while not stop.wait(1.0):
                number += 1
                made.train(writer, clock, number, number, 2 * steps, budget_s)
                made.beat(run, clock, time.time())

        thread = threading.Thread(target=train_on)
        made.beat(run, clock, time.time())
        thread.start()
        live = _live(run.path, seconds)
        stop.set()
        thread.join()
    once = {"once_s": once_s, "once_cpu_s": once_cpu_s}
    return {"steps": steps, "events_mib": size / 2**20} | once | live


def _once(path: Path) -> tuple[float, float]:
    """Wall and processor seconds of `watch --once`."""
    started, paid = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "budgetrl", "watch", str(path), "--once"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime - paid.ru_utime + used.ru_stime - paid.ru_stime
    return time.perf_counter() - started, cpu_s


def _live(path: Path, seconds: float) -> dict[str, float]:
    """Watch on a pseudo-terminal; the CPU share is taken after the first 5 seconds."""
    viewer = Viewer(path)
    time.sleep(5)
    before, sent = _cpu_s(viewer.process.pid), viewer.received
    time.sleep(seconds)
    used, sent = _cpu_s(viewer.process.pid) - before, viewer.received - sent
    peak = _peak_mib(viewer.process.pid)
    viewer.close()
    return {
        "first_frame_s": viewer.first_frame_s,
        "cpu_share": used / seconds,
        "peak_mib": peak,
        "bytes_per_s": sent / seconds,
    }


class Viewer:
    """`budgetrl watch` on a pseudo-terminal of 120 x 40 that somebody reads."""

    def __init__(self, path: Path) -> None:
        self._primary, secondary = pty.openpty()
        fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "budgetrl", "watch", str(path)],
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm-256color"},
        )
        os.close(secondary)
        self.received = len(os.read(self._primary, 1 << 16))
        self.first_frame_s = time.perf_counter() - started
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._primary, 1 << 16):
                self.received += len(data)
        except OSError:
            return

    def close(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait()
        self._reader.join()
        os.close(self._primary)


def slow_down(folder: Path, recipe: str, hours: str, size: int) -> dict[str, Any]:
    """What an update costs more with the view on, as a share.

    In wall seconds, and in processor seconds of the worker: those leave out what other processes
    of a busy machine take, and with the view's own share of a core they bound the wall seconds.
    """
    command = [sys.executable, "-m", "budgetrl", "run", recipe, "--hours", hours]
    command += ["--display", "none", "--out", str(folder)]
    command += [word for setting in STEADY for word in ("--set", setting)]
    training = subprocess.Popen(command, cwd=ROOT)
    try:
        run = _first_run(folder, training)
        blocks, view_share = _watch_in_blocks(run, training, size)
    finally:
        training.wait()
    return {
        "slow_down": _compare([block.wall_s for block in blocks]),
        "slow_down_cpu": _compare([block.cpu_s for block in blocks]),
        "view_cpu_share": view_share,
        "updates": size * len(blocks),
    }


class Block(NamedTuple):
    """Some updates in a row."""

    wall_s: float
    cpu_s: float
    """Of the worker."""


def _is_watched(number: int) -> bool:
    """Of every four blocks the inner two."""
    return number % 4 in (1, 2)


def _compare(blocks: list[float]) -> dict[str, float]:
    """Watched over unwatched blocks, minus 1, with a 95 % interval over groups of four."""
    fours = zip(*(blocks[i::4] for i in range(4)), strict=False)
    ratios = [math.log((b + c) / (a + d)) for a, b, c, d in fours]
    interval = mean_interval(ratios)
    if interval is None:
        raise SystemExit("too few updates to compare; give the training more --hours")
    ends = {"mean": statistics.mean(ratios), "low_95": interval[0], "high_95": interval[1]}
    return {name: round(math.exp(value) - 1, 4) for name, value in ends.items()}


def _first_run(folder: Path, training: "subprocess.Popen[bytes]") -> RunDir:
    """The run, once it has made its first update, which is left out: it warms caches."""
    while training.poll() is None:
        for run in list_runs(folder):
            if any(isinstance(event, Step) for event in run.events()):
                return run
        time.sleep(0.5)
    raise SystemExit("the training made no update")


def _watch_in_blocks(
    run: RunDir, training: "subprocess.Popen[bytes]", size: int
) -> tuple[list[Block], float]:
    """Blocks of updates by turns with the view and without, and its share of a core meanwhile."""
    viewer, worker = Viewer(run.path), _child(training.pid)
    time.sleep(1.0)
    viewer.process.send_signal(signal.SIGSTOP)
    blocks: list[Block] = []
    current: list[float] = []
    watched_s, used_s, before = 0.0, 0.0, 0.0
    offset, worker_before = run.events_size(), _cpu_s(worker)
    while training.poll() is None:
        events, offset = run.tail(offset)
        if any(isinstance(event, Phase) and event.name == "final" for event in events):
            break
        for step in (event for event in events if isinstance(event, Step)):
            current.append(sum(step.phase_s.values()))
            if len(current) < size:
                continue
            if _is_watched(len(blocks)):
                watched_s += sum(current)
                used_s += _cpu_s(viewer.process.pid) - before
            blocks.append(Block(sum(current), _cpu_s(worker) - worker_before))
            current, worker_before = [], _cpu_s(worker)
            watched = _is_watched(len(blocks))
            viewer.process.send_signal(signal.SIGCONT if watched else signal.SIGSTOP)
            before = _cpu_s(viewer.process.pid)
        time.sleep(0.02)
    viewer.close()
    # The first block began before anything was stopped: its group of four is left out.
    return blocks[4:], used_s / watched_s if watched_s else 0.0


def _child(pid: int) -> int:
    """The worker of a supervisor."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
