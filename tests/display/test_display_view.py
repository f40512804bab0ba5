"""What a display knows of a run: the same from any file, in bounded memory."""

import json
import time
from pathlib import Path

import pytest
import synthetic_run as made
from hypothesis import given, strategies as st

from budgetrl import events
from budgetrl.account.live import LiveRun
from budgetrl.account.result import result_of
from budgetrl.account.series import LIMIT, Series
from budgetrl.rundir import HEARTBEAT, RESULT
from budgetrl.types import RunStatus


def read(run: made.RunDir) -> LiveRun:
    view = LiveRun(run)
    view.catch_up()
    return view


@given(st.lists(st.floats(0, 1), min_size=1, max_size=2000), st.integers(1, 300))
def test_curves_are_bounded_and_keep_their_range(values: list[float], width: int) -> None:
    series = Series()
    for step, value in enumerate(values, 1):
        series.add(step, value)
    drawn = series.values(width)
    assert 1 <= len(drawn) <= min(width, len(values), LIMIT + 1)
    assert min(values) - 1e-9 <= min(drawn) <= max(drawn) <= max(values) + 1e-9
    assert series.last == values[-1]


def test_a_curve_keeps_its_shape_when_most_of_its_past_is_left_out() -> None:
    whole, thinned = Series(), Series()
    for step in range(1, 10_001):
        whole.add(step, step / 10_000)
        if step % 29 == 0 or step > 9_800:
            thinned.add(step, step / 10_000)
    pairs = zip(whole.values(60), thinned.values(60), strict=True)
    assert max(abs(a - b) for a, b in pairs) < 0.02


def test_a_curve_without_measurements_has_no_points_and_none_is_not_zero() -> None:
    series = Series()
    series.add(1, None)
    assert series.values(10) == [] and series.last is None
    series.add(2, 0.5)
    series.add(3, None)
    assert series.values(10) == [0.5] and series.last is None


def test_updates_that_a_resumed_attempt_makes_again_count_once(tmp_path: Path) -> None:
    run, clock = made.create(tmp_path), made.Clock()
    with run.writer(clock.stamp) as writer:
        made.setup(writer, clock, 300)
        made.train(writer, clock, 1, 12, 75, 300)
        clock.attempt = 2
        writer.write(events.RunResumed(from_step=10, budget_s=300))
    view = read(run)
    assert view.steps == 10
    assert len(view.series["accuracy"].values(100)) == 10
    with run.writer(clock.stamp) as writer:
        made.train(writer, clock, 11, 14, 75, 300)
    assert view.catch_up() and not view.catch_up()
    assert view.steps == 14
    assert len(view.series["accuracy"].values(100)) == 14


def test_torn_foreign_and_newer_lines_do_not_stop_the_reader(tmp_path: Path) -> None:
    run = made.make_run(tmp_path, steps=3)
    newer = {"kind": "step", "schema_version": 99, "t": 1, "elapsed_s": 50.0, "step": {"n": 4}}
    unheard = {"kind": "dream", "schema_version": 99, "t": 1, "elapsed_s": 51.0}
    made.append_raw(run, '{"kind": "ste', b"\xff\xfe\x00", "[1, 2]", newer, unheard, "")
    with (run.path / "events.jsonl").open("ab") as file:
        file.write(b'{"kind": "step", "torn')
    view = read(run)
    assert view.steps == 3
    assert view.history.newer_schema
    assert view.elapsed_s(now=0.0) == 51.0


def test_a_long_run_is_read_fast_and_evenly_and_its_rare_events_are_all_kept(
    tmp_path: Path,
) -> None:
    run = made.make_run(tmp_path, steps=3000, of=6000, budget_s=20_000.0)
    exact = LiveRun(run)
    for _ in exact.read():
        pass
    view = read(run)
    assert view.steps == 3000
    assert view.elapsed_s(now=0.0) == exact.elapsed_s(now=0.0)
    assert len(view.history.checkpoints) == len(exact.history.checkpoints) == 300
    assert view.history.plan == exact.history.plan
    assert [s.step for s in view.history.steps] == [s.step for s in exact.history.steps]
    curves = [v.series["accuracy"].values(40) for v in (view, exact)]
    assert max(abs(a - b) for a, b in zip(*curves, strict=True)) < 0.05


def test_status_follows_lock_heartbeat_and_end(tmp_path: Path) -> None:
    run, clock = made.create(tmp_path), made.Clock()
    now = time.time()
    made.beat(run, clock, now)
    assert read(run).status_at(now) is RunStatus.RUNNING, "the worker is starting"
    assert read(run).status_at(now + 60) is RunStatus.CRASHED
    with made.running(run, clock):
        assert read(run).status_at(now + 60) is RunStatus.RUNNING
    ends = {"budget": RunStatus.FINISHED, "interrupted": RunStatus.INTERRUPTED}
    for reason, status in ends.items():
        assert read(made.make_run(tmp_path, steps=2, end=reason)).status_at(now) is status


def test_the_clock_goes_on_between_events_while_the_heart_beats(tmp_path: Path) -> None:
    run, clock = made.create(tmp_path), made.Clock(10.0)
    made.beat(run, clock, 1000.0)
    view = read(run)
    assert view.elapsed_s(now=1002.5) == pytest.approx(12.5)
    assert view.elapsed_s(now=1100.0) == 10.0, "a dead supervisor pays nothing"
    assert view.elapsed_s(now=900.0) == 10.0, "a clock that was set back"


def test_broken_or_absent_files_are_empty(tmp_path: Path) -> None:
    run = made.make_run(tmp_path, steps=1, end="budget")
    (run.path / RESULT).write_text("{not json")
    (run.path / HEARTBEAT).write_text(json.dumps([1, 2]))
    (run.path / "plan.json").unlink()
    view = read(run)
    assert result_of(view)["steps"] == 1, "as much as the events tell"
    assert view.file(HEARTBEAT) == {} and view.plan is None
    assert view.budget_s == 300.0
