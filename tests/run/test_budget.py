"""Budgets hold whatever the steps take; the arithmetic is checked against plain loops."""

from dataclasses import dataclass, replace
from itertools import count

import pytest
from fake_clock import FakeClock
from hypothesis import given, strategies as st

from budgetrl.budget import (
    EXIT_S,
    REPORT_FACTOR,
    RESERVE_FACTOR,
    Budget,
    Limits,
    PhaseTimes,
    plan,
    reserve_s,
)
from budgetrl.errors import UsageError
from budgetrl.forecast import Forecaster
from budgetrl.ledger import Ledger

TIMES = PhaseTimes(
    imports_s=5, model_s=3, data_s=2, baseline_s=10, rollout_s=2, reward_s=0.5, logprob_s=0.5,
    update_s=1.5, other_s=0.5, step_eval_s=4, step_evals_every=10, final_s=10, save_s=1,
    saves_every_s=60, report_s=3, source="here",
)  # fmt: skip
"""Setup 10 s, one update 5 s."""


seconds = st.integers(1, 800).map(lambda tenths: tenths / 10)
tokens = st.integers(1, 500).map(float)


# --- plan


@st.composite
def whole_times(draw: st.DrawFn) -> PhaseTimes:
    """Whole seconds, so that the loop below has no rounding of its own."""
    small = st.integers(0, 40)
    names = ("imports_s", "model_s", "data_s", "baseline_s", "reward_s", "logprob_s", "update_s")
    return PhaseTimes(
        **{name: draw(small) for name in names},
        rollout_s=draw(st.integers(1, 40)),
        other_s=draw(small),
        step_eval_s=draw(small),
        step_evals_every=draw(st.none() | st.integers(1, 12)),
        final_s=10 * draw(st.integers(0, 9)),
        save_s=draw(st.integers(0, 20)),
        saves_every_s=draw(st.integers(1, 500)),
        report_s=draw(small),
        source="drawn",
    )


@given(whole_times(), st.integers(1, 20_000))
def test_affordable_is_the_largest_number_of_updates_that_fits(
    times: PhaseTimes, budget_s: int
) -> None:
    def cost(n: int) -> float:
        evals = n // times.step_evals_every if times.step_evals_every else 0
        saves = n * int(times.step_s) // int(times.saves_every_s)
        ends = (
            RESERVE_FACTOR * times.final_s + times.save_s + REPORT_FACTOR * times.report_s + EXIT_S
        )
        paid = times.setup_s + times.baseline_s + n * times.step_s
        return paid + evals * times.step_eval_s + saves * times.save_s + ends

    first_too_many = next(n for n in count(1) if cost(n) > budget_s)
    assert plan(times, Budget(budget_s)).affordable_steps == first_too_many - 1


@given(whole_times(), st.integers(1, 5_000), st.none() | st.integers(1, 100))
def test_a_plan_never_expects_to_cost_more_than_its_budget(
    times: PhaseTimes, budget_s: int, requested: int | None
) -> None:
    made = plan(times, Budget(budget_s), requested)
    least = made.setup_s + made.baseline_s + made.report_s
    assert made.total_s <= max(budget_s, least)
    assert made.steps <= made.affordable_steps


def test_a_plan_is_the_sum_of_its_parts() -> None:
    made = plan(TIMES, Budget(238.8, usd_per_hour=3.6))
    # 10 + 10 + n x 5 + n // 10 x 4 + n x 5 // 60 + (1.3 x 10 + 1) + (1.3 x 3 + 1) = 238.9 at n = 37
    assert (made.affordable_steps, made.step_evals_s, made.saves_s) == (36, 12, 3)
    assert (made.reserve_s, made.report_s) == (14.0, pytest.approx(4.9))
    assert made.total_s == pytest.approx(10 + 10 + 180 + 12 + 3 + 10 + 1 + 4.9)
    assert made.total_usd == pytest.approx(made.total_s / 1000)
    three = plan(TIMES, Budget(238.8), requested_steps=3)
    assert three.total_s == pytest.approx(10 + 10 + 15 + 10 + 1 + 4.9)


def test_the_reserve_grows_with_the_completions_but_never_shrinks() -> None:
    assert reserve_s(100, 5) == 135
    assert reserve_s(100, 5, growth=2.0) == 265
    assert reserve_s(100, 5, growth=0.5) == 135
    forecaster = Forecaster(5.0, 100.0, baseline_tokens_mean=200.0, save_s=5.0)
    reserves = []
    for tokens in (100.0, 200.0, 300.0, 600.0):
        forecaster.observe(5.0, 3.0, tokens)
        reserves.append(forecaster.reserve_s)
    assert reserves == pytest.approx([135, 135, 200, 395])
    forecaster.observe_save(25.0)
    forecaster.observe_save(2.0)
    assert forecaster.reserve_s == pytest.approx(415)


def test_slower_machines_scale_every_second_and_no_count() -> None:
    slow = TIMES.scaled(2.0, "there")
    assert (slow.setup_s, slow.step_s, slow.final_s, slow.report_s) == (20, 10, 20, 6)
    assert (slow.step_evals_every, slow.saves_every_s, slow.source) == (10, 60, "there")


def test_the_sooner_of_hours_and_dollars_is_the_budget() -> None:
    def wall_s(hours: float | None, usd: float | None, price: float | None) -> float | None:
        seconds = None if hours is None else hours * 3600.0
        made = Limits(seconds, usd).budget(price)
        return None if made is None else made.wall_s

    assert wall_s(2, None, None) == 7200
    assert wall_s(2, 1, 0.25) == 7200
    assert wall_s(8, 1, 0.25) == 14400
    assert wall_s(None, None, 0.25) is None
    for price in (None, 0.0):
        with pytest.raises(UsageError, match="price"):
            Limits(3600, 1).budget(price)


# --- ledger


def test_a_ledger_counts_all_attempts_and_no_gaps() -> None:
    clock = FakeClock(1000.0)
    budget = Budget(100.0, usd_per_hour=36.0)
    ledger = Ledger(budget, clock, started=990.0, paid_before_s=30.0, reserved_s=5.0)
    assert ledger.elapsed_s == 40.0
    assert ledger.deadline == 990.0 + 100 - 30 - 5
    ledger.charge_training(7.0)
    clock.now += 60.0
    assert ledger.remaining_s == -5.0
    spend = ledger.spend()
    assert (spend.wall_s, spend.train_s, spend.usd) == (100.0, 7.0, 1.0)
    assert Ledger(Budget(100.0), clock, 0.0).spend().usd is None


# --- forecasts


def test_a_decision_is_made_for_the_slowest_recent_step_and_tells_of_the_usual_one() -> None:
    forecaster = Forecaster(9.0, baseline_eval_s=10.0, baseline_tokens_mean=100.0, save_s=1.0)
    assert forecaster.decide(14.0 + 9.0).go_on
    assert not forecaster.decide(14.0 + 8.9).go_on
    for step_s in (2.0, 2.0, 2.0, 4.0, 2.0, 2.0):
        forecaster.observe(step_s, 0.5 * step_s, 100.0)
    made = forecaster.decide(14.0 + 40.0)
    assert made.step_s == pytest.approx(1.15 * 4.0)
    assert (made.forecast_low, made.forecast_steps, made.forecast_high) == (10, 20, 20)
    assert made.rollout_limit_s == pytest.approx(40.0 - 1.15 * 2.0)
    assert forecaster.decide(54.0, extra_s=3.0).rollout_limit_s == pytest.approx(37.0 - 1.15 * 2.0)
    assert not forecaster.decide(14.0 + 4.5).go_on
    assert forecaster.decide(14.0 + 4.7).go_on
    assert not forecaster.decide(14.0 + 4.7, extra_s=0.2).go_on


def test_the_first_updates_correct_the_plan_and_later_ones_replace_it() -> None:
    forecaster = Forecaster(2.0, 10.0, 100.0, 1.0, planned_early_s=3.0, planned_evals_s=0.5)
    assert forecaster.expected_step_s == pytest.approx(2.5)
    for _ in range(5):
        forecaster.observe(6.0, 1.0, 100.0)
    assert forecaster.expected_step_s == pytest.approx(4.5), "twice as slow as planned"
    for _ in range(20):
        forecaster.observe(3.0, 1.0, 100.0)
    assert forecaster.expected_step_s == pytest.approx(3.5)
    assert forecaster.expected_final_s == pytest.approx(10.0), "no margin"
    assert forecaster.expected_end_s == pytest.approx(11.0)
    assert Forecaster(2.0, 10.0, 100.0, 1.0).expected_step_s == 2.0


@given(
    st.lists(st.tuples(seconds, seconds, tokens), max_size=25),
    st.floats(-100, 2000),
    seconds,
)
def test_forecasts_are_ordered_and_limits_are_never_negative(
    steps: list[tuple[float, float, float]], remaining_s: float, extra_s: float
) -> None:
    forecaster = Forecaster(1.0, 20.0, 300.0, 2.0)
    for rollout_s, rest_s, tokens in steps:
        forecaster.observe(rollout_s + rest_s, rollout_s, tokens)
    made = forecaster.decide(remaining_s, extra_s)
    assert 0 <= made.forecast_low <= made.forecast_steps <= made.forecast_high
    assert made.rollout_limit_s >= 0
    if made.go_on:
        assert made.reserve_s + made.step_s + extra_s <= remaining_s + 1e-9


# --- a whole run against an injected clock


@dataclass(frozen=True)
class Update:
    """What one update would take, and how long its completions are."""

    rollout_s: float
    rest_s: float
    tokens: float


@dataclass
class SimulatedRun:
    """The worker's loop: decide, roll out within the limit, update, save, evaluate, report."""

    budget_s: float
    paid_before_s: float
    report_s: float
    forecaster: Forecaster
    killed: bool = False
    """The supervisor's deadline was needed."""
    kept_s: float = 0.0
    """What the decision for the last update kept for the end."""

    def __post_init__(self) -> None:
        self.clock = FakeClock(17.0)
        self.ledger = Ledger(
            Budget(self.budget_s), self.clock, 17.0, self.paid_before_s, self.report_s
        )

    def work(self, seconds: float) -> None:
        """Time passes, but not beyond the deadline: there the worker is killed."""
        before_deadline = max(0.0, self.ledger.remaining_s)
        self.killed = self.killed or seconds > before_deadline + 1e-6
        self.clock.now += min(seconds, before_deadline)

    def train(self, updates: list[Update], save_every: int) -> float:
        """Seconds until the deadline when training is over."""
        for number, update in enumerate(updates, start=1):
            extra_s = self.forecaster.save_s if number % save_every == 0 else 0.0
            decision = self.forecaster.decide(self.ledger.remaining_s, extra_s)
            if self.killed or not decision.go_on:
                break
            self.kept_s = decision.reserve_s
            self.work(min(update.rollout_s, decision.rollout_limit_s))
            if update.rollout_s > decision.rollout_limit_s:
                break
            self.work(update.rest_s)
            step_s = update.rollout_s + update.rest_s
            self.forecaster.observe(step_s, update.rollout_s, update.tokens)
            self.work(extra_s)
        return self.ledger.remaining_s

    def end(self, save_s: float, rounds_s: list[float]) -> None:
        """Save, evaluate round by round while time remains, report."""
        self.work(save_s)
        for round_s in rounds_s:
            if self.killed or self.ledger.remaining_s <= 0:
                break
            self.work(round_s)
        self.clock.now += self.report_s


@given(
    budget_s=st.floats(5, 600),
    report_s=st.floats(0, 5),
    setup=st.lists(seconds, max_size=4),
    steps=st.lists(st.builds(Update, seconds, seconds, tokens), max_size=25),
    save_s=st.floats(0, 20),
)
def test_no_sequence_of_step_times_ends_beyond_the_budget(
    budget_s: float, report_s: float, setup: list[float], steps: list[Update], save_s: float
) -> None:
    run = SimulatedRun(budget_s, 0.0, report_s, Forecaster(3.0, 12.0, 40.0, save_s))
    for phase_s in setup:
        run.work(phase_s)
    run.train(steps, save_every=3)
    run.end(save_s, [5.0] * 8)
    assert run.ledger.elapsed_s <= budget_s + 1e-6


@given(
    budget_s=st.floats(60, 600),
    paid_s=st.floats(0, 30),
    steps=st.lists(st.tuples(seconds, st.floats(0.05, 1.15), tokens), max_size=25),
    save_every=st.integers(1, 5),
)
def test_the_reserve_is_left_if_only_generation_is_slow_without_any_kill(
    budget_s: float, paid_s: float, steps: list[tuple[float, float, float]], save_every: int
) -> None:
    """Rollouts may take anything; what follows one takes at most 1.15x the slowest of the last."""
    planned = Update(2.0, 1.0, 40.0)
    rests = [planned.rest_s]
    drawn = [planned]
    for rollout_s, factor, tokens in steps:
        rests.append(factor * max(rests[-5:]))
        drawn.append(Update(rollout_s, rests[-1], tokens))
    run = SimulatedRun(budget_s, paid_s, 4.0, Forecaster(3.0, 8.0, 40.0, save_s=1.0))
    run.work(10.0)
    left_s = run.train(drawn, save_every)
    assert left_s >= run.kept_s - 1e-6
    assert not run.killed
    run.end(1.0, [2.0] * 4)
    assert not run.killed, "the final evaluation fits when completions have not grown"
    assert run.ledger.elapsed_s <= budget_s + 1e-6


def test_a_budget_that_pays_for_little_makes_no_update() -> None:
    for budget_s in (0.5, 20.0, 38.9, 42.9):
        assert plan(TIMES, Budget(budget_s)).affordable_steps == 0
    assert plan(TIMES, Budget(43.95)).affordable_steps == 1
    free = replace(TIMES, rollout_s=0, reward_s=0, logprob_s=0, update_s=0, other_s=0)
    assert plan(free, Budget(43.95), requested_steps=7).steps == 7
