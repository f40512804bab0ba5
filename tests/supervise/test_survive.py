"""Damaged files, wrong clocks, closed pipes and busy machines: what a run survives, and says."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import pytest
from run_builder import Story, Suite, build_run, write_eval

from budgetrl.account.ending import differences, stored_results, unjudged
from budgetrl.account.evaluated import read_run
from budgetrl.account.run import Account, number
from budgetrl.budget import Budget, Limits, affordable_rounds
from budgetrl.damage import way_on
from budgetrl.display.base import NoDisplay
from budgetrl.display.runs_table import run_json, runs
from budgetrl.display.watch import print_frame
from budgetrl.errors import OUT_OF_MEMORY_EXIT, ExitCode, NewerFormatError, RunDirError
from budgetrl.estimation.closing import closing_s, known_closing_work_s, store_closing_work_s
from budgetrl.evaluation.claim import claimed
from budgetrl.evaluation.mending import refuse_newer, set_aside, set_aside_damaged
from budgetrl.evaluation.run import evaluate
from budgetrl.evaluation.suite import PromptedProblem, Suite as AskedSuite
from budgetrl.events import parse
from budgetrl.export.folder import new_folder
from budgetrl.export.rows import dump_recipe
from budgetrl.files import clear_temporary, write_atomic
from budgetrl.forecast import Forecaster
from budgetrl.history import Followed, read_history
from budgetrl.lean_steps import lean_step
from budgetrl.losses import find_losses
from budgetrl.pace import Pace, slowness
from budgetrl.plan import create_run, make_plan
from budgetrl.processor import boot_id
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.training_tables import Reward
from budgetrl.report.card import model_card
from budgetrl.report.sections import run_document
from budgetrl.report.several import several_document
from budgetrl.retention import dropped_by, is_kept, num_kept
from budgetrl.rundir import (
    HEARTBEAT,
    MANIFEST,
    PLAN,
    RESOLVED,
    SUPERVISOR_LOCK,
    RunDir,
    open_run,
)
from budgetrl.study.specs import Asked
from budgetrl.study.state import StudyDir, Sweep, open_study
from budgetrl.supervise.closing import Closing
from budgetrl.supervise.resume import _paid_at_checkpoint
from budgetrl.supervise.run import _can_restart
from budgetrl.supervise.worker import Signals, Worker
from budgetrl.training.attempt import Attempt
from budgetrl.training.log import _drop_unkept
from budgetrl.types import Problem, RunStatus, StopReason

STEPS = 6
SUITE = Suite(problems=5, samples=2, ks=(1,))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A finished run of six updates."""
    return build_run(tmp_path / "runs", Story(steps=STEPS, suites={"heldout": SUITE}))


def cut(file: Path, size: int) -> None:
    os.truncate(file, size)


def drop_steps(run: RunDir, *dropped: int) -> None:
    """Take the events of updates away, as a cut and a resumption do."""
    file = run.path / "events.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    kept = [e for e in lines if e["kind"] != "step" or e["step"] not in dropped]
    file.write_text("".join(json.dumps(event) + "\n" for event in kept))


# --- damaged evaluations


class Nobody:
    """A policy and a grader that must not be asked."""

    def generate(self, *_: Any) -> Any:
        raise AssertionError("completions are made again")

    def grade(self, rows: list[Any]) -> list[Any]:
        assert rows == []
        return []


def test_a_damaged_baseline_is_added_up_again_from_its_completions(run: RunDir) -> None:
    file = run.path / "evals" / "heldout" / "baseline.json"
    before = stored_results(run.path / "evals", "baseline")["heldout"]
    cut(file, 300)
    assert stored_results(run.path / "evals", "baseline") == {}, "and no error while it is damaged"
    assert differences(run.path / "evals", ["heldout"]) == {}
    assert "added up" in set_aside_damaged(run.path / "evals")[0]
    assert not file.exists() and file.with_suffix(".jsonl").exists()
    items = [
        PromptedProblem(Problem(f"heldout-{i}", "", str(12 - i)), "", ())
        for i in range(SUITE.problems)
    ]
    nobody: Any = Nobody()
    again = evaluate(
        nobody, AskedSuite(items, before.protocol, 2, (1,), 8), grader=nobody,
        folder=file.parent, when="baseline", step=0, policy_id="step 0",
    )  # fmt: skip
    assert again is not None and again.pass_at == before.pass_at


def test_a_damaged_final_evaluation_is_made_again_whole(run: RunDir) -> None:
    folder = run.path / "evals" / "heldout"
    cut(folder / "final.json", 10)
    assert "made again" in set_aside_damaged(run.path / "evals")[0]
    assert sorted(f.name for f in folder.iterdir() if "final" in f.name) == [
        "final.json.damaged",
        "final.jsonl.damaged",
    ]
    assert set_aside_damaged(run.path / "evals") == []


def test_what_a_newer_version_wrote_is_refused_and_not_set_aside(run: RunDir) -> None:
    file = run.path / "evals" / "heldout" / "baseline.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    with pytest.raises(NewerFormatError):
        refuse_newer(run.path / "evals")


@pytest.mark.parametrize(
    ("exit_code", "again"), [(1, False), (2, False), (-9, True), (OUT_OF_MEMORY_EXIT, True)]
)
def test_an_exception_is_not_met_twice(run: RunDir, exit_code: int, again: bool) -> None:
    now = time.monotonic()
    made = make_plan(load_recipe("quickstart"), Limits(3600))
    attempt = Attempt(made.budget, now, 0.0, reserved_s=1.0, save_s=0.1, grace_s=20.0)
    assert _can_restart(attempt, Signals(), set(), 0, exit_code) is again
    assert not _can_restart(attempt, Signals(), {0}, 0, exit_code), "no new update since"


# --- what is missing is said


def test_lost_events_are_said_by_report_and_runs(run: RunDir) -> None:
    assert find_losses(run, read_history(run)).sentences() == []
    drop_steps(run, 1, 2, 3)
    losses = find_losses(run, read_history(run))
    assert losses.events == (1, 2, 3)
    assert "updates 1 to 3" in losses.sentences()[0]
    assert any("updates 1 to 3" in notice for notice in run_document(read_run(run)).notices)
    listed = run_json(runs(run.path.parent)[0])
    assert listed["steps"] == STEPS and "updates 1 to 3" in listed["missing"][0]


def test_a_cut_end_of_the_events_is_known_from_the_completions(run: RunDir) -> None:
    file = run.path / "events.jsonl"
    whole = file.read_bytes()
    cut(file, whole.index(b'"step": 4,') - 200)
    losses = find_losses(run, read_history(run))
    assert losses.last == STEPS and set(losses.events) >= {4, 5, 6}
    assert run_json(runs(run.path.parent)[0])["steps"] == STEPS


def test_updates_that_are_made_again_are_not_lost(run: RunDir) -> None:
    file = run.path / "events.jsonl"
    events = [json.loads(line) for line in file.read_text().splitlines()]
    kept = [e for e in events if e["kind"] != "run_finished" and e.get("step", 0) <= 4]
    resumed = {"kind": "run_resumed", "from_step": 2, "budget_s": 9.0, "reached": STEPS}
    lines = [json.dumps(event) + "\n" for event in [*kept, kept[0] | resumed]]
    file.write_text("".join(lines))
    assert find_losses(run, read_history(run)).events == ()
    drop_steps(run, 1)
    losses = find_losses(run, read_history(run))
    assert losses.events == (1,)
    assert losses.up_to(0).sentences() == []


def test_cut_or_missing_completions_are_said(run: RunDir) -> None:
    file = run.path / "events.jsonl"
    events = [json.loads(line) for line in file.read_text().splitlines()]
    for event in events:
        if event["kind"] == "step" and run.completions_file(event["step"]).exists():
            event["stored_bytes"] = run.completions_file(event["step"]).stat().st_size
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert find_losses(run, read_history(run)).completions == ()
    cut(run.completions_file(1), 500)
    run.completions_file(STEPS).unlink()
    losses = find_losses(run, read_history(run))
    assert losses.completions == (1, STEPS)
    assert "updates 1 and 6 are cut or gone" in losses.sentences()[0]
    assert "cut or gone" in run_json(runs(run.path.parent)[0])["missing"][0]
    document = run.read_json(RESOLVED)
    document["recipe"].setdefault("checkpoint", {})["keep_completions"] = 2
    run.write_json(RESOLVED, document)
    assert find_losses(run, read_history(run)).completions == (1, STEPS), "one is there, but cut"
    run.completions_file(1).unlink()
    assert find_losses(run, read_history(run)).completions == (STEPS,), "one went by the rule"


def test_training_time_survives_in_the_heartbeat(run: RunDir) -> None:
    told = sum(sum(step.phase_s.values()) for step in read_history(run).steps)
    run.write_json(HEARTBEAT, {"paid_s": 9.0, "train_s": told, "attempt": 3})
    drop_steps(run, *range(1, STEPS + 1))
    account = Account(run, read_history(run))
    assert account.trained_s == pytest.approx(told)
    assert account.beat("attempt") == 3.0


@pytest.mark.parametrize(
    ("rule", "kept"), [("all", 50), (7, 7), ("sampled", 10 + 3 + 10), ("unheard", 50)]
)
def test_retention_keeps_what_it_says_and_drops_each_once(rule: Any, kept: int) -> None:
    on_disk: set[int] = set()
    for step in range(1, 51):
        on_disk.add(step)
        old = dropped_by(rule, step)
        if old is not None:
            on_disk.remove(old)
    assert len(on_disk) == kept == num_kept(rule, 50)
    assert all(is_kept(rule, step, 50) for step in on_disk)


# --- who lives


def test_the_lock_decides_and_a_heartbeat_of_the_future_is_stale(run: RunDir) -> None:
    def status(t: float, boot: str | None) -> RunStatus:
        run.write_json(HEARTBEAT, {"paid_s": 1.0, "attempt": 1, "t": t, "boot": boot})
        return run.status_of(None)

    now = time.time()
    assert status(now, boot_id()) is RunStatus.CRASHED, "a copy of a running run, on this machine"
    assert status(now - 1, "elsewhere") is RunStatus.RUNNING
    for ahead_s in (60, 86400):
        assert status(now + ahead_s, "elsewhere") is RunStatus.CRASHED
        assert status(now + ahead_s, boot_id()) is RunStatus.CRASHED
    with run.supervised():
        assert status(now - 99, boot_id()) is RunStatus.RUNNING
    assert (run.path / SUPERVISOR_LOCK).exists()


# --- budgets on a busy machine


def test_rounds_that_leave_an_update() -> None:
    assert affordable_rounds(10.0, 1.0, 2.0, 0.0, wanted=4) == 3
    assert affordable_rounds(100.0, 1.0, 2.0, 0.0, wanted=4) == 4
    assert affordable_rounds(1.9, 1.0, 2.0, 0.0, wanted=4) == 0
    assert affordable_rounds(4.0, 1.0, 2.0, 0.0, wanted=4) == 0, "a round before and after"


def test_a_slow_baseline_slows_the_forecast_and_shortens_the_reserve_until_an_update_is_made() -> (
    None
):
    forecaster = Forecaster(2.0, 8.0, 40.0, save_s=1.0, rounds=4)
    forecaster.observe_baseline(18.0, rounds=3, tokens_mean=40.0)  # thrice as slow as planned
    assert forecaster.first_step_s == 6.0
    assert forecaster.reserve_s == pytest.approx(1.3 * 6.0 + 1.0), "one round"
    forecaster.observe(5.0, 3.0, 40.0)
    assert forecaster.reserve_s == pytest.approx(1.3 * 18.0 + 1.0)


def test_a_run_that_could_not_be_judged_says_so() -> None:
    recipe = load_recipe("quickstart").recipe
    assert unjudged(recipe, StopReason.BUDGET, {})
    assert unjudged(recipe, StopReason.BUDGET, None)
    assert not unjudged(recipe, StopReason.INTERRUPTED, None)
    without = recipe.model_copy(update={"eval": ()})
    assert not unjudged(without, StopReason.BUDGET, None)


def test_the_end_is_measured_and_longer_where_work_is_slow(tmp_path: Path) -> None:
    assert closing_s(0.5, 3.0) == pytest.approx(3 * closing_s(0.5, 1.0))
    store_closing_work_s(tmp_path, 1.0)
    assert known_closing_work_s(tmp_path) == 1.0
    store_closing_work_s(tmp_path, 0.5)
    assert known_closing_work_s(tmp_path) == 0.9, "a shorter end counts less"
    (tmp_path / "closing.json").write_text("{")
    assert known_closing_work_s(tmp_path) == 0.5


def test_pace_is_at_least_that_of_a_machine_alone() -> None:
    assert slowness() >= 1.0
    pace = Pace()
    pace.watch(os.getpid())
    pace.observe()
    assert pace.slow >= 1.0
    assert slowness(2**22 + 1) == 1.0, "no such process"


# --- files


def test_recipe_and_plan_are_their_owners_alone_and_the_command_tells_no_secret(
    tmp_path: Path,
) -> None:
    planned = make_plan(load_recipe("quickstart"), Limits(3600))
    told = ["budgetrl", "run", "quickstart", "--on-finish", "curl https://x.io/h/T0KEN"]
    run = create_run(planned, tmp_path, told)
    for name in ("recipe.toml", RESOLVED, PLAN):
        assert (run.path / name).stat().st_mode & 0o777 == 0o600
    assert run.read_json(MANIFEST)["command"].endswith("--on-finish [secret]")
    assert all(b"T0KEN" not in f.read_bytes() for f in run.path.rglob("*") if f.is_file())


def test_half_files_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".a.bin.4194399.tmp", tmp_path / f".b.json.{os.getpid()}.tmp"
    for file in (dead, alive, tmp_path / ".old.tmp"):
        file.write_text("x")
    clear_temporary(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == [alive.name]
    write_atomic(tmp_path / "c", "y")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o644 & ~mask


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_all_files_of_an_exported_folder_have_one_mode(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with new_folder(tmp_path / "out") as draft:
            (draft / "sub").mkdir()
            for name in ("model.safetensors", "sub/part.safetensors"):
                (draft / name).touch(0o600)  # as safetensors does
            write_atomic(draft / "config.json", "{}")
            write_atomic(draft / "run.sh", "true", 0o755)
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "out").rglob("*.*")}
    assert modes.pop("run.sh") == 0o755 & ~mask
    assert set(modes.values()) == {0o644 & ~mask} and len(modes) == 3


def test_a_damaged_file_is_named_with_a_way_on(run: RunDir, tmp_path: Path) -> None:
    assert "budgetrl report" in way_on(run.path, PLAN)
    document = run.read_json(RESOLVED)
    document["recipe"]["checkpoint"] = {"mirror": str(tmp_path / "second")}
    run.write_json(RESOLVED, document)
    copy = tmp_path / "second" / run.name
    copy.mkdir(parents=True)
    (copy / PLAN).write_text("{}")
    assert f"cp {copy / PLAN} " in way_on(run.path, PLAN)
    cut(run.path / RESOLVED, 20)
    (run.path / "recipe.toml").write_text(f"[checkpoint]\nmirror = '{tmp_path / 'second'}'\n")
    assert "budgetrl resume" in way_on(run.path, PLAN), "known from the other recipe file"


# --- long runs


def test_lean_steps_have_the_numbers_of_step_events(run: RunDir) -> None:
    lines = [line for line in run.lines() if b'"kind": "step"' in line]
    assert len(lines) == STEPS
    for line in lines:
        whole, lean = parse(line), lean_step(line)
        assert whole is not None and lean is not None and type(lean) is not type(whole)
        numbers = whole.model_dump(exclude={"schema_version", "kind", "sample"})
        assert lean.model_dump() == numbers


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"step": 1,', b'"step": "1",'),
        (b'"schema_version": 1', b'"schema_version": 2'),
        (b'"learning_rate": 0.001', b'"learning_rate": 1e999'),
        (b'"kind": "step"', b'"kind": "stop"'),
        (b'"tokens": ', b'"token": '),
    ],
)
def test_unusual_lines_are_left_to_the_careful_reader(run: RunDir, old: bytes, new: bytes) -> None:
    line = next(line for line in run.lines() if b'"kind": "step"' in line)
    assert old in line
    assert lean_step(line.replace(old, new, 1)) is None


def test_a_run_that_goes_on_is_read_once(run: RunDir) -> None:
    file = run.path / "events.jsonl"
    whole = file.read_bytes()
    followed, seen = Followed(run), []
    for size in (*range(0, len(whole), 700), len(whole)):
        file.write_bytes(whole[:size])
        seen += [step.step for step in followed.read()]
    assert seen == list(range(1, STEPS + 1))
    assert followed.read() == []
    assert followed.history == read_history(run)


def test_what_is_told_of_updates_takes_eight_bytes_each(run: RunDir) -> None:
    history = read_history(run)
    assert isinstance(history.told, array) and len(history.told) == STEPS


# --- what somebody tried next


def lines_of(run: RunDir) -> list[bytes]:
    return (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)


def test_doubled_lines_count_once(run: RunDir) -> None:
    whole = read_history(run)
    doubled = [line for line in lines_of(run) for _ in range(2)]
    (run.path / "events.jsonl").write_bytes(b"".join([*doubled, *lines_of(run)]))
    assert [step.step for step in read_history(run).steps] == [*range(1, STEPS + 1)]
    assert Account(run, read_history(run)).trained_s == Account(run, whole).trained_s
    assert runs(run.path.parent)[0].steps == STEPS


def test_updates_count_once_where_the_line_of_a_resumption_is_gone(run: RunDir) -> None:
    again = [
        json.dumps(json.loads(line) | {"attempt": 2}).encode() + b"\n"
        for line in lines_of(run)
        if b'"kind": "step"' in line and json.loads(line)["step"] > 3
    ]
    kept = [line for line in lines_of(run) if b"run_finished" not in line]
    (run.path / "events.jsonl").write_bytes(b"".join([*kept, *again]))
    history = read_history(run)
    assert [step.step for step in history.steps] == [*range(1, STEPS + 1)]
    assert {step.attempt for step in history.steps[3:]} == {2}


@pytest.mark.parametrize("when", ["baseline", "final"])
def test_an_evaluation_whose_line_is_gone_is_shown_as_it_is_stored(run: RunDir, when: str) -> None:
    whole = read_run(run)
    name = f'"when": "{when}"'.encode()
    kept = [
        line for line in lines_of(run) if b'"kind": "evaluation"' not in line or name not in line
    ]
    assert len(kept) < len(lines_of(run))
    (run.path / "events.jsonl").write_bytes(b"".join(kept))
    found = read_run(run)
    assert found.evaluation(when, "heldout").pass_at == whole.evaluation(when, "heldout").pass_at  # type: ignore[union-attr]
    assert found.differences == whole.differences
    assert any(f"evals/heldout/{when}.json" in note for note in found.notes)
    assert whole.notes == []


def test_an_end_that_only_the_result_tells_of_is_said(run: RunDir) -> None:
    run.write_json("result.json", {"attempts": 1, "steps": STEPS})
    assert not find_losses(run, read_history(run)).end
    kept = [line for line in lines_of(run) if b"run_finished" not in line]
    (run.path / "events.jsonl").write_bytes(b"".join(kept))
    assert "how the run ended stands in" in find_losses(run, read_history(run)).sentences()[0]
    run.write_json("result.json", {"attempts": 0, "steps": STEPS})
    assert not find_losses(run, read_history(run)).end, "of an earlier attempt"


def test_a_report_of_several_runs_says_what_each_of_them_lacks(run: RunDir, tmp_path: Path) -> None:
    other = build_run(tmp_path / "others", Story(steps=STEPS, seed=2, suites={"heldout": SUITE}))
    drop_steps(run, 2)
    notices = several_document([read_run(run), read_run(other)]).notices
    assert next(notice for notice in notices if "update 2" in notice).startswith(f"{run.name}: ")


def test_completions_that_went_by_an_earlier_rule_are_not_lost(run: RunDir) -> None:
    first = next(iter(lines_of(run)))
    events = [json.loads(line) for line in lines_of(run)]
    for event in events:
        if event["kind"] == "step":
            event["stored_bytes"] = 7
    stamp = {
        key: json.loads(first)[key] for key in ("schema_version", "t", "elapsed_s", "spent_usd")
    }
    changed = {"kind": "changed", "key": "checkpoint.keep_completions", "from": 2, "to": "all"}
    resumed = {"kind": "run_resumed", "from_step": 4, "budget_s": 9.0, "reached": 4}
    at = 1 + next(n for n, event in enumerate(events) if event.get("step") == 4)
    events[at:at] = [stamp | {"attempt": 2} | one for one in (resumed, changed)]
    (run.path / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    for step in range(1, STEPS + 1):
        run.completions_file(step).write_text("x" * 7)
        if step <= 2:
            run.drop_completions(step)
    assert find_losses(run, read_history(run)).completions == ()
    run.drop_completions(3)
    losses = find_losses(run, read_history(run))
    assert losses.completions == (3,) and "which cannot be read" not in losses.sentences()[0]
    (run.path / RESOLVED).write_text("{")
    assert (
        "keep_completions, which cannot be read"
        in find_losses(run, read_history(run)).sentences()[0]
    )


def test_a_resumed_run_keeps_the_completions_that_its_rule_says(run: RunDir) -> None:
    for step in range(1, STEPS + 1):
        run.write_completions(step, [{"step": step}])
    recipe = load_recipe("quickstart", ["checkpoint.keep_completions=2"]).recipe
    _drop_unkept(run, recipe, 4)
    assert sorted(run.stored_completions()) == [3, 4, 5, 6], "5 and 6 are made again"


def test_a_damaged_evaluation_of_any_kind_of_file_is_set_aside_each_time(run: RunDir) -> None:
    file = run.path / "evals" / "heldout" / "baseline.json"
    whole = json.loads(file.read_text())
    hot = json.dumps(whole | {"protocol": whole["protocol"] | {"temperature": "hot"}}).encode()
    for content in (b"", b"[]", b'{"schema_version": "1"}', b"\xff", None, b"{", None, hot):
        file.unlink(missing_ok=True)
        if content is None:
            file.mkdir()
        else:
            file.write_bytes(content)
        assert "baseline.json is damaged" in set_aside_damaged(run.evals)[0], content
        assert not file.exists() and file.with_suffix(".jsonl").is_file()


def test_eval_sets_its_own_damaged_result_aside(tmp_path: Path) -> None:
    file = tmp_path / "eval-0a1b2c3d.json"
    assert not set_aside(file)
    file.write_text("{")
    assert set_aside(file) and not file.exists()


def test_everything_half_written_goes_wherever_it_lies(run: RunDir) -> None:
    places = ("adapter", "report/figures", "evals/heldout", "completions", ".")
    for place in places:
        (run.path / place).mkdir(parents=True, exist_ok=True)
        (run.path / place / ".x.json.4194399.tmp").touch()
    for folder in (".merged.4194399.tmp", ".tmp-preflight", "checkpoints/.tmp-step_000001-3"):
        (run.path / folder).mkdir(parents=True)
        (run.path / folder / "half").touch()
    run.clear_temporary()
    assert [p for p in run.path.rglob("*") if "tmp" in p.name] == []


def test_an_export_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    dead, other = tmp_path / ".out.4194399.tmp", tmp_path / ".out2.4194399.tmp"
    dead.mkdir()
    other.mkdir()
    with new_folder(tmp_path / "out") as draft:
        (draft / "file").touch()
    assert sorted(p.name for p in tmp_path.iterdir()) == [other.name, "out"]


def test_completions_are_stored_where_somebody_deleted_the_folder(run: RunDir) -> None:
    for file in (run.path / "completions").iterdir():
        file.unlink()
    (run.path / "completions").rmdir()
    assert run.write_completions(7, [{"step": 7}]) == run.stored_completions()[7]


@pytest.mark.parametrize("wrong", [None, 3, [None]])
def test_files_of_wrong_types_are_shown_and_exported_all_the_same(run: RunDir, wrong: Any) -> None:
    manifest, resolved = run.read_json(MANIFEST), run.read_json(RESOLVED)
    names = ("data", "engine", "gpu", "hub", "machine", "versions")
    run.write_json(MANIFEST, manifest | dict.fromkeys(names, wrong))
    tables = ("budget", "data", "engine", "lora", "model", "prompt", "rewards", "schedule")
    for document in (resolved, {"recipe": resolved["recipe"] | dict.fromkeys(tables, wrong)}):
        run.write_json(RESOLVED, document)
        assert "base model" in model_card(read_run(run), STEPS)
        print_frame(run, io.StringIO())
        run_document(read_run(run))


def test_what_was_paid_is_known_from_the_checkpoint_where_all_else_is_gone(run: RunDir) -> None:
    assert _paid_at_checkpoint(run) == 0.0, "no checkpoint"
    with run.new_checkpoint(3) as folder:
        (folder / "state.json").write_text('{"paid_s": 41.5}')
    assert _paid_at_checkpoint(run) == 41.5


@pytest.mark.parametrize("name", ["completions", "evals", "checkpoints"])
def test_a_file_in_the_place_of_a_folder_stops_no_reader(run: RunDir, name: str) -> None:
    shutil.rmtree(run.path / name, ignore_errors=True)
    (run.path / name).write_text("x")
    assert run_json(runs(run.path.parent)[0])["steps"] == STEPS
    run_document(read_run(run))
    print_frame(run, io.StringIO())


def test_a_run_without_its_recipe_is_named_as_one(run: RunDir) -> None:
    (run.path / RESOLVED).unlink()
    with pytest.raises(RunDirError, match=r"recipe\.resolved\.json is gone") as caught:
        open_run(run.path)
    assert "copy" in caught.value.hint and "budgetrl report" not in caught.value.hint


@pytest.mark.parametrize("name", [MANIFEST, PLAN, HEARTBEAT])
def test_a_folder_in_the_place_of_a_file_is_told_with_a_way_on(run: RunDir, name: str) -> None:
    (run.path / name).unlink()
    (run.path / name).mkdir()
    with pytest.raises(RunDirError) as caught:
        run.read_json(name)
    assert name in caught.value.message and "copy" in caught.value.hint


def test_numbers_beyond_all_bounds_are_none() -> None:
    assert [number(x) for x in (10**400, 1e308, float("inf"), True)] == [None, 1e308, None, None]


def test_what_a_sweep_was_asked_for_is_its_owners_alone(tmp_path: Path) -> None:
    asked = Asked("q", {}, sets=("rewards.m:f.parameters.api_key=abc",))
    study = StudyDir.create(tmp_path / "s", Sweep(asked, Budget(9.0), [], 1.0, {}))
    file = study.path / "study.json"
    assert file.stat().st_mode & 0o777 == 0o600
    for content in (file.read_text()[:50], "[1]", "", '{"schema_version": 1, "config": 3}'):
        file.write_text(content)
        with pytest.raises(RunDirError, match=r"study\.json: is damaged") as caught:
            open_study(study.path)
        assert "budgetrl report" in caught.value.hint


def test_an_exported_recipe_has_no_secret() -> None:
    recipe = load_recipe("quickstart").recipe
    place = {"at": "https://u:pw@h.io/v1", "api_key": "k", "model": "m"}
    judge = Reward(name="judges:ask", parameters=place)
    text = dump_recipe(recipe.model_copy(update={"rewards": (judge,)}))
    shown = {"at": "https://[secret]@h.io/v1", "api_key": "[secret]", "model": "m"}
    assert json.loads(text)["rewards"][0]["parameters"] == shown
    assert json.loads(text)["model"] == recipe.model_dump(mode="json")["model"]


def test_the_command_at_the_end_stands_in_no_command_line(run: RunDir) -> None:
    """wandb writes its program's arguments into the run's folder, and sends them."""
    now = time.monotonic()
    budget = make_plan(load_recipe("quickstart"), Limits(3600)).budget
    attempt = Attempt(budget, now, 0.0, 1.0, 0.1, 20.0, on_finish="curl https://x.io/T0KEN")
    worker = Worker(run, attempt, Signals(), NoDisplay(), Closing())
    assert "T0KEN" not in " ".join(worker._command())
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        worker._hand_over(cat)
        assert cat.stdout is not None
        assert Attempt.from_json(cat.stdout.read().decode()).on_finish == attempt.on_finish


# --- commands


def test_the_same_evaluation_is_made_by_one_process_at_a_time(tmp_path: Path) -> None:
    spec = load_recipe("quickstart").recipe.eval[0]
    with claimed(tmp_path, "step 4", spec):
        with pytest.raises(RunDirError, match="another process"), claimed(tmp_path, "step 4", spec):
            pass
        with claimed(tmp_path, "step 6", spec):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_ends_every_query_alike() -> None:
    for query in ("--help", "recipes list", "estimate deepscaler_r256 --gpu A40"):
        command = f"{sys.executable} -m budgetrl {query} | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "0" and done.stderr == "", query


def test_a_refusal_waits_for_no_thread_and_asks_nobody() -> None:
    code = (
        "import sys, threading, time, types; sys.modules['torch'] = types.ModuleType('torch');"
        "threading.Thread(target=time.sleep, args=(300,)).start();"
        "sys.argv = ['budgetrl', 'eval', '/no/such/model'];"
        "from budgetrl.cli import main; raise SystemExit(main())"
    )
    reader, _writer = os.pipe()  # a standard input that never ends
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=reader, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == ExitCode.USER and "/no/such/model" in done.stderr


def test_the_evaluations_written_here_are_whole(run: RunDir) -> None:
    """The builder itself: else nothing above means anything."""
    folder = run.path / "evals" / "heldout"
    write_eval(folder, "final", Story(steps=STEPS), "heldout", SUITE, STEPS)
    assert set_aside_damaged(run.path / "evals") == []
