"""Rounds until an interval is narrow: when they end, what is said, and what plans expect."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from budgetrl.cli.eval import _samples
from budgetrl.engine.base import Request, SamplingSpec, StopCheck
from budgetrl.errors import UsageError
from budgetrl.estimation.scenario import planned_samples
from budgetrl.evaluation.passk import mean_interval
from budgetrl.evaluation.rounds import judge_rounds, said_of, width_of
from budgetrl.evaluation.rows import EvalRow, load_rows
from budgetrl.evaluation.run import evaluate
from budgetrl.evaluation.specs import suite_specs
from budgetrl.evaluation.suite import PromptedProblem, Suite, protocol_of
from budgetrl.recipe.eval_tables import Eval, Rounds
from budgetrl.recipe.load import load_recipe
from budgetrl.types import Completion, EvalResult, Problem, Verdict


def rows_of(rates: Sequence[float], rounds: int, seed: int = 1) -> list[EvalRow]:
    generator = random.Random(seed)
    return [
        EvalRow(
            f"p{i}", n, "", "", "", 1, False,
            Verdict.CORRECT if generator.random() < rate else Verdict.WRONG, None, 0,
        )
        for n in range(rounds)
        for i, rate in enumerate(rates)
    ]  # fmt: skip


def ids_of(rates: Sequence[float]) -> list[str]:
    return [f"p{i}" for i in range(len(rates))]


def test_width_is_that_of_the_interval_and_falls_to_its_floor() -> None:
    right = [0, 1, 2, 3, 4, 4, 2, 2, 1, 3]
    width = width_of(right, 4, until=20.0)
    interval = mean_interval([r / 4 for r in right])
    assert width is not None and interval is not None
    assert width.now == pytest.approx(100 * (interval[1] - interval[0]))
    assert 0 < width.floor < width.now
    # By hand: variance 0.975 / 9, of which E[p(1 - p)] / (n - 1) = 0.15 / 3 is drawing.
    assert (width.floor / width.now) ** 2 == pytest.approx(1 - 0.05 / (0.975 / 9))


def test_rounds_end_where_the_interval_is_narrow_and_the_same_rows_say_the_same() -> None:
    rates = [0.5] * 300
    rows, ids = rows_of(rates, 32), ids_of(rates)
    wanted = Rounds(min=2, max=32, until_width=4.0)
    whole = judge_rounds(rows, ids, wanted)
    assert whole.stopped_by == "width" and whole.width is not None
    assert whole.width.now <= 4.0 and 4 <= whole.target < 32
    # What was stored before does not depend on what came later.
    seen = [judge_rounds(rows[: n * len(ids)], ids, wanted) for n in range(33)]
    assert [one.target for one in seen[whole.target :]] == [whole.target] * (33 - whole.target)
    assert all(one.stopped_by is None for one in seen[: whole.target])
    assert [one.target for one in seen] == sorted(one.target for one in seen)


def test_where_problems_set_the_floor_the_least_rounds_are_enough_and_it_is_said() -> None:
    rates = [0.0, 1.0] * 15
    made = judge_rounds(rows_of(rates, 2), ids_of(rates), Rounds(min=2, max=32, until_width=3.0))
    assert (made.target, made.stopped_by) == (2, "width")
    assert "more problems would" in said_of(made.to_json())
    mixed = [0.02, 0.98, 0.5] * 10
    made = judge_rounds(rows_of(mixed, 4), ids_of(mixed), Rounds(min=4, max=32, until_width=5.0))
    assert (made.target, made.stopped_by) == (4, "width")


def test_the_most_rounds_end_it_and_a_fixed_number_is_as_before() -> None:
    rates = [0.5] * 20
    made = judge_rounds(rows_of(rates, 3), ids_of(rates), Rounds(min=2, max=3, until_width=1.0))
    assert (made.target, made.stopped_by) == (3, "max") or made.stopped_by == "width"
    fixed = judge_rounds(rows_of(rates, 3), ids_of(rates), Rounds(min=3, max=3))
    assert fixed.to_json() == {"min": 3, "max": 3, "stopped_by": "max"}


class Luck:
    """Answers problem by problem at its rate, by the request's own seed."""

    def __init__(self, rates: Sequence[float], limit: int = 10**9) -> None:
        self.rates, self.limit = rates, limit
        self.asked: list[tuple[str, int]] = []

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Completion | None]:
        made: list[Completion | None] = []
        for request in requests:
            if len(self.asked) >= self.limit:
                made.append(None)
                continue
            self.asked.append((request.problem_id, request.sample))
            right = random.Random(request.seed).random() < self.rates[int(request.problem_id[1:])]
            made.append(Completion("1" if right else "0", 1, False))
        return made


class Exact:
    class Row:
        def __init__(self, right: bool) -> None:
            self.verdict = Verdict.CORRECT if right else Verdict.WRONG
            self.extracted = None

    def grade(self, rows: Sequence[tuple[str, str]]) -> list["Exact.Row"]:
        return [Exact.Row(text == gold) for text, gold in rows]


def run(policy: Luck, folder: Path, samples: int | Rounds, when: str = "final") -> EvalResult:
    items = [
        PromptedProblem(Problem(f"p{i}", f"{i}?", "1"), f"{i}?", ())
        for i in range(len(policy.rates))
    ]
    protocol = protocol_of("luck", items, temperature=1, top_p=1, max_tokens=4, seed=3, grader="e")
    result = evaluate(
        policy, Suite(items, protocol, samples, (1, 2), 64), grader=Exact(), folder=folder,  # type: ignore[arg-type]
        when=when, step=0,
    )  # fmt: skip
    assert result is not None
    return result


def test_a_cut_evaluation_goes_on_to_the_same_rounds_and_answers(tmp_path: Path) -> None:
    rates = [0.3, 0.5, 0.7] * 60
    wanted = Rounds(min=2, max=32, until_width=6.0)
    whole = run(Luck(rates), tmp_path / "whole", wanted)
    assert whole.rounds is not None and whole.rounds["stopped_by"] == "width"
    assert 100 * (whole.interval_95[1][1] - whole.interval_95[1][0]) <= 6.0  # type: ignore[index]
    cut = run(Luck(rates, limit=400), tmp_path / "cut", wanted)
    assert cut.samples == 2 and cut.rounds is not None and cut.rounds["stopped_by"] == "budget"
    assert run(Luck(rates), tmp_path / "cut", wanted).pass_at == whole.pass_at
    for name in ("whole", "cut"):
        rows = load_rows(tmp_path / name / "final.jsonl")
        assert len(rows) == whole.samples * len(rates)
    assert whole.protocol == run(Luck(rates), tmp_path / "fixed", 2).protocol
    again = Luck(rates)
    run(again, tmp_path / "whole", wanted)
    assert again.asked == []


def test_bad_rounds_are_refused() -> None:
    def message(**samples: object) -> str:
        with pytest.raises(ValidationError) as caught:
            Eval(suite="aime24", samples=samples, k=(1,))  # type: ignore[arg-type]
        return str(caught.value)

    assert "min = 8 is above max = 4" in message(min=8, max=4, until_width=3.0)
    assert "until_width alone has no end" in message(until_width=3.0)
    assert "need until_width" in message(min=2, max=4)
    with pytest.raises(ValidationError, match="k = 4 needs at least as many"):
        Eval(suite="aime24", samples=Rounds(min=2, max=8, until_width=3.0), k=(1, 4))
    recipe = load_recipe("quickstart").recipe
    with pytest.raises(UsageError, match="alone has no end"):
        suite_specs(recipe, (), until_width=3.0)
    with pytest.raises(UsageError, match="min = 8 is above"):
        suite_specs(recipe, (), samples=(8, 2), until_width=3.0)
    for text in ("x", "0", "2..x", "0..3"):
        with pytest.raises(UsageError, match="neither a number nor a range"):
            _samples(text)
    assert (_samples("4"), _samples("2..32")) == (4, (2, 32))


def test_plans_know_least_expected_and_most_samples() -> None:
    table = "eval.heldout.samples={min=2, max=32, until_width=6.0}"
    recipe = load_recipe("quickstart", [table, "eval.heldout.k=[1]"]).recipe
    (one,) = planned_samples(recipe)
    # 256 problems: 2 * 1.96 * sqrt((1/8 + 1/8 n) / 256) never falls to 0.06, but to 0.10.
    assert (one["min"], one["expected"], one["max"]) == (2, 2, 32)
    assert Rounds(min=2, max=32, until_width=10.0).expected(256) == 4
    assert Rounds(min=2, max=32, until_width=9.0).expected(256) == 13
    assert json.loads(json.dumps(one))["until_width"] == 6.0
