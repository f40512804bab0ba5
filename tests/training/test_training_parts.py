"""The small parts of a training: clock, schedule, recorder, alarms, log and stops."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_clock import FakeClock
from hypothesis import given, strategies as st
from sample_events import step_event

from budgetrl.budget import Budget
from budgetrl.engine.base import Rollout
from budgetrl.events import Phase
from budgetrl.ledger import Ledger
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Schedule
from budgetrl.rundir import RunDir
from budgetrl.training.alarms import WINDOW, Alarms, no_signal
from budgetrl.training.clock import PHASES, PhaseClock
from budgetrl.training.log import RunLog, stamp_of
from budgetrl.training.recorder import StepRecord, has_signal
from budgetrl.training.schedule import learning_rate, rate_factor
from budgetrl.training.stopper import Stopper
from budgetrl.types import Completion, Problem, RewardBreakdown, Verdict

# --- clock

moves = st.lists(st.tuples(st.sampled_from([*PHASES, "elsewhere", "leave"]), st.integers(0, 5)))


@given(st.lists(moves, min_size=1, max_size=3))
def test_phases_add_up_to_the_wall_however_they_are_nested(updates: list[Any]) -> None:
    """An update is a walk: into phases, out of them again, and some seconds after each move."""
    clock = FakeClock(100.0)
    phases = PhaseClock(clock)
    for update in updates:
        before = clock.now
        own = dict.fromkeys((*PHASES, "elsewhere", "other"), 0.0)
        inside: list[tuple[str, Any]] = []
        for move, seconds in [*update, *[("leave", 1)] * len(update)]:
            if move != "leave":
                inside.append((move, phases.time(move)))
                inside[-1][1].__enter__()
            elif inside:
                inside.pop()[1].__exit__(None, None, None)
            own[inside[-1][0] if inside else "other"] += seconds
            clock.now += seconds
        taken = phases.take()
        assert sum(taken.values()) == clock.now - before - own.pop("elsewhere")
        assert taken == own


def test_a_phase_that_fails_is_counted_too() -> None:
    clock = FakeClock()
    phases = PhaseClock(clock)
    with pytest.raises(OSError), phases.time("rollout"), phases.elsewhere():
        clock.now += 3.0
        raise OSError
    with phases.time("update"):
        clock.now += 1.0
    assert phases.take() == {
        "rollout": 0.0,
        "reward": 0.0,
        "logprob": 0.0,
        "update": 1.0,
        "other": 0.0,
    }


# --- schedule


def schedule(**values: Any) -> Schedule:
    return Schedule.model_validate(
        {"learning_rate": 1e-3, "stop_after_steps": 100} | values, strict=False
    )


@pytest.mark.parametrize(
    ("values", "factors"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"warmup_share": 0.5}, [0, 0.5, 1, 1, 1]),
        ({"shape": "linear"}, [1, 0.75, 0.5, 0.25, 0]),
        ({"shape": "linear", "warmup_share": 0.5, "min_share": 0.2}, [0, 0.5, 1, 0.6, 0.2]),
        ({"shape": "cosine"}, [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0]),
        ({"shape": "cosine", "min_share": 0.1}, [1, 0.1 + 0.9 * 0.8535534, 0.55, 0.2318019, 0.1]),
    ],
)
def test_the_rate_warms_up_and_falls_as_the_recipe_says(
    values: dict[str, Any], factors: list[float]
) -> None:
    made = schedule(**values)
    found = [rate_factor(made, progress) for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert found == pytest.approx(factors, abs=1e-6)
    assert rate_factor(made, 1.7) == pytest.approx(factors[-1])
    assert rate_factor(made, -0.5) == pytest.approx(factors[0])


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["constant", "linear", "cosine"]))
def test_the_rate_stays_between_its_least_share_and_one_after_the_warmup(
    warmup: float, least: float, shape: str
) -> None:
    made = schedule(shape=shape, warmup_share=warmup, min_share=least)
    factors = [rate_factor(made, i / 50) for i in range(51)]
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors)
    after = [factor for i, factor in enumerate(factors) if i / 50 >= warmup]
    assert after == sorted(after, reverse=True)
    assert all(factor >= least - 1e-12 for factor in after)


def test_progress_by_steps_follows_schedule_steps_before_stop_after_steps() -> None:
    linear = {"shape": "linear", "learning_rate": 1.0}
    assert learning_rate(schedule(**linear), 25, 0.9) == 0.75
    assert learning_rate(schedule(**linear, schedule_steps=200), 25, 0.9) == 0.875
    endless = schedule(stop_after_steps=None, learning_rate=1.0)
    assert learning_rate(endless, 25, 0.9) == 1.0


# --- recorder


def record(*groups: str, step: int = 1, truncated: int = 0, **components: float) -> StepRecord:
    """Groups as letters: c(orrect), w(rong), u(nparsable), t(imeout), e(rror)."""
    verdicts = [Verdict(next(v for v in Verdict if v[0] == one)) for g in groups for one in g]
    rewards = [None if v is Verdict.ERROR else float(v is Verdict.CORRECT) for v in verdicts]
    return StepRecord(
        step=step,
        group_size=len(groups[0]),
        problems=[Problem(f"p{i}", f"text {i}", "1") for i in range(len(groups))],
        completions=[Completion(f"c{i}", 10 + i, i < truncated) for i in range(len(verdicts))],
        breakdowns=[
            RewardBreakdown(reward, {"accuracy": reward, **components}, verdict, "1")
            for reward, verdict in zip(rewards, verdicts, strict=True)
        ],
        advantages=[0.5] * len(verdicts),
        entropy_sum=11.5,
    )


@pytest.mark.parametrize(
    ("group", "signal"),
    [(group, True) for group in ("cw", "cu", "ct", "cwe")]
    + [(group, False) for group in ("cc", "wu", "wt", "ee", "ce", "we")],
)
def test_a_group_has_signal_if_right_and_not_right_occur_leaving_errors_out(
    group: str, signal: bool
) -> None:
    assert has_signal(record(group).breakdowns) is signal


def test_the_facts_of_a_step_are_means_over_what_was_measured() -> None:
    fields = record("cwut", "ccee", truncated=2).event_fields()
    expected = {
        "groups": 2, "groups_with_signal": 1, "completions": 8, "tokens": 108,
        "reward_mean": 0.5, "reward_std": 0.5, "accuracy_mean": 0.5, "format_mean": None,
        "completion_tokens_mean": 13.5, "completion_tokens_max": 17, "truncated_share": 0.25,
        "entropy": 11.5 / 108, "grader": {"correct": 3, "wrong": 1, "unparsable": 1, "timeout": 1,
                                          "error": 2},
    }  # fmt: skip
    assert {key: fields[key] for key in expected} == expected
    assert fields.keys() <= step_event(1).model_dump().keys()


def test_what_nobody_could_grade_has_no_mean() -> None:
    fields = record("ee", "ee").event_fields()
    assert (fields["reward_mean"], fields["reward_std"], fields["accuracy_mean"]) == (None,) * 3


def test_every_completion_is_stored_with_its_problem_and_advantage() -> None:
    rows = record("cw", "we", format=0.0).rows()
    assert [(r["problem_id"], r["completion"], r["verdict"], r["reward"]) for r in rows] == [
        ("p0", "c0", "correct", 1.0),
        ("p0", "c1", "wrong", 0.0),
        ("p1", "c2", "wrong", 0.0),
        ("p1", "c3", "error", None),
    ]
    assert rows[3]["components"] == {"accuracy": None, "format": 0.0}
    assert {row["advantage"] for row in rows} == {0.5}


def test_the_sample_for_the_live_view_changes_and_is_short() -> None:
    made = [record("cwut", "ccee", step=step) for step in range(1, 9)]
    assert len({one.sample()["completion"] for one in made}) == 8
    long = record("cw")
    long.completions = [Completion("x" * 5000, 9, False)] * 2
    assert len(long.sample()["completion"]) == 600


# --- alarms


def observed(alarms: Alarms, *records: StepRecord) -> list[list[tuple[str, bool]]]:
    return [[(a.code, a.resolved) for a in alarms.observe(one)] for one in records]


def test_an_alarm_begins_once_and_ends_once() -> None:
    bad, good = record("uuuc"), record("uucc")
    assert observed(Alarms({}), good, bad, bad, good, good, bad) == [
        [],
        [("unparsable", False)],
        [],
        [("unparsable", True)],
        [],
        [("unparsable", False)],
    ]


@pytest.mark.parametrize(
    ("made", "codes"),
    [
        (record("cccc", truncated=3), ["truncated"]),
        (record("cccc", truncated=2), []),
        (record(*["cccc"] * 25, "cccw", "ccct"), []),
        (record("ccct"), ["grader_timeouts"]),
        (record("ccce"), ["grader_errors"]),
        (record("uuue", truncated=4), ["unparsable", "truncated", "grader_errors"]),
    ],
)
def test_each_condition_has_its_alarm(made: StepRecord, codes: list[str]) -> None:
    assert observed(Alarms({}), made) == [[(code, False) for code in codes]]


@pytest.mark.parametrize(("gap", "codes"), [(None, []), (0.02, []), (0.13, ["sampler_gap"])])
def test_a_sampler_that_is_not_the_trainer_is_an_alarm(gap: float | None, codes: list[str]) -> None:
    made = record("cw")
    made.note(Rollout([[1]], [[0.0]], 0.1), gap)
    assert observed(Alarms({}), made) == [[(code, False) for code in codes]]


@pytest.mark.parametrize(
    ("accuracy", "said", "not_said"),
    [
        (1.0, "every completion was right", "easier"),
        (0.0, "easier problems", "right:"),
        (0.5, "easier problems", "right:"),
        (None, "easier problems", "right:"),
    ],
)
def test_without_signal_success_is_called_success(
    accuracy: float | None, said: str, not_said: str
) -> None:
    message = no_signal(3, accuracy)
    assert said in message and not_said not in message


def test_a_reward_of_weight_0_is_looked_at_and_raises_no_alarm() -> None:
    names = load_recipe("quickstart", ["rewards.format.weight=0"]).recipe.reward_names
    assert names == load_recipe("quickstart").recipe.reward_names - {"format"}
    assert "format" in load_recipe("quickstart").recipe.reward_names


def test_a_reward_that_stands_still_below_its_highest_value_is_an_alarm() -> None:
    alarms = Alarms({"accuracy": 1.0, "format": 1.0})
    still = [record("ww", step=i, format=1.0) for i in range(WINDOW)]
    assert observed(alarms, *still) == [[]] * (WINDOW - 1) + [[("constant_accuracy", False)]]
    assert observed(alarms, record("cw", format=1.0)) == [[("constant_accuracy", True)]]
    assert observed(Alarms({"accuracy": 1.0}), *[record("ee")] * (WINDOW + 2))[-1] == []


# --- log


def test_phases_are_logged_with_the_plan_and_what_they_took(tmp_path: Path) -> None:
    clock = FakeClock(50.0)
    ledger = Ledger(Budget(100.0, usd_per_hour=36.0), clock, started=40.0, paid_before_s=5.0)
    run = RunDir.create(tmp_path, "quickstart")
    with run.writer(stamp_of(ledger, attempt=2)) as writer:
        log = RunLog(writer, ledger, {"model": 3.0})
        with log.phase("model"):
            clock.now += 4.0
        with log.phase("final", 2.5):
            pass
        with pytest.raises(OSError), log.phase("data"):
            raise OSError
        log.warn("code", "message", resolved=True)
    started, ended, forecast, _, left_open, warning = run.events()
    assert isinstance(started, Phase)
    assert isinstance(ended, Phase)
    assert (started.state, started.expected_s, started.elapsed_s) == ("started", 3.0, 15.0)
    assert (ended.state, ended.seconds, ended.elapsed_s) == ("ended", 4.0, 19.0)
    assert (ended.spent_usd, ended.attempt) == (0.19, 2)
    assert isinstance(forecast, Phase) and forecast.expected_s == 2.5, "better than the plan's"
    assert isinstance(left_open, Phase)
    assert (left_open.name, left_open.state, left_open.expected_s) == ("data", "started", None)
    assert (warning.kind, warning.elapsed_s) == ("warning", 19.0)


# --- stops

STOPS = """
import os, signal, sys
from budgetrl.training.stopper import Stopper

stopper = Stopper()
stopper.install()
for name in sys.argv[1:]:
    os.kill(os.getpid(), getattr(signal, name))
over = stopper.until(lambda: 1.0)
print(stopper.requested(), stopper.reason, int(stopper.exit_code), over())
print(stopper.until(lambda: 0.0)())
"""


@pytest.mark.parametrize(
    ("signals", "says"),
    [
        ("", "False None 0 False True"),
        ("SIGHUP", "False None 0 False True"),
        ("SIGINT", "True interrupted 130 True True"),
        ("SIGTERM SIGINT", "True interrupted 143 True True"),
        ("SIGUSR1", "True budget 0 True True"),
        ("SIGUSR1 SIGTERM SIGUSR1", "True interrupted 143 True True"),
    ],
)
def test_the_first_user_stops_a_run_and_the_deadline_closes_it(signals: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPS, *signals.split()], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == says.split(), done.stderr


def test_a_second_interrupt_leaves_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPS, "SIGINT", "SIGINT"], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (130, b"")


def test_a_worker_whose_supervisor_is_gone_notices() -> None:
    """The parent dies first; the child reports what it sees through the pipe."""
    source = (
        "import os, sys, time\n"
        "from budgetrl.training.stopper import Stopper\n"
        "if os.fork() == 0:\n"
        "    stopper = Stopper()\n"
        "    print(stopper.requested(), flush=True)\n"
        "    while not stopper.requested(): time.sleep(0.01)\n"
        "    print(stopper.reason, int(stopper.exit_code), flush=True)\n"
        "else:\n"
        "    time.sleep(0.2)\n"
        "    os._exit(0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.read().split() == [b"False", b"interrupted", b"143"]


def test_a_supervisor_that_died_before_its_worker_looked_is_noticed() -> None:
    assert Stopper(os.getpid()).supervisor_is_gone(), "this process is not its own parent"
    assert not Stopper(os.getppid()).supervisor_is_gone()
