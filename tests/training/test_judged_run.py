"""A real run whose evaluations limit thinking and end when they are sure."""

import json
import time

import pytest

from budgetrl.account.evaluated import EvaluatedRun, read_run
from budgetrl.account.result import result_of
from budgetrl.budget import Limits
from budgetrl.diagnosis.findings import diagnose
from budgetrl.events import RunWarning
from budgetrl.plan import create_run, make_plan
from budgetrl.recipe.load import load_recipe
from budgetrl.run_files import read_recipe
from budgetrl.training.__main__ import _train
from budgetrl.training.attempt import Attempt
from budgetrl.training.stopper import Stopper

SUMS = ["7+5-8+2", "3+4-1", "9-2+5", "8+1-6+4", "2+6-3", "1+9-4", "5+8-7", "6+3-2+1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedRun:
    folder = tmp_path_factory.mktemp("judged")
    rows = [{"id": s, "problem": f"Compute {s}.", "answer": str(eval(s))} for s in SUMS]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = [
        "batch.prompts_per_step=2", "batch.micro_batch=16", "schedule.stop_after_steps=2",
        "entropy.prompts=0", f"eval.heldout.path={folder / 'sums.jsonl'}", "eval.heldout.k=[1]",
        "eval.heldout.samples={min=2, max=4, until_width=5.0}",
        "eval.heldout.think={max_tokens=12, answer_tokens=8}",
        "sampling.max_tokens=8",
    ]  # fmt: skip
    loaded = load_recipe("quickstart", sets)
    made = create_run(make_plan(loaded, Limits(3600.0)), folder, ["test"])
    attempt = Attempt.first(made, time.monotonic(), allow_code=False)
    assert _train(made, attempt, Stopper()) == 0
    return read_run(made)


def test_evaluations_of_a_run_limit_thinking_and_end_by_width(run: EvaluatedRun) -> None:
    for when in ("baseline", "final"):
        event = run.evaluation(when, "heldout")
        assert event is not None and event.think is not None and event.rounds is not None
        assert event.think["max_tokens"] == 12 and event.max_tokens == 20
        assert event.rounds["stopped_by"] in ("width", "max")
        assert event.samples <= 4
    assert run.differences["heldout"][1].samples >= 2


def test_the_run_has_what_the_rules_look_at_and_says_that_the_limit_is_too_low(
    run: EvaluatedRun,
) -> None:
    step = run.history.steps[-1]
    assert step.rewards is not None and set(step.rewards) == {"accuracy", "format"}
    assert step.groups_all_right is not None and step.groups_all_wrong is not None
    assert step.groups_all_right + step.groups_all_wrong + step.groups_with_signal == step.groups
    codes = {e.code for e in run.run.events() if isinstance(e, RunWarning)}
    assert codes <= {"overlap", "truncated", "unparsable", "no_signal"}
    names = {one.name for one in diagnose(run.history, read_recipe(run.run))}
    assert names <= codes
    assert result_of(run)["budget"]["source"] == "command line"
