"""The rules of a diagnosis: each on a story that it is for and on one that it must leave alone."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from budgetrl.diagnosis.groups import Group, group_facts
from budgetrl.diagnosis.rules import FALSE_ALARMS, HEALTHY_RUNS, RULES
from budgetrl.diagnosis.sign import Sign
from budgetrl.diagnosis.story import Held, Story, accuracy
from budgetrl.diagnosis.trend import trend
from budgetrl.training.alarms import OFTEN, Watch
from budgetrl.types import Verdict

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import check_alarms

USUAL: dict[str, Any] = {
    "accuracy_mean": 0.6, "reward_mean": 0.7, "reward_std": 0.5, "completion_tokens_mean": 30.0,
    "entropy": 0.1, "truncated_share": 0.0, "grad_norm": 0.1, "groups": 16,
    "groups_with_signal": 12, "sampling_logp_diff_mean": 1e-6, "groups_all_right": 2,
    "groups_all_wrong": 2, "groups_agreed": 6, "groups_agreed_wrong": 0, "top_answer": "7",
    "top_answer_share": 0.1, "top_gold_share": 0.1, "clip_share": None,
    "kl_teacher": None,
    "levels": {"1": [8, 60], "2": [8, 20]},
    "rewards": {"accuracy": 0.6, "format": 0.9},
}  # fmt: skip


def story(
    changes: Sequence[dict[str, Any]], held: Sequence[tuple[int, float]] = (), planned: int = 40,
    weights: dict[str, float] | None = None,
) -> Story:  # fmt: skip
    steps: list[Any] = [
        SimpleNamespace(**USUAL | change | {"step": number})
        for number, change in enumerate(changes, 1)
    ]
    return Story(
        steps=steps,
        held=[Held(step, value, 0.03) for step, value in held],
        weights={"accuracy": 1.0, "format": 0.2} if weights is None else weights,
        max_tokens=64,
        planned=planned,
        learning_rate=1e-3,
        stationary=True,
    )


def rising(start: float, end: float, count: int = 20) -> list[dict[str, Any]]:
    values = [start + (end - start) * i / (count - 1) for i in range(count)]
    return [
        {"accuracy_mean": v, "reward_mean": v + 0.18, "rewards": {"accuracy": v, "format": 0.9}}
        for v in values
    ]


def spoke(told: Story) -> dict[str, Sign]:
    signs = {rule.name: rule.check(told) for rule in RULES}
    return {name: sign for name, sign in signs.items() if sign is not None}


def after(first: dict[str, Any], then: dict[str, Any], count: int = 20) -> list[dict[str, Any]]:
    """Five updates of one kind and the rest of another, while accuracy rises."""
    base = rising(0.3, 0.8, count)
    return [one | (first if i < 5 else then) for i, one in enumerate(base)]


def test_a_healthy_story_is_left_alone_at_every_update() -> None:
    told = story(rising(0.3, 0.9, 30), held=[(0, 0.3), (10, 0.6), (20, 0.8)])
    for step in told.steps:
        assert set(spoke(told.until(step.step))) <= {"plateau"}
    assert spoke(story([])) == {} == spoke(story([{}]))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("accuracy_fell", story(rising(0.3, 0.7), held=[(0, 0.3), (8, 0.7), (16, 0.5)])),
        ("accuracy_fell", story([*rising(0.3, 0.9, 12), *rising(0.6, 0.3, 6)])),
        (
            "reward_without_learning",
            story(
                [{"reward_mean": 0.2 + 0.05 * i, "accuracy_mean": 0.5} for i in range(15)],
                held=[(0, 0.5), (12, 0.48)],
            ),
        ),
        ("gain_elsewhere", story([{}], weights={"accuracy": 0.0, "format": 1.0})),
        (
            "gain_elsewhere",
            story(
                [
                    {"reward_mean": 0.2 + 0.05 * i, "rewards": {"accuracy": 0.5, "m:f": 0.05 * i}}
                    for i in range(15)
                ],
                weights={"accuracy": 0.2, "m:f": 1.0},
            ),
        ),
        ("sure_but_wrong", story([{"groups_agreed_wrong": 2, "accuracy_mean": 0.6}] * 10)),
        ("cut_short", story(after({}, {"truncated_share": 0.4}))),
        ("length_runaway", story(after({}, {"truncated_share": 0.2}))),
        ("dead_groups", story(after({}, {"groups_all_wrong": 12, "groups_all_right": 2}))),
        ("no_progress", story([{"accuracy_mean": 0.3}] * 20)),
        ("plateau", story([*rising(0.3, 0.8, 10), *[{"accuracy_mean": 0.8}] * 20])),
        ("gradients", story([*[{"grad_norm": 0.1}] * 10, *[{"grad_norm": 0.8}] * 10])),
        ("clipped", story(after({}, {"clip_share": 0.5}))),
        ("sampler_drifts", story(after({}, {"sampling_logp_diff_mean": 0.05}))),
        ("entropy_collapse", story(after({"entropy": 0.4}, {"entropy": 0.002}))),
        ("one_answer", story(after({}, {"top_answer_share": 0.7}))),
        ("one_kind", story(after({}, {"levels": {"1": [7, 60], "2": [5, 2], "3": [4, 0]}}))),
    ],
)
def test_each_rule_speaks_where_it_should(name: str, told: Story) -> None:
    signs = spoke(told)
    assert name in signs
    assert signs[name].says and signs[name].advice and signs[name].evidence


def test_windows_of_a_long_run_are_found_without_reading_all_of_it() -> None:
    told = story(rising(0.2, 0.8, count=5000))
    asked: list[int] = []

    def never_measured(step: Any) -> float | None:
        asked.append(step.step)
        return None

    assert told.first(never_measured) is None and told.last(never_measured) is None
    assert len(asked) <= 1000
    assert told.until(100).now == 100
    assert told.first(accuracy) == pytest.approx(0.2, abs=0.01)
    assert told.last(accuracy) == pytest.approx(0.8, abs=0.01)


def test_an_evaluation_is_looked_at_when_it_is_there_and_not_an_update_later() -> None:
    told = story(rising(0.3, 0.7), held=[(0, 0.3), (8, 0.7), (16, 0.5)])
    assert "accuracy_fell" not in spoke(told.until(16))
    assert "accuracy_fell" in spoke(told.until(16, evaluated=True))
    watch = Watch(lambda: told.until(16, evaluated=True))
    assert watch.observe(OFTEN + 1) == []
    assert "accuracy_fell" in [alarm.code for alarm in watch.observe(OFTEN + 1, evaluated=True)]


def test_a_fall_is_put_down_to_what_explains_it() -> None:
    fallen = [{"accuracy_mean": value} for value in [0.4] * 6 + [0.1] * 8]
    assert "more slowly" in spoke(story(fallen))["accuracy_fell"].advice
    cut = [one | {"truncated_share": 0.25 if i < 5 else 0.0} for i, one in enumerate(fallen)]
    signs = spoke(story(cut))
    assert "raise sampling.max_tokens" in signs["accuracy_fell"].advice
    assert "25% did at first" in signs["cut_short"].says
    drifts = [one | {"sampling_logp_diff_mean": 0.1} for one in fallen]
    assert "sampler and trainer" in spoke(story(drifts))["accuracy_fell"].advice


def test_a_start_that_is_often_wrong_and_a_climb_are_no_alarm() -> None:
    """As in runs that learn from 20 % on: what agrees is wrong before the model learns."""
    few = {"groups_agreed": 2, "groups_agreed_wrong": 2, "accuracy_mean": 0.2}
    assert "sure_but_wrong" not in spoke(story([few] * 12))
    climbs = [one | {"groups_agreed": 6, "groups_agreed_wrong": 2} for one in rising(0.2, 0.9)]
    assert "sure_but_wrong" not in spoke(story(climbs))
    # The best of 200 windows is high by chance.
    noise = [0.8 + 0.12 * math.sin(i) for i in range(200)]
    level = [{"accuracy_mean": value} for value in [*noise, 0.78, 0.7, 0.78, 0.7]]
    assert "accuracy_fell" not in spoke(story(level))


def test_a_slow_start_that_rises_is_not_stuck() -> None:
    noise = [0.07 * math.sin(3 * i) for i in range(24)]
    flat = [{"accuracy_mean": 0.2 + shift} for shift in noise]
    stands = [(0, 0.21), (4, 0.22), (8, 0.20), (12, 0.22), (16, 0.20), (20, 0.21)]
    creeps = [(0, 0.21), (4, 0.21), (8, 0.22), (12, 0.22), (16, 0.23), (20, 0.24)]
    assert "no_progress" in spoke(story(flat, held=stands, planned=24))
    assert "no_progress" not in spoke(story(flat, held=creeps, planned=24))
    climbs = [{"accuracy_mean": 0.2 + 0.01 * i + shift} for i, shift in enumerate(noise)]
    assert "no_progress" not in spoke(story(climbs, planned=24))


def test_few_and_noisy_updates_do_not_say_that_nothing_is_learnt() -> None:
    noisy = [{"accuracy_mean": 0.3 + 0.2 * math.sin(3 * i)} for i in range(24)]
    assert "no_progress" not in spoke(story(noisy, planned=24))
    assert "no_progress" in spoke(story(noisy * 20, planned=500))


def test_a_few_large_gradients_are_the_rule() -> None:
    usual = [0.07, 0.12, 0.06, 0.1, 0.08] * 3
    spell = [1.4, 0.34, 0.37, 0.58, 0.27, 0.26, 0.33, 0.08, 0.22]
    told = story([{"grad_norm": norm} for norm in [*usual, *spell]])
    assert all("gradients" not in spoke(told.until(step.step)) for step in told.steps)
    scattered = [math.exp(2 * math.sin(7 * i)) for i in range(10)]
    larger = [6 * norm for norm in scattered]
    assert "gradients" not in spoke(story([{"grad_norm": n} for n in [*scattered, *larger]]))


def test_a_line_through_values_has_the_slope_and_error_of_least_squares() -> None:
    generator = np.random.default_rng(0)
    updates = np.arange(1, 31)
    values = 0.2 + 0.01 * updates + generator.normal(0, 0.05, 30)
    line = trend([*updates, 31], [*values, math.nan])
    assert line is not None and line.freedom == 28
    (slope, _), covariance = np.polyfit(updates, values, 1, cov=True)
    assert line.slope == pytest.approx(slope)
    assert line.error == pytest.approx(math.sqrt(covariance[0, 0]))
    assert line.rises(0.05) and line.most(0.025) > line.slope
    assert trend([1, 2], [0.1, 0.2]) is None


def test_agreed_wrong_answers_are_put_down_to_golds_only_where_held_out_ones_are_right() -> None:
    doubtful = [{"groups_agreed_wrong": 2, "accuracy_mean": 0.6}] * 20
    assert "sure_but_wrong" in spoke(story(doubtful))
    better = spoke(story(doubtful, held=[(0, 0.3), (16, 0.95)]))
    assert "golds_in_doubt" in better and "sure_but_wrong" not in better
    worse = spoke(story(doubtful, held=[(0, 0.3), (8, 0.7), (16, 0.6)]))
    assert "sure_but_wrong" in worse and "golds_in_doubt" not in worse


def test_groups_are_told_apart() -> None:
    right, wrong = Verdict.CORRECT, Verdict.WRONG
    facts = group_facts(
        [
            Group([right] * 4, ["7"] * 4, "7"),
            Group([wrong] * 4, ["3", "3", "3", "5"], "7", "hard"),
            Group([wrong] * 4, ["1", "2", "3", None], "4"),
            Group([right, wrong, wrong, wrong], ["7", "6", "6", "5"], "7", "hard"),
            Group([Verdict.ERROR] * 4, [None] * 4, "7"),
        ]
    )
    assert (facts["groups_all_right"], facts["groups_all_wrong"]) == (1, 2)
    assert (facts["groups_agreed"], facts["groups_agreed_wrong"]) == (2, 1)
    assert facts["levels"] == {"hard": [2, 1]}
    assert facts["top_answer"] == "7" and facts["top_gold_share"] == pytest.approx(4 / 5)


def test_false_alarms_are_those_of_the_recorded_healthy_runs() -> None:
    healthy = [check_alarms.judge(run) for run in check_alarms.load() if not run["ill"]]
    counted = {
        rule.name: named
        for rule in RULES
        if (named := sum(rule.name in one.named for one in healthy))
    }
    assert len(healthy) == HEALTHY_RUNS
    assert counted == FALSE_ALARMS


def test_recorded_ill_runs_are_named_in_time_and_healthy_ones_are_not() -> None:
    judged = [check_alarms.judge(run) for run in check_alarms.load("judging")]
    fallen = [one for one in judged if one.run["ill"] and one.onset is not None]
    healthy = [one for one in judged if not one.run["ill"]]
    assert len(fallen) == 9 and all(one.in_time for one in fallen)
    named = [one for one in healthy if one.named]
    assert len(healthy) == 20 and 10 * len(named) <= len(healthy)
