"""Plain lines, JSON lines, and displays that fail: the run goes on."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic_run as made

from budgetrl import events
from budgetrl.display.base import NoDisplay, can_be_live, open_display
from budgetrl.display.output import PENDING_LIMIT, Output, aside
from budgetrl.display.plain import PlainDisplay
from budgetrl.display.watch import print_frame
from budgetrl.rundir import PLAN

ROOT = Path(__file__).resolve().parents[2]


def tell(kind: str, run: made.RunDir, steps: int, stream: io.TextIOBase) -> io.StringIO:
    """A whole run in front of a display; what it wrote to the errors is returned."""
    clock, errors = made.Clock(), io.StringIO()
    with open_display(kind, stream, errors) as display, run.writer(clock.stamp) as writer:
        display.message("planning")
        display.start(run)
        made.setup(writer, clock, 300)
        display.tick()
        for number in range(1, steps + 1):
            made.train(writer, clock, number, number, 75, 300)
            display.tick()
        display.close(made.finish(run, writer, clock, steps, "budget", 300))
    return errors


def test_plain_lines_tell_phases_updates_evaluations_and_the_end(tmp_path: Path) -> None:
    stream = io.StringIO()
    errors = tell("auto", made.create(tmp_path), 12, stream)
    told = stream.getvalue()
    for fact in (
        "planning",
        "budget 5 m 00 s ($0.0333): about 69 updates fit",
        "model: started, about 0.9 s",
        "model: done in 0.8 s",
        "heldout baseline: pass@1 22.5 % (19.0 to 26.0), pass@4 42.5 %; 200 problems x 4; 20 s",
        "[    29 s] update 1  accuracy 27.8 %  reward 0.281",
        "update 12",
        "checkpoint after update 10",
        "result: +38.7 points pass@1 on heldout, 95 % interval",
        "next: budgetrl resume",
    ):
        assert fact in told, fact
    assert told.isascii() and errors.getvalue() == ""


def test_a_phase_has_one_name_in_lines_and_in_the_live_view(tmp_path: Path) -> None:
    lines, run, clock = io.StringIO(), made.create(tmp_path), made.Clock(5.0)
    with open_display("plain", lines, io.StringIO()) as display, run.writer(clock.stamp) as writer:
        display.start(run)
        writer.write(events.Phase(name="preflight", state="started"))
        display.tick()
        view = io.StringIO()
        print_frame(run, view)
    for told in (lines.getvalue(), view.getvalue()):
        assert "trial update" in told and "preflight" not in told


def test_a_gate_is_told_in_one_line_also_where_an_earlier_version_tells_less(
    tmp_path: Path,
) -> None:
    stream, run, clock = io.StringIO(), made.create(tmp_path), made.Clock(50.0)
    gate = {"name": "warm", "training": "sft", "index": 0, "stages": 2, "state": "gate", "step": 3,
            "signal_share": 0.625, "decision": "go_on"}  # fmt: skip
    counted = {"groups": 16, "groups_with_signal": 10, "wanted_share": 0.1}
    with open_display("plain", stream, io.StringIO()) as display, run.writer(clock.stamp) as writer:
        display.start(run)
        writer.write(events.Phase(name="gate", state="started"))
        writer.write(events.StageEvent(**gate, **counted))
        made.append_raw(run, {"kind": "gate", "step": 3, "groups": 16, "t": 1.0, "elapsed_s": 51.0})
        writer.write(events.StageEvent(**gate))
    told = [line for line in stream.getvalue().splitlines() if "gate after" in line]
    assert told == [
        "[    50 s] gate after warm: 10 of 16 groups have signal, 10 % wanted: "
        "the next stage may begin",
        "[    50 s] gate after warm: 62 % of the groups have signal: the next stage may begin",
    ]


def test_no_more_updates_are_promised_than_the_recipe_asks_for(tmp_path: Path) -> None:
    run, clock, stream = made.create(tmp_path), made.Clock(), io.StringIO()
    plan = run.read_json(PLAN)
    run.write_json(PLAN, plan | {"plan": plan["plan"] | {"requested_steps": 8}})
    display = PlainDisplay(stream)
    display.start(run)
    with run.writer(clock.stamp) as writer:
        writer.write(made.make_step(5, 8, forecast_steps=40))
    display.tick()
    assert "update 5 of 8  accuracy" in stream.getvalue()
    assert "about 3 more" in stream.getvalue()


def test_fast_updates_are_told_at_a_pace_and_the_last_one_always(tmp_path: Path) -> None:
    run, clock, stream = made.create(tmp_path), made.Clock(), io.StringIO()
    display = PlainDisplay(stream)
    display.start(run)
    with run.writer(clock.stamp) as writer:
        for number in range(1, 2001):
            clock.elapsed_s += 0.05
            writer.write(made.make_step(number, 2000))
    display.tick()
    display.close(made.ended("completed", 2000))
    lines = [line for line in stream.getvalue().splitlines() if "] update " in line]
    assert 90 < len(lines) <= 101
    assert "update 2000 " in lines[-1]


def test_the_last_update_is_told_before_what_came_after_it(tmp_path: Path) -> None:
    run, clock, stream = made.create(tmp_path), made.Clock(), io.StringIO()
    display = PlainDisplay(stream)
    display.start(run)
    with run.writer(clock.stamp) as writer:
        for number in (1, 2, 3):
            clock.elapsed_s += 0.1
            writer.write(made.make_step(number, 3))
            if number == 2:
                writer.write(events.Phase(name="train", state="ended"))
    display.message("writing the report")
    told = [line.split("] ")[1].split("  ")[0] for line in stream.getvalue().splitlines()[2:]]
    assert told == ["update 1", "update 2", "train: done", "update 3", "writing the report"]


def test_a_download_is_told_now_and_then_and_when_it_is_whole(tmp_path: Path) -> None:
    run, stream, clock = made.create(tmp_path), io.StringIO(), made.Clock()
    with open_display("plain", stream, io.StringIO()) as display, run.writer(clock.stamp) as writer:
        display.start(run)
        for second in range(1, 41):
            clock.elapsed_s += 1.0
            writer.write(
                events.Download(
                    repo="a/b", commit="c", bytes=second << 20, total_bytes=40 << 20, seconds=second
                )
            )
            display.tick()
    told = [line for line in stream.getvalue().splitlines() if "a/b" in line]
    assert len(told) <= 5
    assert "a/b: 10.0 MiB of 40.0 MiB, 1.0 MiB/s, about 30 s left" in told[0]
    assert told[-1].endswith("a/b: 40.0 MiB of 40.0 MiB, 1.0 MiB/s")


def test_a_long_silence_is_broken(tmp_path: Path) -> None:
    run, clock, stream = made.create(tmp_path), made.Clock(), io.StringIO()
    display = PlainDisplay(stream)
    display.start(run)
    with run.writer(clock.stamp) as writer:
        writer.write(events.Phase(name="baseline", state="started", expected_s=600.0))
    display.tick()
    clock.elapsed_s = 61.0
    made.beat(run, clock, time.time())
    display.tick()
    display.tick()
    assert stream.getvalue().count("baseline: still at it, 1 m 01 s of about 10 m 00 s") == 1


def test_warnings_and_errors_are_told_without_control_characters(tmp_path: Path) -> None:
    run, clock, stream = made.create(tmp_path), made.Clock(), io.StringIO()
    display = PlainDisplay(stream)
    display.start(run)
    with run.writer(clock.stamp) as writer:
        writer.write(events.RunWarning(code="grader", message="slow\x1b[2J grader"))
        writer.write(events.Error(type="OutOfMemory", message="no\x07 room", hint="Use less."))
        writer.write(events.RunWarning(code="grader", message="slow grader", resolved=True))
        writer.write(made.evaluation("step", 1, 0.5, suite="held\x1b[2Jout"))
    display.tick()
    told = stream.getvalue()
    assert "\x1b" not in told and "heldout step after update 1" in told
    assert "warning: slow grader [grader]" in told
    assert "error: OutOfMemory: no room Use less." in told
    assert "warning lifted: slow grader" in told


def test_a_resumed_run_is_told_from_where_it_goes_on(tmp_path: Path) -> None:
    run, clock = made.make_run(tmp_path, steps=5, end="interrupted"), made.Clock(60)
    stream, raw = io.StringIO(), io.StringIO()
    with (
        open_display("plain", stream, io.StringIO()) as plain,
        open_display("json", raw, io.StringIO()) as lines,
        run.writer(clock.stamp) as writer,
    ):
        for display in (plain, lines):
            display.start(run)
        clock.attempt = 2
        writer.write(events.RunResumed(from_step=5, budget_s=300))
        made.train(writer, clock, 6, 6, 75, 300)
        for display in (plain, lines):
            display.tick()
    assert "update 5 " not in stream.getvalue() and "update 6 " in stream.getvalue()
    assert "attempt 2 goes on after update 5" in stream.getvalue()
    kinds = [json.loads(line)["kind"] for line in raw.getvalue().splitlines()]
    assert kinds == ["run_resumed", "step", "plan"]


def test_json_lines_are_the_event_lines_without_torn_and_foreign_ones(tmp_path: Path) -> None:
    run, stream = made.create(tmp_path), io.StringIO()
    made.append_raw(run, "of the past")
    with open_display("json", stream, io.StringIO()) as display:
        display.message("not an event")
        display.start(run)
        with run.writer(made.Clock().stamp) as writer:
            made.train(writer, made.Clock(), 1, 3, 75, 300)
        expected = (run.path / "events.jsonl").read_text().splitlines()[1:]
        made.append_raw(run, "foreign", b"\xff\xfe")
        display.tick()
    assert stream.getvalue().splitlines() == expected


def test_none_says_nothing(tmp_path: Path) -> None:
    stream = io.StringIO()
    errors = tell("none", made.create(tmp_path), 2, stream)
    assert stream.getvalue() == errors.getvalue() == ""


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    yield reader, stream
    os.close(reader)
    stream.close()


def test_a_reader_that_stops_reading_does_not_stop_the_run(
    pipe: tuple[int, io.TextIOWrapper],
) -> None:
    out = Output(pipe[1])
    for _ in range(3 * PENDING_LIMIT // 1000):
        out.write("x" * 1000)
    assert not out.drain(patience_s=0.05)
    assert len(out._pending) <= PENDING_LIMIT + 1000, "more would fill the memory"


def test_a_slow_reader_gets_everything_in_order(pipe: tuple[int, io.TextIOWrapper]) -> None:
    reader, stream = pipe
    out = Output(stream)
    text = "".join(f"{number}\n" for number in range(30_000))
    received = bytearray()

    def read() -> None:
        while len(received) < len(text):
            received.extend(os.read(reader, 1000))

    out.write(text)
    thread = threading.Thread(target=read)
    thread.start()
    assert out.drain(patience_s=5)
    thread.join()
    assert received.decode() == text


def test_a_closed_reader_silences_the_display_and_the_run_goes_on(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream, run = os.fdopen(writer, "w"), made.create(tmp_path)
    errors = tell("plain", run, 3, stream)
    assert errors.getvalue() == ""
    stream.write("nobody reads this, and it does no harm\n")
    stream.close()
    assert '"run_finished"' in (run.path / "events.jsonl").read_text()


def test_what_libraries_print_does_not_reach_a_document(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as document, (tmp_path / "err").open("w") as beside:
        with aside(document, beside) as alone:
            document.write("a library in Python\n")
            document.flush()
            os.write(document.fileno(), b"a library in C\n")
            alone.write("[")
        document.write("]")
    assert (tmp_path / "out").read_text() == "[]"
    assert (tmp_path / "err").read_text() == "a library in Python\na library in C\n"
    with aside(io.StringIO(), io.StringIO()):
        pass  # no descriptors: nothing to turn aside


class FailingStream(io.StringIO):
    """A stream that fails from the n-th write on, as a full disk does."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.good = good

    def write(self, text: str) -> int:
        self.good -= 1
        if self.good < 0:
            raise RuntimeError("no more")
        return super().write(text)


def test_a_display_that_fails_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    run = made.create(tmp_path)
    errors = tell("plain", run, 5, FailingStream(good=3))
    assert errors.getvalue().count("The view failed (RuntimeError: no more)") == 1
    assert '"run_finished"' in (run.path / "events.jsonl").read_text()


def test_live_needs_a_terminal_that_moves_its_cursor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    primary, secondary = os.openpty()
    with os.fdopen(secondary, "w") as terminal:
        for term, live in (("xterm", True), ("dumb", False), ("", False)):
            monkeypatch.setenv("TERM", term)
            assert can_be_live(terminal) is live
        monkeypatch.delenv("TERM")
        assert not can_be_live(terminal)
    os.close(primary)
    with (tmp_path / "log").open("w") as file:
        assert not can_be_live(file)
    assert not can_be_live(file), "closed"


def test_no_display_keeps_no_account(tmp_path: Path) -> None:
    display = NoDisplay()
    display.start(made.create(tmp_path))
    assert display.view is None


def test_plain_lines_into_head_leave_no_complaint(tmp_path: Path) -> None:
    run = made.make_run(tmp_path, steps=5)
    script = (
        "import sys, synthetic_run as made; from budgetrl.rundir import RunDir;"
        "from budgetrl.display.base import open_display\n"
        "run = made.create(__import__('pathlib').Path(sys.argv[1])); clock = made.Clock()\n"
        "with open_display('auto', sys.stdout, sys.stderr) as d, run.writer(clock.stamp) as w:\n"
        "    d.start(run)\n"
        "    for n in range(1, 3000):\n"
        "        made.train(w, clock, n, n, 3000, 9000); d.tick()\n"
        "    print('the end', file=sys.stdout)\n"
    )
    command = f'"{sys.executable}" -c "$0" "$1" | head -n 2; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", command, script, str(run.path.parent)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        timeout=60,
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3 and done.stdout.splitlines()[-1] == "0"
