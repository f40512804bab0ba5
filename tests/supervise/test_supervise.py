"""One supervisor per run: what it refuses, how it ends its worker, and what it says at the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from budgetrl.account.run import Account
from budgetrl.budget import Budget, Limits
from budgetrl.cli.run import _told_when_interrupted
from budgetrl.display.base import NoDisplay
from budgetrl.errors import AbortedError, ExitCode, RunDirError
from budgetrl.events import RunResumed, RunStarted
from budgetrl.files import write_atomic
from budgetrl.history import read_history
from budgetrl.plan import Planned, create_run, make_plan
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import (
    EVENTS,
    HEARTBEAT,
    MANIFEST,
    PLAN,
    RESOLVED,
    RESULT,
    SUPERVISOR_LOCK,
    RunDir,
    list_runs,
    open_run,
)
from budgetrl.supervise import worker
from budgetrl.supervise.closing import Closing
from budgetrl.supervise.ending import finish
from budgetrl.supervise.resume import continue_run, new_budget
from budgetrl.supervise.run import start_run, supervise
from budgetrl.supervise.worker import Signals, Worker
from budgetrl.training.attempt import Attempt
from budgetrl.training.opening import end_margin_s
from budgetrl.training.stopper import signals_held
from budgetrl.types import RunStatus

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "example_run"


@pytest.fixture
def finished(tmp_path: Path) -> RunDir:
    """A finished run."""
    return RunDir(Path(shutil.copytree(EXAMPLE, tmp_path / "run")))


@pytest.fixture(scope="module")
def planned() -> Planned:
    return make_plan(load_recipe("quickstart"), Limits(3600))


@pytest.fixture
def new(planned: Planned, tmp_path: Path) -> RunDir:
    """A run before its first attempt."""
    return create_run(planned, tmp_path / "runs", ["budgetrl"])


class Acting(NoDisplay):
    """Does something once, at the start of the display or when it is first asked for a frame."""

    def __init__(
        self, at_start: Callable[[], None] | None = None, at_tick: Callable[[], None] | None = None
    ) -> None:
        self.at_start, self.at_tick = at_start, at_tick

    def start(self, run: RunDir) -> None:
        if self.at_start is not None:
            self.at_start()

    def tick(self) -> None:
        if self.at_tick is not None:
            act, self.at_tick = self.at_tick, None
            act()


def first(run: RunDir) -> Attempt:
    return Attempt.first(run, time.monotonic(), allow_code=False)


def child() -> int:
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return int(path.read_text().split()[-1])


def content(run: RunDir) -> dict[str, tuple[int, bytes]]:
    files = (path for path in run.path.rglob("*") if path.is_file())
    return {str(f): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


def resume(run: RunDir, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "budgetrl", "resume", str(run.path), *arguments, "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- one at a time


@pytest.mark.parametrize("hours", [(), ("--hours", "60s")])
def test_the_second_of_two_resumptions_changes_nothing_and_finishes_nothing(
    finished: RunDir, hours: tuple[str, ...]
) -> None:
    with finished.supervised():
        before = content(finished)
        done = resume(finished, *hours, "--on-finish", "touch ../finished")
        assert content(finished) == before
    assert done.returncode == ExitCode.USER
    assert json.loads(done.stdout)["error"]["type"] == "RunDirError"
    assert "in use" in done.stderr
    assert not (finished.path.parent / "finished").exists()


def test_a_worker_does_not_hold_the_lock_of_its_supervisor(new: RunDir) -> None:
    with new.supervised():
        outlives = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        with new.supervised():
            pass
    finally:
        outlives.kill()
        outlives.wait()


def test_a_run_whose_orphaned_worker_still_writes_is_not_continued(finished: RunDir) -> None:
    with finished.writer(lambda: {"elapsed_s": 0.0}):
        before = (finished.path / RESULT).read_bytes()
        with pytest.raises(RunDirError, match="is running"):
            continue_run(finished, Limits(), NoDisplay(), time.monotonic())
    assert (finished.path / RESULT).read_bytes() == before


# --- a finished run


def test_a_finished_run_says_what_more_of_it_takes(finished: RunDir) -> None:
    told: list[str] = []

    class Telling(NoDisplay):
        def message(self, text: str) -> None:
            told.append(text)

    continue_run(finished, Limits(), Telling(), time.monotonic())
    assert told == [
        f"{finished.name} has ended: nothing is trained. For more: budgetrl resume "
        f"{finished.path} --hours 1h --set schedule.stop_after_steps=120"
    ]


def test_a_missing_report_is_made_and_what_was_paid_stays(finished: RunDir) -> None:
    shutil.rmtree(finished.path / "report")
    finished.write_json(HEARTBEAT, {"paid_s": 151.0, "attempt": 1, "t": 0.0})  # all of its budget
    before = (finished.path / HEARTBEAT).read_bytes()
    for _ in range(2):
        ended = continue_run(finished, Limits(), NoDisplay(), time.monotonic() - 100)
        assert ended.exit_code == ExitCode.OK
        assert ended.result["report"] == str(finished.path / "report" / "report.html")
        assert ended.result["spent"]["wall_s"] == 151.0
        assert finished.read_json(RESULT) == ended.result
        assert (finished.path / HEARTBEAT).read_bytes() == before


@pytest.mark.parametrize("code", [77, 0])
def test_only_exit_codes_of_the_contract_come_from_a_file(finished: RunDir, code: int) -> None:
    events = finished.path / "events.jsonl"
    events.write_text(events.read_text().replace('"exit_code": 0', f'"exit_code": {code}'))
    ended = continue_run(finished, Limits(), NoDisplay(), time.monotonic())
    assert ended.exit_code == ExitCode.OK


# --- damaged files


@pytest.mark.parametrize("text", [None, "xx", "[]", "{}", "null", "3"])
@pytest.mark.parametrize("name", [PLAN, RESOLVED])
def test_a_damaged_plan_or_recipe_is_named_and_nothing_is_changed(
    new: RunDir, name: str, text: str | None
) -> None:
    (new.path / name).unlink()
    if text is not None:
        (new.path / name).write_text(text)
    before = content(new).keys() | {str(new.path / SUPERVISOR_LOCK)}
    with pytest.raises(RunDirError, match=name):
        continue_run(new, Limits(3600), NoDisplay(), time.monotonic())
    assert content(new).keys() == before


def test_a_damaged_recipe_of_a_finished_run_is_named_too(finished: RunDir) -> None:
    (finished.path / RESOLVED).write_text("{}")
    before = (finished.path / RESULT).read_bytes()
    with pytest.raises(RunDirError, match=RESOLVED):
        continue_run(finished, Limits(), NoDisplay(), time.monotonic())
    assert (finished.path / RESULT).read_bytes() == before


def test_a_damaged_manifest_is_looked_past_but_not_trained_on(new: RunDir) -> None:
    (new.path / MANIFEST).write_text("3")
    assert open_run(new.path).path == new.path
    with pytest.raises(RunDirError, match=MANIFEST):
        continue_run(new, Limits(3600), NoDisplay(), time.monotonic())


@pytest.mark.parametrize("beat", ["3", "xx", '{"paid_s": "long"}', '{"paid_s": NaN}'])
def test_a_damaged_heartbeat_leaves_what_the_events_tell(finished: RunDir, beat: str) -> None:
    (finished.path / HEARTBEAT).write_text(beat)
    history = read_history(finished)
    assert Account(finished, history).paid_s == history.elapsed_s > 0


def test_events_that_are_a_folder_are_named_and_keep_no_other_run_from_the_list(
    new: RunDir, planned: Planned
) -> None:
    other = create_run(planned, new.path.parent, ["budgetrl"])
    (new.path / EVENTS).mkdir()
    with pytest.raises(RunDirError, match=EVENTS):
        continue_run(new, Limits(3600), NoDisplay(), time.monotonic())
    assert [run.path for run in list_runs(new.path.parent)] == [other.path]


# --- a new allowance


def test_a_new_limit_replaces_both_old_ones_and_counts_from_now() -> None:
    old = Budget(wall_s=3600.0, usd_per_hour=60.0, usd=60.0)
    attempt = Attempt(old, started=0.0, paid_s=600.0, reserved_s=1.0, save_s=1.0, grace_s=20.0)
    assert new_budget(attempt, Limits(usd=45.0)) == Budget(3300.0, 60.0, 55.0, "command line")
    assert new_budget(attempt, Limits(3600)) == Budget(4200.0, 60.0, None, "command line")
    assert new_budget(attempt, Limits()) == old


def test_an_allowance_that_only_the_events_name_is_kept(new: RunDir) -> None:
    planned_s = new.read_json(PLAN)["budget"]["wall_s"]
    with new.writer(lambda: {"elapsed_s": 9.0, "spent_usd": None, "attempt": 1}) as writer:
        writer.write(RunStarted(recipe="x", budget_s=planned_s, usd_per_hour=None, plan={}))
        assert Account(new, read_history(new)).budget_s == planned_s
        writer.write(RunResumed(from_step=0, budget_s=9000.0, gap_s=1.0))
        assert Account(new, read_history(new)).budget_s == 9000.0
    document = new.read_json(PLAN)
    new.write_json(PLAN, document | {"budget": document["budget"] | {"wall_s": 7000.0}})
    assert Account(new, read_history(new)).budget_s == 7000.0


# --- the user's command at the end


def test_on_finish_follows_the_result_and_speaks_on_standard_error(finished: RunDir) -> None:
    done = resume(finished, "--on-finish", "pwd; echo done; exit 3")
    assert done.returncode == ExitCode.OK
    assert json.loads(done.stdout)["stop_reason"] == "completed"
    said = done.stderr.splitlines()
    assert said[-3:-1] == [str(finished.path), "done"]
    assert said[-1] == "--on-finish ended with exit code 3", "the command may hold a token"


# --- a directory that goes away or cannot be written


def test_a_run_directory_that_is_removed_ends_the_run_with_its_name(
    new: RunDir, tmp_path: Path
) -> None:
    def remove() -> None:
        new.path.rename(tmp_path / "removed")

    with (
        Signals() as signals,
        new.supervised(),
        pytest.raises(RunDirError, match=f"{new.path} was removed"),
    ):
        supervise(new, first(new), Acting(at_tick=remove), signals)
    assert not new.path.exists()


@pytest.mark.parametrize("name", ["supervisor.lock", "worker.log"])
def test_a_run_directory_that_cannot_be_written_is_a_user_error(new: RunDir, name: str) -> None:
    (new.path / name).mkdir()
    with pytest.raises(RunDirError, match="writ"):
        continue_run(new, Limits(3600), NoDisplay(), time.monotonic())


# --- signals


def test_ctrl_c_while_planning_has_its_json_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "budgetrl", "run", "quickstart", "--json"]
    command += ["--out", str(tmp_path / "runs")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and "planning" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    document, _ = process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert json.loads(document)["error"]["exit_code"] == ExitCode.INTERRUPTED
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_that_an_import_turns_into_its_own_error_is_still_ctrl_c() -> None:
    with pytest.raises(AbortedError), _told_when_interrupted():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("a C extension could not be loaded") from error
    with pytest.raises(ImportError), _told_when_interrupted():
        raise ImportError("no Ctrl-C")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_comes_while_the_worker_imports_waits_for_its_handlers(
    number: signal.Signals,
) -> None:
    late = (
        "import time; time.sleep(0.5)\n"
        "from budgetrl.training.stopper import Stopper\n"
        "stopper = Stopper(); stopper.install()\n"
        "print(stopper.requested())\n"
    )
    with signals_held():
        child = subprocess.Popen([sys.executable, "-c", late], stdout=subprocess.PIPE, text=True)
    child.send_signal(number)
    assert child.communicate()[0] == "True\n"
    assert child.returncode == 0


def test_a_signal_before_the_worker_starts_ends_the_run_as_interrupted(
    planned: Planned, tmp_path: Path
) -> None:
    display = Acting(at_start=lambda: os.kill(os.getpid(), signal.SIGTERM))
    ended = start_run(planned, tmp_path, ["budgetrl"], display, time.monotonic())
    assert ended.exit_code == ExitCode.TERMINATED
    (run,) = list_runs(tmp_path)
    assert run.status() is RunStatus.INTERRUPTED
    assert run.read_json(RESULT)["stop_reason"] == "interrupted"


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_a_worker_that_does_not_answer(
    new: RunDir, presses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if presses == 1:
        monkeypatch.setattr(worker, "ABORT_S", -5.0)  # no patience beyond the shortest save

    def stop() -> None:
        os.kill(child(), signal.SIGSTOP)
        for _ in range(presses):
            os.kill(os.getpid(), signal.SIGINT)

    with Signals() as signals:
        watched = Worker(new, first(new), signals, Acting(at_tick=stop), Closing())
        assert watched.watch() == -signal.SIGKILL
    assert not watched.at_deadline


def test_a_save_that_takes_longer_gets_its_time_after_ctrl_c(new: RunDir) -> None:
    document: dict[str, Any] = new.read_json(PLAN)
    document["times"]["save_s"] = 60.0
    new.write_json(PLAN, document)
    with Signals() as signals:
        watched = Worker(new, first(new), signals, NoDisplay(), Closing())
        signals.received.append(signal.SIGINT)
        once = watched.patience(signal.SIGINT) - time.monotonic()
        signals.received.append(signal.SIGINT)
        twice = watched.patience(signal.SIGINT)
    assert once > 2 * 60.0
    assert twice <= time.monotonic()


@pytest.mark.parametrize(("write_s", "exported"), [(0.001, True), (30.0, False)])
def test_a_slow_disk_is_not_given_more_files_than_the_budget_has_time_for(
    finished: RunDir, write_s: float, exported: bool
) -> None:
    attempt = Attempt(Budget(60.0), time.monotonic(), 0.0, 1.0, 0.1, 20.0)
    result = finish(finished, attempt, read_history(finished), Closing(), write_s)
    assert (finished.adapter / "README.md").is_file() is exported
    assert finished.read_json("result.json")["run_dir"] == result["run_dir"]


def test_the_end_of_a_training_leaves_time_for_a_slow_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgetrl.files._slowest_s", 0.0)  # and as it was after this test
    before = end_margin_s()
    monkeypatch.setattr("os.fsync", lambda handle: time.sleep(0.2))
    write_atomic(tmp_path / "heartbeat.json", "{}")
    assert end_margin_s() > before + 1.5, "four files, each of which is written twice to the disk"
