"""Events: what is written is read again, and readers survive what they do not know."""

import json
import math

import pytest
from hypothesis import example, given, strategies as st
from sample_events import step_event

from budgetrl import events
from budgetrl.types import StopReason

STAMP = {"t": 1.5, "elapsed_s": 2.0, "spent_usd": None, "attempt": 3}


EVERY_KIND = [
    events.RunStarted(recipe="quickstart", budget_s=60.0, plan={"steps": 3}),
    events.RunResumed(from_step=20, budget_s=90.0, gap_s=12.0),
    events.Changed.model_validate({"key": "schedule.learning_rate", "from": 1e-3, "to": 1e-4}),
    events.Download(repo="model 'a/b'", commit="c0ffee", bytes=5, total_bytes=9, seconds=1.0),
    events.Phase(name="model", state="ended", seconds=1.25),
    step_event(1, sample={"problem": "1+1", "completion": "\u2028 two\n"}),
    events.Evaluation(
        suite="heldout", when="final", step=3, problems=4, samples=2, pass_at={"1": 0.5},
        interval_95={"1": (0.1, 0.9), "2": None}, truncated_share=0.0, unparsable_share=0.0,
        completion_tokens_mean=9.0, temperature=1.0, top_p=1.0, max_tokens=64, seconds=1.0,
    ),
    events.Entropy(when="step", step=2, completions=8, tokens=90, mean_nats=0.3, temperature=1.0,
                   seconds=0.5),
    events.StageEvent(name="warm", training="sft", index=0, stages=2, state="ended", step=3,
                      seconds=9.0, updates=3, allotted_s=10.0, stage="warm"),
    events.Checkpoint(step=3, path="checkpoints/step_000003", seconds=0.1, reason="end"),
    events.PlanEvent(step=1, step_s=2.0, reserve_s=9.0, remaining_s=30.0, forecast_steps=10,
                     forecast_low=8, forecast_high=12, ends_at_s=55.0),
    events.RunWarning(code="truncated", message="many"),
    events.Error(type="OSError", message="disk full", exit_code=1),
    events.RunFinished(stop_reason=StopReason.BUDGET, exit_code=0, steps=3, train_s=9.0),
]  # fmt: skip


@pytest.mark.parametrize("event", EVERY_KIND, ids=lambda event: event.KIND)
def test_every_kind_is_read_as_it_was_written_on_one_stamped_line(event: events.Event) -> None:
    line = events.to_line(event, STAMP)
    assert "\n" not in line
    read = events.parse(line.encode())
    assert read == event.model_copy(update=STAMP | {"kind": event.KIND})
    assert type(read) is type(event)
    raw = json.loads(line)
    assert {"schema_version", "kind", *STAMP} <= raw.keys()


def test_every_kind_of_the_contract_is_tested() -> None:
    assert {type(event) for event in EVERY_KIND} == set(events.Event.__subclasses__())


def test_what_is_not_finite_is_null_on_the_line_at_any_depth() -> None:
    event = step_event(1, kl=math.nan, phase_s={"update": math.inf}, sample={"a": [math.nan, 1.0]})
    raw = json.loads(events.to_line(event, STAMP | {"spent_usd": math.inf}))
    assert (raw["kl"], raw["phase_s"], raw["sample"]) == (None, {"update": None}, {"a": [None, 1]})
    assert raw["spent_usd"] is None


def test_a_newer_schema_is_read_as_far_as_it_is_known() -> None:
    line = '{"kind": "step", "schema_version": 2, "elapsed_s": 7, "step": "twelve"}'
    newer = events.parse(line)
    assert type(newer) is events.Event
    assert (newer.schema_version, newer.elapsed_s, newer.kind) == (2, 7.0, "step")
    unknown = events.parse('{"kind": "sunrise", "colour": "red"}')
    assert unknown is not None
    assert unknown.model_extra == {"colour": "red"}
    wider = events.parse('{"kind": "checkpoint", "step": 1, "path": "p", "seconds": 1, "new": 5}')
    assert isinstance(wider, events.Checkpoint)


@given(st.binary(max_size=80) | st.text(max_size=80))
@example("[" * 100_000)
def test_what_is_no_event_is_none(line: bytes | str) -> None:
    assert events.parse(line) is None


@pytest.mark.parametrize("line", ["{}", '{"kind": 3}', "[]", '{"kind": "step", "elapsed_s": "x"}'])
def test_json_that_is_no_event_is_none(line: str) -> None:
    assert events.parse(line) is None
