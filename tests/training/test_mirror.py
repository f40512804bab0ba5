"""The second copy of a run holds what the run holds, and never half of anything."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from budgetrl.rundir import RunDir
from budgetrl.training.checkpoints import prune
from budgetrl.training.mirror import (
    MirrorGuard,
    copy_files,
    reason_of,
    restore_from_mirror,
    update_mirror,
)


def save(run: RunDir, step: int, content: str = "adapter") -> None:
    with run.new_checkpoint(step) as folder:
        (folder / "adapter_model.safetensors").write_text(f"{content} of {step}")
        (folder / "optimizer.pt").write_text(f"moments of {step}")


def states(run: RunDir) -> list[tuple[int, bool]]:
    return [(checkpoint.step, checkpoint.resumable) for checkpoint in run.checkpoints()]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir.create(tmp_path / "runs", "mirrored")
    made.write_json("recipe.resolved.json", {})
    return made


@pytest.fixture
def mirror(tmp_path: Path, run: RunDir) -> RunDir:
    return RunDir(tmp_path / "other disk" / run.name)


def test_it_is_pruned_and_reduced_as_the_run_is(run: RunDir, mirror: RunDir) -> None:
    for step in range(1, 8):
        save(run, step)
        prune(run, best=2, milestones=1)
        update_mirror(run, mirror)
        assert states(mirror) == states(run)
    assert states(mirror) == [(2, False), (5, False), (6, True), (7, True)]
    assert not (mirror.checkpoint_path(2) / "optimizer.pt").exists()


def test_a_step_that_was_made_anew_replaces_its_copy(run: RunDir, mirror: RunDir) -> None:
    save(run, 1, "abandoned")
    update_mirror(run, mirror)
    save(run, 1, "adapters")
    update_mirror(run, mirror)
    copied = mirror.checkpoint_path(1) / "adapter_model.safetensors"
    assert copied.read_text() == "adapters of 1"


def test_what_a_killed_copy_left_is_not_seen_and_cleared(run: RunDir, mirror: RunDir) -> None:
    half = mirror.path / "checkpoints" / ".tmp-step_000001-17"
    half.mkdir(parents=True)
    save(run, 1)
    update_mirror(run, mirror)
    assert states(mirror) == [(1, True)]
    assert not half.exists()


def test_lost_checkpoints_come_back_but_no_damaged_one(run: RunDir, mirror: RunDir) -> None:
    for step in (1, 2, 3):
        save(run, step)
    update_mirror(run, mirror)
    for step in (1, 2):
        run.drop_checkpoint(step)
    (mirror.checkpoint_path(2) / "optimizer.pt").write_text("nomemts of 2")
    assert restore_from_mirror(run, mirror) == [1]
    assert states(run) == [(1, True), (3, True)]


def test_a_disk_that_fails_is_one_warning_and_its_return_another(
    run: RunDir, mirror: RunDir
) -> None:
    told: list[tuple[str, bool]] = []
    guard = MirrorGuard(run, mirror, lambda code, message, resolved: told.append((code, resolved)))
    mirror.path.parent.write_text("a file where the disk should be")
    for step in (1, 2, 3):
        save(run, step)
        guard.update()
    assert told == [("not_mirrored", False)]
    mirror.path.parent.unlink()
    guard.update()
    guard.update()
    assert told == [("not_mirrored", False), ("not_mirrored", True)]
    assert states(mirror) == states(run)


def test_a_copy_of_many_files_that_fails_has_one_short_reason() -> None:
    files = ["adapter_model.safetensors", "optimizer.pt"]
    failed = shutil.Error([(f"here/{f}", f"there/{f}", "[Errno 28] No space left") for f in files])
    assert reason_of(OSError(errno.EIO, os.strerror(errno.EIO), "there")) == "Input/output error"
    assert reason_of(failed) == "[Errno 28] No space left"


def test_copying_documents_stops_when_there_is_no_time(run: RunDir, mirror: RunDir) -> None:
    mirror.path.mkdir(parents=True)
    copy_files(run, mirror, lambda: True)
    assert not any(mirror.path.iterdir())
