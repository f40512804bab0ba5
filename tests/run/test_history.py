"""What a run's events add up to, over attempts, warnings and phases."""

from dataclasses import replace
from itertools import count

import pytest
from sample_events import step_event

from budgetrl import events
from budgetrl.events import Event
from budgetrl.history import fold, measured_times, replanned_times
from budgetrl.types import StopReason


def evaluation(when: str, step: int, suite: str = "heldout", seconds: float = 6.0) -> Event:
    return events.Evaluation.model_validate(
        {
            "suite": suite, "when": when, "step": step, "problems": 4, "samples": 2,
            "pass_at": {"1": 0.5}, "interval_95": {"1": None}, "truncated_share": 0.0,
            "unparsable_share": 0.0, "completion_tokens_mean": 9.0, "temperature": 1.0,
            "top_p": 1.0, "max_tokens": 64, "seconds": seconds,
        }
    )  # fmt: skip


def checkpoint(step: int, seconds: float = 0.2) -> Event:
    return events.Checkpoint(step=step, path=f"checkpoints/step_{step:06d}", seconds=seconds)


def entropy(step: int) -> Event:
    return events.Entropy(
        when="step", step=step, completions=8, tokens=90, mean_nats=0.3, temperature=1.0, seconds=1
    )


def at(elapsed_s: float, event: Event, attempt: int = 1) -> Event:
    return event.model_copy(update={"elapsed_s": elapsed_s, "attempt": attempt})


def phase(name: str, start_s: float, seconds: float | None, attempt: int = 1) -> list[Event]:
    """Both events of a phase, or only the first one of a phase that lasts."""
    started = events.Phase.model_validate({"name": name, "state": "started"})
    ended = events.Phase.model_validate({"name": name, "state": "ended", "seconds": seconds})
    if seconds is None:
        return [at(start_s, started, attempt)]
    return [at(start_s, started, attempt), at(start_s + seconds, ended, attempt)]


def test_a_resumed_run_counts_no_update_twice() -> None:
    finished = events.RunFinished(stop_reason=StopReason.FAILED, exit_code=1, steps=5, train_s=1)
    history = fold(
        [
            events.RunStarted(recipe="quickstart", budget_s=60.0),
            evaluation("baseline", 0),
            *(step_event(number) for number in range(1, 6)),
            checkpoint(3),
            evaluation("step", 3),
            checkpoint(5),
            evaluation("step", 5),
            entropy(3),
            entropy(5),
            evaluation("final", 3),
            finished,
            events.RunResumed(from_step=3, budget_s=90.0, gap_s=7.0, attempt=2),
            step_event(4, reward_mean=0.9),
        ]
    )
    assert [(step.step, step.reward_mean) for step in history.steps][2:] == [(3, 0.5), (4, 0.9)]
    assert [saved.step for saved in history.checkpoints] == [3]
    assert [(e.when, e.step) for e in history.evaluations] == [("baseline", 0), ("step", 3)]
    assert [measured.step for measured in history.entropies] == [3]
    assert (history.finished, history.attempt) == (None, 2)
    assert history.budget_s == 90.0


def test_open_warnings_are_those_not_yet_resolved() -> None:
    def warn(code: str, message: str = "", resolved: bool = False) -> Event:
        return events.RunWarning(code=code, message=message, resolved=resolved)

    history = fold([warn("a"), warn("b", "old"), warn("c"), warn("a", "", True), warn("b", "new")])
    assert [(code, w.message) for code, w in history.warnings.items()] == [("c", ""), ("b", "new")]


def test_phases_add_up_over_attempts_and_a_running_one_counts_so_far() -> None:
    history = fold(
        [
            *phase("imports", 0.0, 4.0),
            *phase("train", 4.0, None),
            *phase("evaluation", 10.0, 3.0),
            *phase("evaluation", 20.0, None),
            at(25.0, events.RunResumed(from_step=0, budget_s=60.0), attempt=2),
            *phase("imports", 25.0, 5.0, attempt=2),
            *phase("baseline", 30.0, None, attempt=2),
            at(38.0, events.RunWarning(code="x", message=""), attempt=2),
        ]
    )
    assert history.phase_seconds() == {
        "imports": 9.0,
        "train": 13.0,  # without the evaluations inside it
        "evaluation": 8.0,
        "baseline": 8.0,
    }
    now = history.phase_now()
    assert now is not None
    assert (now.name, now.attempt, now.started_s) == ("baseline", 2, 30.0)


def test_the_innermost_phase_is_the_one_that_lasts() -> None:
    history = fold([*phase("train", 0.0, None), *phase("checkpoint", 3.0, None)])
    assert history.phase_now() is history.spans[1]
    history.add(events.Phase(name="checkpoint", state="ended", seconds=1.0, elapsed_s=4.0))
    assert history.phase_now() is history.spans[0]


def test_what_was_paid_never_falls_and_is_unknown_without_a_price() -> None:
    def paid(elapsed_s: float, usd: float | None) -> Event:
        return events.RunWarning(code="x", message="", elapsed_s=elapsed_s, spent_usd=usd)

    history = fold([paid(5.0, None), paid(3.0, None)])
    assert (history.elapsed_s, history.spent_usd) == (5.0, None)
    history.add(paid(6.0, 0.2))
    history.add(paid(5.5, 0.1))
    assert (history.elapsed_s, history.spent_usd) == (6.0, 0.2)


def test_a_newer_schema_is_noted() -> None:
    assert not fold([step_event(1)]).newer_schema
    assert fold([step_event(1), step_event(2, schema_version=2)]).newer_schema


def test_the_newest_evaluation_of_a_moment_counts() -> None:
    first, second = evaluation("step", 5), evaluation("step", 10)
    history = fold([evaluation("baseline", 0, suite="b"), first, second])
    assert history.evaluation("step", "heldout") == second
    assert history.evaluation("final", "heldout") is None
    assert history.suites() == ["b", "heldout"]


def finished_run() -> list[Event]:
    """Updates of 3, 5 and 4 s after a slow first one, and evaluations at 2 and 4."""
    clock = count(20, 10)
    steps = [
        step_event(n, phase_s={"rollout": r, "reward": 0.25, "update": 0.75, "other": 0.0})
        for n, r in enumerate((9.0, 2.0, 4.0, 3.0), start=1)
    ]
    return [
        *phase("imports", 0.0, 4.0),
        *phase("model", 4.0, 1.0),
        *phase("data", 5.0, 0.5),
        *phase("baseline", 6.0, 8.0),
        *(at(next(clock), step) for step in steps),
        evaluation("step", 2, seconds=2.0),
        evaluation("step", 2, suite="other", seconds=1.0),
        evaluation("step", 4, seconds=4.0),
        evaluation("step", 4, suite="other", seconds=1.0),
        checkpoint(2, 0.2),
        checkpoint(5, 0.6),
        *phase("final", 80.0, 9.0),
    ]


def test_measured_times_are_what_a_usual_update_took() -> None:
    times = measured_times(fold(finished_run()), report_s=3.0, source="run x")
    assert times is not None
    assert (times.setup_s, times.baseline_s, times.final_s) == (5.5, 8.0, 9.0)
    assert (times.rollout_s, times.reward_s, times.update_s) == (3.0, 0.25, 0.75)
    assert (times.logprob_s, times.step_s) == (0.0, 4.0)
    assert (times.step_eval_s, times.step_evals_every) == (4.0, 2)
    assert (times.save_s, times.report_s, times.source) == (0.6, 3.0, "run x")
    assert times.saves_every_s == pytest.approx((18.0 + 4 * 1.0) / 2)


@pytest.mark.parametrize("lacks", ["imports", "baseline", "final", "step"])
def test_a_run_that_did_not_come_to_its_end_measures_nothing(lacks: str) -> None:
    kept = [e for e in finished_run() if lacks not in (e.KIND, getattr(e, "name", ""))]
    assert measured_times(fold(kept), report_s=3.0, source="x") is None


def test_a_resumed_run_is_planned_by_what_it_has_measured_itself() -> None:
    planned = measured_times(fold(finished_run()), report_s=3.0, source="the plan")
    assert planned is not None
    wrong = replace(planned, rollout_s=0.01, update_s=0.01, baseline_s=0.1, final_s=0.1)
    events = [event for event in finished_run() if getattr(event, "name", "") != "final"]
    again = replanned_times(fold(events), wrong, "so far")
    assert (again.step_s, again.baseline_s, again.source) == (4.0, 8.0, "so far")
    assert again.final_s == 8.0, "as long as the baseline"
    assert again.report_s == 3.0, "not measured yet"
    assert replanned_times(fold([]), wrong, "so far") is wrong
