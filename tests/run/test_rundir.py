"""The run directory: what was written stays readable through kills, full disks and strangers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_events import step_event

from budgetrl import events
from budgetrl.checkpoint_files import CHECKPOINT_MANIFEST, damaged_files, read_checkpoint
from budgetrl.errors import ExitCode, RunDirError
from budgetrl.files import read_jsonl, write_atomic
from budgetrl.history import read_history
from budgetrl.rundir import EVENTS, HEARTBEAT, RESOLVED, SCHEMA_VERSION, RunDir, list_runs, open_run
from budgetrl.types import RunStatus, StopReason


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A fresh run directory."""
    made = RunDir.create(tmp_path / "runs", "quickstart")
    made.write_json(RESOLVED, {"recipe": {}})
    return made


def stamp(elapsed_s: float = 0.0, usd: float | None = None, attempt: int = 1) -> Callable[[], Any]:
    return lambda: {"elapsed_s": elapsed_s, "spent_usd": usd, "attempt": attempt}


def warning(code: str) -> events.RunWarning:
    return events.RunWarning(code=code, message="m")


def write(run: RunDir, *written: events.Event, elapsed_s: float = 0.0) -> None:
    with run.writer(stamp(elapsed_s)) as writer:
        for event in written:
            writer.write(event)


def codes(run: RunDir) -> list[str]:
    return [event.code for event in run.events() if isinstance(event, events.RunWarning)]


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


# --- creation and single files


def test_a_run_directory_is_named_by_recipe_time_and_chance(tmp_path: Path) -> None:
    first = RunDir.create(tmp_path, "tina/limr", now=0.0)
    second = RunDir.create(tmp_path, "tina/limr", now=0.0)
    assert first.path != second.path
    assert first.name.startswith("tina-limr--19700101-000000--")


def test_a_folder_that_cannot_be_made_is_a_user_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="cannot create the run directory") as caught:
        RunDir.create(tmp_path / "file" / "runs", "quickstart")
    assert caught.value.exit_code == ExitCode.USER
    assert "--out" in caught.value.hint


def test_a_tilde_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunDir.create(Path("~/runs"), "quickstart").path.parent == tmp_path / "runs"


def test_only_run_directories_are_opened(run: RunDir, tmp_path: Path) -> None:
    assert open_run(run.path).path == run.path
    for path, says in ((tmp_path / "nope", "no run directory"), (tmp_path, "not a run directory")):
        with pytest.raises(RunDirError, match=says):
            open_run(path)


def test_a_run_directory_of_a_newer_version_is_refused(run: RunDir) -> None:
    run.write_json("manifest.json", {"schema_version": 2, "budgetrl": "7.0.0"})
    with pytest.raises(RunDirError, match=r"newer budgetrl \(7\.0\.0\).* version 2") as caught:
        open_run(run.path)
    assert "Update budgetrl" in caught.value.hint
    run.write_json("manifest.json", {"schema_version": SCHEMA_VERSION})
    assert open_run(run.path).path == run.path


def test_files_are_read_as_written_and_broken_ones_are_named(run: RunDir) -> None:
    run.write_json("plan.json", {"title": "größer", "steps": 3})
    assert run.read_json("plan.json") == {"title": "größer", "steps": 3}
    assert run.read_json("absent.json") is None
    (run.path / "plan.json").write_text("{")
    with pytest.raises(RunDirError, match=r"plan\.json: is damaged"):
        run.read_json("plan.json")
    (run.path / "plan.json").write_text("[3]")
    with pytest.raises(RunDirError, match=r"plan\.json: is damaged"):
        run.read_json("plan.json")


def test_runs_are_listed_oldest_first_and_nothing_else(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "nowhere") == []
    made = [RunDir.create(tmp_path, name) for name in ("b", "a", "c")]
    for age, one in enumerate(made):
        one.write_json(RESOLVED, {})
        os.utime(one.path / RESOLVED, (age, age))
    RunDir.create(tmp_path, "half-made")
    (tmp_path / "foreign").mkdir()
    assert [found.path for found in list_runs(tmp_path)] == [one.path for one in made]


FULL_DISK = """
import resource, sys
from pathlib import Path
from budgetrl.events import RunWarning
from budgetrl.rundir import RunDir, write_atomic

run = RunDir(Path(sys.argv[1]))
failures = 0
with run.writer(lambda: {"elapsed_s": 1.0, "spent_usd": None, "attempt": 1}) as events:
    events.write(RunWarning(code="before", message=""))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        events.write(RunWarning(code="too long", message="x" * 9000))
    except OSError:
        failures += 1
    try:
        write_atomic(run.path / "heartbeat.json", "y" * 9000)
    except OSError:
        failures += 1
    try:
        with run.new_checkpoint(7) as folder:
            (folder / "adapter").write_bytes(b"z" * 9000)
    except OSError:
        failures += 1
    events.write(RunWarning(code="after", message=""))
print(failures)
"""


def test_a_full_disk_leaves_every_file_as_it_was(run: RunDir) -> None:
    run.write_json(HEARTBEAT, {"paid_s": 1.0})
    before = {path.name for path in run.path.rglob("*")}
    done = subprocess.run(
        python(FULL_DISK, run.path), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "3"
    assert run.read_json(HEARTBEAT) == {"paid_s": 1.0}
    assert codes(run) == ["before", "after"]
    content = (run.path / EVENTS).read_bytes()
    assert (content.count(b"\n"), content[-1:]) == (2, b"\n")
    left = {path.name for path in run.path.rglob("*")} - before
    assert left == {EVENTS, "events.lock"}


def test_a_file_is_replaced_as_a_whole_even_for_a_reader_that_holds_the_old_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "heartbeat.json"
    write_atomic(path, "old")
    with path.open() as reader:
        write_atomic(path, b"new")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


# --- events


def test_a_line_torn_anywhere_is_cut_before_the_next_one_is_written(run: RunDir) -> None:
    write(run, warning("one"), warning("two"))
    path = run.path / EVENTS
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in {*range(0, len(whole), 7), second - 1, second, second + 1, len(whole) - 1}:
        path.write_bytes(whole[:cut])
        assert codes(run) == (["one"] if cut >= second else [])
        write(run, warning("next"))
        assert codes(run) == (["one", "next"] if cut >= second else ["next"])


def test_a_torn_line_longer_than_any_buffer_is_cut(run: RunDir) -> None:
    write(run, warning("one"))
    with (run.path / EVENTS).open("ab") as file:
        file.write(b'{"kind": "' + b"x" * 200_000)
    write(run, warning("two"))
    assert codes(run) == ["one", "two"]
    assert (run.path / EVENTS).stat().st_size < 1000


def test_foreign_lines_are_left_out_and_left_alone(run: RunDir) -> None:
    write(run, warning("one"))
    with (run.path / EVENTS).open("ab") as file:
        file.write(b"\xff\xfe\n\n[1, 2]\n{}\n")
    write(run, warning("two"))
    assert codes(run) == ["one", "two"]
    assert b"[1, 2]" in (run.path / EVENTS).read_bytes()
    assert len(list(read_jsonl(run.path / EVENTS))) == 3


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" + "0" * 400])
def test_a_line_with_a_number_that_no_clock_can_show_is_foreign(run: RunDir, number: str) -> None:
    line = f'{{"kind": "warning", "code": "one", "message": "", "elapsed_s": {number}}}\n'
    (run.path / EVENTS).write_text(line)
    assert list(run.events()) == []


def test_a_reader_continues_where_it_was_and_waits_for_the_end_of_a_line(run: RunDir) -> None:
    assert run.tail(0) == ([], 0)
    write(run, warning("one"))
    _, offset = run.tail(0)
    with (run.path / EVENTS).open("ab") as file:
        file.write(b'{"kind": "warning", "code": "two",')
    assert run.tail(offset) == ([], offset)
    with (run.path / EVENTS).open("ab") as file:
        file.write(b' "message": ""}\n')
    found, end = run.tail(offset)
    assert [event.kind for event in found] == ["warning"]
    assert end == (run.path / EVENTS).stat().st_size


def test_what_was_paid_never_falls_not_even_over_attempts(run: RunDir) -> None:
    with run.writer(stamp(10.0, 0.5)) as writer:
        writer.write(warning("one"))
    with run.writer(stamp(4.0, 0.2, attempt=2)) as writer:
        writer.write(warning("two"))
        writer.write(warning("three"))
    found = [(event.elapsed_s, event.spent_usd, event.attempt) for event in run.events()]
    assert found == [(10.0, 0.5, 1), (10.0, 0.5, 2), (10.0, 0.5, 2)]


def test_ten_thousand_updates_are_read_and_folded(run: RunDir) -> None:
    line = events.to_line(step_event(0), stamp()())
    lines = (line.replace('"step": 0', f'"step": {number}') for number in range(1, 10_001))
    (run.path / EVENTS).write_text("\n".join(lines) + "\n")
    steps = read_history(run).steps
    assert [step.step for step in steps] == list(range(1, 10_001))


def test_completions_of_a_step_are_replaced_by_those_of_the_next_attempt(run: RunDir) -> None:
    run.write_completions(3, [{"text": "a\n\u2028b"}, {"text": "c"}])
    run.write_completions(3, [{"text": "d"}])
    assert list(read_jsonl(run.completions_file(3))) == [{"text": "d"}]


# --- one writer at a time

HOLD_LOCK = """
import sys, time
from pathlib import Path
from budgetrl.events import RunWarning
from budgetrl.rundir import RunDir

stamp = lambda: {"elapsed_s": 1.0, "spent_usd": None, "attempt": 1}
with RunDir(Path(sys.argv[1])).writer(stamp) as events:
    events.write(RunWarning(code="first", message=""))
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_writer(run: RunDir) -> Iterator["subprocess.Popen[str]"]:
    """Another process that writes the run's events."""
    process = subprocess.Popen(python(HOLD_LOCK, run.path), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_refused_until_the_first_is_dead(
    run: RunDir, other_writer: "subprocess.Popen[str]"
) -> None:
    assert run.status() is RunStatus.RUNNING
    with pytest.raises(RunDirError, match="another process writes its events"):
        write(run, warning("second"))
    other_writer.send_signal(signal.SIGKILL)
    other_writer.wait()
    assert run.status() is RunStatus.CRASHED
    write(run, warning("second"))
    assert codes(run) == ["first", "second"]


def test_who_looks_at_a_run_keeps_neither_its_writer_nor_other_watchers_out(run: RunDir) -> None:
    write(run, warning("first"))
    over = threading.Event()
    seen: set[bool] = set()

    def look() -> None:
        while not over.is_set():
            seen.add(run.is_locked())
            time.sleep(0.0002)

    watchers = [threading.Thread(target=look) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    try:
        time.sleep(0.3)
        assert seen == {False}
        for _ in range(50):
            write(run)
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()


# --- status


def finished(reason: StopReason) -> events.RunFinished:
    return events.RunFinished(stop_reason=reason, exit_code=0, steps=1, train_s=1.0)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (StopReason.COMPLETED, RunStatus.FINISHED),
        (StopReason.BUDGET, RunStatus.FINISHED),
        (StopReason.NO_SIGNAL, RunStatus.FINISHED),
        (StopReason.INTERRUPTED, RunStatus.INTERRUPTED),
        (StopReason.FAILED, RunStatus.FAILED),
    ],
)
def test_the_end_of_a_run_is_its_status_until_it_is_resumed(
    run: RunDir, reason: StopReason, status: RunStatus
) -> None:
    assert run.status() is RunStatus.CRASHED
    write(run, step_event(1), finished(reason))
    assert run.status() is status
    write(run, events.RunResumed(from_step=0, budget_s=9.0), step_event(1))
    assert run.status() is RunStatus.CRASHED
    with run.writer(stamp()):
        assert run.status() is RunStatus.RUNNING


# --- checkpoints


def save(run: RunDir, step: int, resumable: bool = True, content: bytes = b"weights") -> Path:
    with run.new_checkpoint(step, resumable) as folder:
        (folder / "adapter.bin").write_bytes(content)
        (folder / "nested").mkdir()
        (folder / "nested" / "state.json").write_text("{}")
    return run.checkpoint_path(step)


def steps_of(run: RunDir) -> list[int]:
    return [checkpoint.step for checkpoint in run.checkpoints()]


def test_the_newest_complete_resumable_checkpoint_is_found(run: RunDir) -> None:
    assert run.newest_checkpoint() is None
    for step, resumable in ((10, False), (20, True), (100, True), (110, False)):
        save(run, step, resumable)
    assert steps_of(run) == [10, 20, 100, 110]
    newest = run.newest_checkpoint()
    assert newest is not None
    assert (newest.step, newest.path) == (100, run.checkpoint_path(100))
    assert damaged_files(newest) == []


def test_later_checkpoints_than_the_resumed_one_are_set_aside(run: RunDir) -> None:
    for step in (10, 20, 30):
        save(run, step)
    with (run.checkpoint_path(30) / "adapter.bin").open("r+b") as file:
        file.truncate(1)
    assert run.set_aside_after(10) == ["unused_step_000020", "unused_step_000030"]
    assert steps_of(run) == [10]
    assert (run.path / "checkpoints/unused_step_000020/adapter.bin").exists()
    save(run, 20)
    assert run.set_aside_after(10) == ["unused_step_000020"]
    assert run.set_aside_after(10) == []


@pytest.mark.parametrize("name", ["adapter.bin", "nested/state.json", CHECKPOINT_MANIFEST])
@pytest.mark.parametrize("how", ["missing", "shorter"])
def test_a_half_checkpoint_is_not_seen(run: RunDir, name: str, how: str) -> None:
    save(run, 10)
    file = save(run, 20) / name
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    assert steps_of(run) == ([10, 20] if how == "shorter" and name == CHECKPOINT_MANIFEST else [10])


def test_strange_folders_are_no_checkpoints(run: RunDir) -> None:
    made = save(run, 10)
    folder = made.parent
    made.rename(folder / "step_000010_mine")
    save(run, 10)
    (folder / "step_000030").mkdir()
    (folder / "step_000040").write_text("a file")
    (folder / "step_000050").mkdir()
    (folder / "step_000050" / CHECKPOINT_MANIFEST).write_text('{"files": [1]}')
    assert [checkpoint.path for checkpoint in run.checkpoints()] == [made]


def test_a_changed_byte_is_noticed(run: RunDir) -> None:
    path = save(run, 10)
    (path / "adapter.bin").write_bytes(b"weighty")
    checkpoint = read_checkpoint(path)
    assert checkpoint is not None
    assert damaged_files(checkpoint) == ["adapter.bin"]


def test_a_save_that_fails_leaves_the_old_checkpoint_and_nothing_else(run: RunDir) -> None:
    path = save(run, 10, content=b"old")
    with pytest.raises(RuntimeError), run.new_checkpoint(10) as folder:
        (folder / "adapter.bin").write_bytes(b"new")
        raise RuntimeError
    assert (path / "adapter.bin").read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
    save(run, 10, content=b"newer")
    assert (path / "adapter.bin").read_bytes() == b"newer"
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_says_what_it_holds(run: RunDir) -> None:
    manifest = json.loads((save(run, 7) / CHECKPOINT_MANIFEST).read_text())
    assert (manifest["step"], manifest["resumable"]) == (7, True)
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == {
        "adapter.bin": 7,
        "nested/state.json": 2,
    }


def test_a_reduced_checkpoint_is_complete_at_every_moment(run: RunDir) -> None:
    path = save(run, 7)
    checkpoint = run.newest_checkpoint()
    assert checkpoint is not None
    run.reduce_checkpoint(checkpoint, ["nested/state.json", "absent.pt"])
    kept = read_checkpoint(path)
    assert kept is not None and not kept.resumable and damaged_files(kept) == []
    assert not (path / "nested" / "state.json").exists()
    assert run.newest_checkpoint() is None


def test_what_a_killed_process_left_half_written_is_cleared(run: RunDir) -> None:
    path = save(run, 7)
    half = path.with_name(".tmp-step_000009-4711")
    half.mkdir()
    (half / "adapter.bin").write_bytes(b"half")
    run.clear_temporary()
    assert list(path.parent.iterdir()) == [path]
    run.drop_checkpoint(7)
    run.drop_checkpoint(8)
    assert list(path.parent.iterdir()) == []
