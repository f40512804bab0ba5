"""`watch` and `runs` tell of any run from its files alone."""

import io
import json
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import synthetic_run as made
from terminal import LEAVE, Terminal

from budgetrl.cli import main
from budgetrl.display.base import GuardedDisplay, open_display
from budgetrl.display.watch import newest_run, print_frame, watch
from budgetrl.rundir import RESOLVED

Capture = pytest.CaptureFixture[str]


def once(run: made.RunDir, capsys: Capture) -> str:
    assert main(["watch", str(run.path), "--once"]) == 0
    return capsys.readouterr().out


ENDS = {"finished": ["budget", "completed", "no_signal"], "crashed": [None]}
ENDS |= {"interrupted": ["interrupted"], "failed": ["failed"]}


@pytest.mark.parametrize(
    ("end", "status"), [(end, status) for status, ends in ENDS.items() for end in ends]
)
def test_once_prints_one_frame_of_any_run(
    end: str | None, status: str, tmp_path: Path, capsys: Capture
) -> None:
    told = once(made.make_run(tmp_path, end=end), capsys)
    assert told.splitlines()[0].endswith(status)
    assert "budgetrl resume" in told or "budgetrl eval" in told
    assert "\x1b" not in told, "nobody looks at a terminal"


def test_once_tells_of_a_run_in_training(tmp_path: Path, capsys: Capture) -> None:
    run = made.make_run(tmp_path)
    with made.running(run, made.Clock(140.0)):
        assert "about 41 more (37 to 44)" in once(run, capsys)


def test_a_finished_run_is_printed_and_watch_leaves(tmp_path: Path, capsys: Capture) -> None:
    run = made.make_run(tmp_path, end="budget")
    before = signal.getsignal(signal.SIGTERM)
    assert main(["watch", str(run.path)]) == 0
    assert "+38.7 points" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before


def test_watch_stays_until_the_report_is_there(tmp_path: Path) -> None:
    run = made.make_run(tmp_path, end="budget")
    shutil.rmtree(run.report, ignore_errors=True)
    out, supervisor = io.StringIO(), ExitStack()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            run.report.mkdir()
            (run.report / "report.html").touch()
            supervisor.close()

    supervisor.enter_context(run.supervised())
    watch(run, out, io.StringIO(), pause)
    assert len(pauses) == 2
    assert "report.html" in out.getvalue()


def test_a_crashed_run_has_one_frame_on_a_terminal_too(tmp_path: Path) -> None:
    run = made.make_run(tmp_path / "runs")
    terminal = Terminal(["-m", "budgetrl", "watch"], 80, 24, cwd=tmp_path)
    assert terminal.end() == 0
    assert b"wrote no end, after 34 updates" in terminal.data
    assert b"budgetrl resume runs/" + run.name.encode() in terminal.data
    assert LEAVE not in terminal.data, "it stays on the screen"


def test_the_newest_run_is_watched_by_default(tmp_path: Path) -> None:
    older, newer = made.make_run(tmp_path, steps=2), made.make_run(tmp_path, steps=3)
    assert newest_run(tmp_path).path == newer.path
    (older.path / RESOLVED).touch()
    assert newest_run(tmp_path).path == older.path


def test_what_is_no_run_directory_is_a_user_error(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["watch"], ["watch", "nowhere"], ["watch", str(tmp_path)]):
        assert main([*arguments, "--once"]) == 2
        assert capsys.readouterr().err.startswith("RunDirError: ")


def test_an_error_names_a_path_without_the_codes_in_it(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "clears\x1b[2J"
    folder.mkdir()
    assert main(["watch", str(folder)]) == 2
    told = capsys.readouterr().err
    assert "clears is not a run directory" in told and "\x1b" not in told


def test_a_frame_that_the_disk_cannot_hold_is_one_line_of_error(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made.make_run(tmp_path, end="budget")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["watch", str(run.path), "--once"]) == 1
    assert capsys.readouterr().err.startswith("OutputError: no space left")


def test_a_run_without_a_single_event_has_a_frame(tmp_path: Path, capsys: Capture) -> None:
    run = made.create(tmp_path)
    assert "crashed" in once(run, capsys)
    (run.path / "plan.json").unlink()
    (run.path / RESOLVED).write_text("{}")
    assert "crashed" in once(run, capsys)


def test_runs_is_a_table_with_status_spent_and_gain(tmp_path: Path, capsys: Capture) -> None:
    made.make_run(tmp_path, steps=69, of=69, end="budget")
    made.make_run(tmp_path, steps=12, end="interrupted")
    crashed = made.make_run(tmp_path, steps=3)
    shutil.rmtree(crashed.path / "report")
    assert main(["runs", "--out", str(tmp_path)]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "status", "updates", "time", "money", "gain"]
    told = " ".join(" ".join(rows).split())
    assert told.index("finished") < told.index("interrupted") < told.index("crashed")
    for fact in ("69", "4 m 28 s", "$0.0298", "+38.7"):
        assert fact in told


def test_a_name_that_has_no_room_beside_stands_whole_above(tmp_path: Path) -> None:
    run = made.make_run(tmp_path / "runs", steps=69, of=69, end="budget")
    terminal = Terminal(["-m", "budgetrl", "runs"], 80, 24, cwd=tmp_path)
    assert terminal.end() == 0
    name, facts = terminal.data.decode().splitlines()
    assert name == f"runs/{run.name}"
    assert facts.startswith("  ") and "69 updates  4 m 28 s  $0.0298" in facts


def test_runs_shows_folder_names_as_they_are_and_no_escapes(
    tmp_path: Path, capsys: Capture
) -> None:
    for name in ("b[/x]", "exp[lora]", "moves\x1b[2J\nturns"):
        made.make_run(tmp_path / name, steps=1)
        assert main(["runs", "--out", str(tmp_path / name)]) == 0
    assert main(["runs", "--out", str(tmp_path / "none\x1b[2J")]) == 0
    told = capsys.readouterr()
    for name in ("b[/x]/", "exp[lora]/", "moves turns/"):
        assert name in told.out, name
    assert "\x1b" not in told.out + told.err


def test_runs_as_json_follow_the_contract(tmp_path: Path, capsys: Capture) -> None:
    made.make_run(tmp_path, steps=69, of=69, end="budget")
    made.make_run(tmp_path, steps=3)
    assert main(["runs", "--out", str(tmp_path), "--json"]) == 0
    done, crashed = json.loads(capsys.readouterr().out)
    assert {"run_dir", "recipe", "status", "steps", "spent", "final"} <= done.keys()
    assert (done["recipe"], done["status"], done["steps"]) == ("quickstart", "finished", 69)
    assert done["spent"]["wall_s"] == pytest.approx(267.7, abs=5)
    assert done["final"]["heldout"]["pass_at"] == {"1": 0.612}
    assert (crashed["status"], crashed["steps"], crashed["final"]) == ("crashed", 3, None)


def test_without_runs_the_table_is_empty_and_says_how_to_start(
    tmp_path: Path, capsys: Capture
) -> None:
    assert main(["runs", "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["runs", "--out", str(tmp_path / "nothing")]) == 0
    assert "budgetrl run quickstart" in capsys.readouterr().err


def test_frames_of_a_hostile_directory_do_not_fail(tmp_path: Path) -> None:
    run = made.make_run(tmp_path, steps=2)
    for name in ("plan.json", "heartbeat.json", "result.json", "manifest.json"):
        (run.path / name).write_text('[{"plan": 3}]')
    run.write_json(RESOLVED, {"recipe": {"model": {"id": 3}, "recipe": {"name": "\x1b[2Jx"}}})
    stream = io.StringIO()
    print_frame(run, stream, now=0.0)
    assert "budgetrl x" in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_a_display_is_a_context_manager_that_closes_once(tmp_path: Path) -> None:
    stream = io.StringIO()
    display = open_display("plain", stream, io.StringIO())
    assert isinstance(display, GuardedDisplay)
    with display:
        display.start(made.make_run(tmp_path, steps=1, end="budget"))
        display.close(made.ended("budget", 1))
        told = stream.getvalue()
    assert stream.getvalue() == told and told.count("next:") == 1
