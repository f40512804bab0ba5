"""Measures what looking at a run costs.

    python scripts/bench_view.py            --once, memory and CPU over a run of 10,000 updates
    python scripts/bench_view.py --json

The run is made up and written through the package's own writer; the viewers are real processes,
the live one on a pseudo-terminal, while updates go on arriving.
"""

import argparse
import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import synthetic_run as made  # noqa: E402

VIEW = "import sys; from budgetrl.cli.watch import watch; watch(sys.argv[1], once={once})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="How long to watch live.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
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
        once = sorted(_once(run.path) for _ in range(5))[2]
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
    return {"steps": steps, "events_mib": size / 2**20, "once_s": once} | live


def _once(path: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-c", VIEW.format(once=True), str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - started


def _live(path: Path, seconds: float) -> dict[str, float]:
    """Watch on a pseudo-terminal of 120 x 40; CPU share is taken after the first 5 seconds."""
    primary, secondary = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", VIEW.format(once=False), str(path)],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm-256color"},
    )
    os.close(secondary)
    received = [len(os.read(primary, 1 << 16))]
    first = time.perf_counter() - started

    def drain() -> None:
        try:
            while data := os.read(primary, 1 << 16):
                received[0] += len(data)
        except OSError:
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    time.sleep(5)
    before, sent = _cpu_s(process.pid), received[0]
    time.sleep(seconds)
    used, sent = _cpu_s(process.pid) - before, received[0] - sent
    peak = _peak_mib(process.pid)
    process.terminate()
    process.wait()
    reader.join()
    os.close(primary)
    return {
        "first_frame_s": first,
        "cpu_share": used / seconds,
        "peak_mib": peak,
        "bytes_per_s": sent / seconds,
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
