"""One run per GPU, shown with real processes and a GPU that no machine has."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from budgetrl.errors import ExitCode, HardwareError
from budgetrl.supervise.gpu_lock import hold_gpu, lock_folder

UUID = "GPU-00000000-made-up"
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from budgetrl.supervise.gpu_lock import hold_gpu
with hold_gpu(sys.argv[1], Path("/runs/first"), time.monotonic() + 5400) as handle:
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=0, pass_fds=[handle])
    print(worker.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for locks of this test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def holder() -> Iterator["subprocess.Popen[str]"]:
    """A supervisor that holds the GPU, with a worker that inherited the lock."""
    command = [sys.executable, "-c", HOLDER, UUID]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    yield process
    process.kill()
    process.communicate()


def take() -> None:
    with hold_gpu(UUID, Path("/runs/second"), time.monotonic() + 60):
        pass


def test_a_second_run_is_refused_and_told_who_has_the_gpu(
    holder: "subprocess.Popen[str]",
) -> None:
    assert holder.stdout is not None and holder.stdout.readline()
    with pytest.raises(HardwareError) as caught:
        take()
    assert "/runs/first, which has 1 h" in str(caught.value)
    assert caught.value.exit_code is ExitCode.REFUSED
    with hold_gpu("GPU-another", Path("/runs/second"), 0.0) as handle:
        assert handle is not None


def test_a_worker_keeps_the_gpu_of_its_dead_supervisor_and_no_longer(
    holder: "subprocess.Popen[str]", runtime: Path
) -> None:
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    holder.kill()
    holder.wait()
    with pytest.raises(HardwareError):
        take()
    os.kill(worker, signal.SIGKILL)
    for _ in range(200):
        try:
            take()
            break
        except HardwareError:
            time.sleep(0.05)
    left_behind = lock_folder() / f"gpu-{UUID}.lock"
    assert left_behind.is_file(), "the file stays, and is no obstacle"
    assert left_behind.is_relative_to(runtime)
    take()


def test_a_run_without_a_gpu_takes_no_lock(runtime: Path) -> None:
    with hold_gpu(None, Path("/runs/second"), 0.0) as handle:
        assert handle is None
    assert list(runtime.iterdir()) == []


def test_locks_go_to_the_temporary_folder_where_there_is_no_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/no-such-session")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    assert lock_folder() == tmp_path / "other" / f"budgetrl-{os.getuid()}"
