"""The live view on real terminals: real processes, faults, resizes; the run always goes on."""

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import synthetic_run as made
from terminal import ENTER, LEAVE, Terminal, resize, screen

from budgetrl import events
from budgetrl.display.live import LiveDisplay
from budgetrl.display.output import Output

ROOT = Path(__file__).resolve().parents[2]
PATHS = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}

TRAIN = """
import sys, time, synthetic_run as made
from pathlib import Path
from budgetrl.display.base import open_display
run, clock = made.create(Path(sys.argv[1])), made.Clock()
with open_display("auto", sys.stdout, sys.stderr) as display, run.writer(clock.stamp) as writer:
    display.start(run)
    made.setup(writer, clock, 300)
    for number in range(1, 31):
        if str(number) == sys.argv[2]:
            display.view.history.checkpoints.append(None)
            display.message("drawn at once")
        made.train(writer, clock, number, number, 75, 300)
        made.beat(run, clock, time.time())
        display.tick()
        time.sleep(0.04)
    display.close(made.finish(run, writer, clock, 30, "budget", 300))
"""


def watch(run: made.RunDir, columns: int = 80, lines: int = 24, **environment: str) -> Terminal:
    arguments = ["-m", "budgetrl", "watch", str(run.path)]
    return Terminal(arguments, columns, lines, run.path.parent.parent, **PATHS, **environment)


@pytest.fixture
def training(tmp_path: Path) -> made.RunDir:
    """A run in training that lives: its heart beats in the future, for a test's time."""
    run = made.make_run(tmp_path / "runs")
    made.beat(run, made.Clock(140.0), time.time())
    return run


def test_watch_shows_a_run_that_goes_on_until_it_ends_and_then_stays(
    training: made.RunDir,
) -> None:
    clock = made.Clock(140.0)
    with training.writer(clock.stamp) as writer:
        terminal = watch(training)
        shown = terminal.shows("updates 34 made")
        assert len(shown) <= 24 and "training" in shown[1]
        made.train(writer, clock, 35, 36, 75, 300)
        terminal.shows("updates 36 made")
        writer.write(events.RunWarning(code="grader", message="\x1b[2Jslow \u202egrader"))
        terminal.shows("slow grader [grader]")
        writer.write(events.RunWarning(code="grader", message="", resolved=True))
        terminal.wait_for(lambda data: "slow" not in "".join(screen(data).values()))
        made.finish(training, writer, clock, 36, "budget", 300)
    assert terminal.end() == 0
    after = terminal.data.rsplit(LEAVE, 1)[1].decode()
    assert "+38.7 points" in after and "budgetrl resume" in after, "it stays on the screen"


def test_a_frame_needs_none_of_the_rooms_that_make_runs(training: made.RunDir) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "budgetrl", "watch", "--once"]
    done = subprocess.run(
        [*command, str(training.path)], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    rooms = {name.split(".")[1] for name in loaded if name.startswith("budgetrl.")}
    assert "display" in rooms
    assert not rooms & {"data", "engine", "estimation", "evaluation", "plan", "supervise"}
    assert not loaded & {"torch", "numpy", "matplotlib", "math_verify", "tomlkit"}


def test_a_resize_redraws_down_to_a_corner_and_back(training: made.RunDir) -> None:
    with made.running(training, made.Clock(140.0)):
        terminal = watch(training)
        terminal.shows("updates 34 made")
        resize(terminal.primary, 20, 5)
        shown = terminal.shows("~41 more")
        assert len(shown) <= 5 and all(len(line) <= 20 for line in shown.values())
        resize(terminal.primary, 200, 60)
        assert max(len(line) for line in terminal.shows("updates 34 made").values()) > 150
        assert terminal.end(signal.SIGINT) == 0
    assert terminal.data.rstrip().endswith(LEAVE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_ending_a_watcher_changes_nothing_and_the_terminal_is_put_right_where_it_can_be(
    number: signal.Signals, training: made.RunDir
) -> None:
    clock = made.Clock(140.0)
    with training.writer(clock.stamp) as writer:
        before = sorted(file.name for file in training.path.iterdir())
        terminal = watch(training)
        terminal.shows("updates 34 made")
        assert terminal.end(number) == (-number if number is signal.SIGKILL else 128 + number)
        made.train(writer, clock, 35, 35, 75, 300)
        assert sorted(file.name for file in training.path.iterdir()) == before
    assert (LEAVE in terminal.data) is (number is not signal.SIGKILL)


def test_a_run_directory_that_vanishes_is_said(training: made.RunDir) -> None:
    with made.running(training, made.Clock(140.0)):
        terminal = watch(training)
        terminal.shows("updates 34 made")
        training.path.rename(training.path.with_name("elsewhere"))
        assert terminal.end() == 2
    assert b"is gone" in terminal.data.rsplit(LEAVE, 1)[1]


def test_without_cursor_colour_or_utf_8_it_is_still_readable(training: made.RunDir) -> None:
    with made.running(training, made.Clock(140.0)):
        dumb = watch(training, TERM="dumb")
        plain = watch(training, NO_COLOR="1")
        ascii_only = watch(training, PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C")
        dumb.wait_for(lambda data: b"updates fit" in data)
        for terminal in (plain, ascii_only):
            terminal.shows("updates 34 made")
        for terminal in (dumb, plain, ascii_only):
            terminal.end(signal.SIGTERM)
    assert b"\x1b" not in dumb.data
    assert not re.search(rb"\x1b\[(\d+;)*[349][0-7]m", plain.data), "no colours"
    assert ascii_only.data.isascii()


def test_an_error_in_the_view_degrades_to_plain_lines_and_training_goes_on(
    tmp_path: Path,
) -> None:
    # A view that knows of no checkpoint at all fails as by a bug of its own.
    terminal = Terminal(["-c", TRAIN, str(tmp_path), "10"], cwd=tmp_path, **PATHS)
    assert terminal.end() == 0
    view, lines = terminal.data.split(LEAVE, 1)
    assert ENTER in view
    assert lines.count(b"The view failed (AttributeError") == 1
    assert b"update 30 " in lines and b"next: budgetrl resume" in lines


def test_the_supervisors_view_ends_with_a_screen_that_stays(tmp_path: Path) -> None:
    terminal = Terminal(["-c", TRAIN, str(tmp_path), "-"], 120, 40, tmp_path, **PATHS)
    assert terminal.end() == 0
    assert terminal.data.count(ENTER) == 1
    end = terminal.data.rsplit(LEAVE, 1)[1].decode()
    for fact in ("finished", "+38.7 points", "the plan said", "step_000030", "budgetrl resume"):
        assert fact in end, fact


def test_a_closed_terminal_ends_the_view_and_not_the_run(tmp_path: Path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    terminal = Terminal(["-c", ignoring + TRAIN, str(tmp_path), "-"], cwd=tmp_path, **PATHS)
    terminal.shows("learning")
    os.close(terminal.primary)
    assert terminal.process.wait(timeout=30) == 0
    (run,) = tmp_path.iterdir()
    assert '"run_finished"' in (run / "events.jsonl").read_text()


def test_a_terminal_that_stops_reading_gets_fewer_frames_and_nobody_waits(
    training: made.RunDir,
) -> None:
    primary, secondary = os.openpty()
    resize(secondary, 200, 60)
    now = [1000.0]
    with os.fdopen(secondary, "w", encoding="utf-8") as stream:
        display = LiveDisplay(stream, clock=lambda: now[0])
        display.start(training)
        for _ in range(400):
            now[0] += 20.0  # each frame is sent whole
            display.tick()
        sent = len(os.read(primary, 1 << 20))
        while True:
            more = len(os.read(primary, 1 << 16)) if _readable(primary) else 0
            sent += more
            if not more:
                break
        assert sent < 300_000, "a backlog of frames"
        now[0] += 20.0
        display.tick()
        assert _readable(primary), "it goes on when somebody reads again"
    os.close(primary)


def test_a_large_frame_is_not_left_in_half_where_somebody_reads() -> None:
    primary, secondary = os.openpty()
    with os.fdopen(secondary, "w", encoding="utf-8") as stream:
        out = Output(stream)
        out.write("\u2588" * 200 * 60)
        out.settle(0.01)
        assert out.waiting, "far more than a terminal takes at once, and nobody reads"
        reader = threading.Thread(target=lambda: _read_all(primary, 3 * 200 * 60))
        reader.start()
        out.settle(10.0)
        assert not out.waiting
        reader.join()
    os.close(primary)


def _read_all(fd: int, size: int) -> None:
    while size > 0:
        size -= len(os.read(fd, size))


def test_the_planning_gives_way_to_the_hint_and_later_messages_stay(
    training: made.RunDir,
) -> None:
    primary, secondary = os.openpty()
    resize(secondary, 80, 24)

    def last_line() -> str:
        """Of a whole frame, which may come in several pieces."""
        data = b""
        while 24 not in (rows := screen(data)):
            data += os.read(primary, 1 << 20) if _readable(primary) else b""
            display.tick()
        return rows[24]

    with os.fdopen(secondary, "w", encoding="utf-8") as stream:
        display = LiveDisplay(stream)
        display.message("planning quickstart")
        os.read(primary, 1 << 20)
        display.start(training)
        assert "Ctrl-C saves and stops" in last_line()
        display.message("writing the report")
        assert "writing the report" in last_line()
    os.close(primary)


def test_frames_come_at_most_four_times_a_second(training: made.RunDir) -> None:
    primary, secondary = os.openpty()
    resize(secondary, 80, 24)
    now, clock, frames = [1000.0], made.Clock(140.0), 0
    with (
        os.fdopen(secondary, "w", encoding="utf-8") as stream,
        training.writer(clock.stamp) as writer,
    ):
        display = LiveDisplay(stream, clock=lambda: now[0])
        display.start(training)
        os.read(primary, 1 << 20)
        for number in range(35, 135):
            writer.write(made.make_step(number, 200))
            now[0] += 0.02
            display.tick()
            if _readable(primary, 0.0):
                os.read(primary, 1 << 20)
                frames += 1
    os.close(primary)
    assert 1 <= frames <= 8, "in two seconds"


def _readable(fd: int, seconds: float = 0.1) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])
