"""Evaluations are made in rounds, go on where they stopped, and compare like with like."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from budgetrl.engine.base import SAMPLER_VERSION, Request, SamplingSpec, StopCheck, sample_seed
from budgetrl.engine.scripted import ScriptedEngine
from budgetrl.errors import DataError, ProtocolError
from budgetrl.evaluation.compare import describe_differences, difference
from budgetrl.evaluation.passk import pass_at_k, wilson_interval
from budgetrl.evaluation.rows import load_eval, load_rows
from budgetrl.evaluation.run import Progress, evaluate
from budgetrl.evaluation.suite import PromptedProblem, Suite, protocol_in, protocol_of
from budgetrl.recipe.load import load_recipe
from budgetrl.types import Completion, EvalResult, Problem, Protocol, Verdict

PROBLEMS = [
    PromptedProblem(Problem(f"p{i}", f"What is {i}?", str(i)), f"{i}?", ()) for i in range(6)
]
PROTOCOL = protocol_of(
    "sums", PROBLEMS, temperature=0.6, top_p=0.95, max_tokens=64, seed=7, grader="exact-1"
)


@dataclass(frozen=True)
class Graded:
    verdict: Verdict
    extracted: str | None


class ExactGrader:
    """Judges the whole completion as the answer."""

    def grade(self, rows: Sequence[tuple[str, str]]) -> list[Graded]:
        return [self._one(completion, gold) for completion, gold in rows]

    def _one(self, completion: str, gold: str) -> Graded:
        if not completion:
            return Graded(Verdict.UNPARSABLE, None)
        if completion == "crash":
            return Graded(Verdict.ERROR, None)
        right = completion == gold
        return Graded(Verdict.CORRECT if right else Verdict.WRONG, completion)


class Recorder(ScriptedEngine):
    """A script that remembers what it was asked, and can stop after some completions."""

    def __init__(self, script: dict[tuple[str, int | None], Completion], limit: int = 10**6):
        super().__init__(script)
        self.asked: list[Request] = []
        self.sampling: SamplingSpec | None = None
        self.limit = limit

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Completion | None]:
        self.sampling = sampling
        whole = super().generate(requests, sampling, should_stop)
        allowed = self.limit - len(self.asked)
        self.asked += requests[: max(0, allowed)]
        return [c if i < allowed else None for i, c in enumerate(whole)]


def script(right: dict[str, Sequence[int]]) -> dict[tuple[str, int | None], Completion]:
    """Right answers at the given rounds of each problem, wrong ones elsewhere."""
    return {
        (f"p{i}", sample): Completion(
            str(i) if sample in right.get(f"p{i}", ()) else "wrong", 10 + i + sample, sample == 3
        )
        for i in range(6)
        for sample in range(8)
    }


HALF = script({"p0": range(8), "p1": [0, 2], "p2": [1], "p5": [3]})


def run(policy: Recorder, folder: Path, **changed: object) -> EvalResult | None:
    asked = {key: changed.pop(key) for key in ("ks", "batch", "stop") if key in changed}
    rounds = changed.pop("samples", 4)
    suite = replace(Suite(PROBLEMS, PROTOCOL, rounds, (1, 2, 4), 6), **asked)  # type: ignore[arg-type]
    arguments = {"when": "final", "step": 9} | changed
    return evaluate(  # type: ignore[call-overload]
        policy, suite, grader=ExactGrader(), folder=folder, **arguments
    )


def test_result_equals_the_counts_and_is_stored(tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = run(Recorder(HALF), tmp_path, on_progress=seen.append)
    assert result is not None
    assert (result.problems, result.samples, result.step, result.when) == (6, 4, 9, "final")
    correct = [4, 2, 1, 0, 0, 1]
    for k in (1, 2, 4):
        expected = sum(pass_at_k(4, c, k) for c in correct) / 6
        assert result.pass_at[k] == pytest.approx(expected)
    assert result.truncated_share == 0.25
    assert result.completion_tokens_mean == pytest.approx(14.0)
    assert result.correct_tokens_mean == pytest.approx(sum([10, 11, 12, 13, 11, 13, 13, 18]) / 8)
    assert result.maj_at == {2: pytest.approx(2 / 6), 4: pytest.approx(1.5 / 6)}
    stored = load_eval(tmp_path / "final.jsonl")
    assert stored.result == result
    assert stored.rounds() == 4
    assert seen[-1].done == seen[-1].total == 24


def test_round_i_gives_every_problem_its_ith_sample_with_its_own_seed(tmp_path: Path) -> None:
    policy = Recorder(HALF)
    run(policy, tmp_path, batch=4)
    assert [request.sample for request in policy.asked] == [i // 6 for i in range(24)]
    assert {(r.problem_id, r.seed) for r in policy.asked[6:12]} == {
        (f"p{i}", sample_seed(7, f"p{i}", 1)) for i in range(6)
    }
    assert policy.sampling == SamplingSpec(0.6, 0.95, 64)


def test_a_stop_cuts_rounds_never_problems(tmp_path: Path) -> None:
    result = run(Recorder(HALF, limit=15), tmp_path)
    assert result is not None
    assert result.samples == 2
    assert set(result.pass_at) == {1, 2}
    assert run(Recorder(HALF, limit=5), tmp_path / "other") is None


def test_a_continued_evaluation_repeats_no_completion_and_gives_the_same_verdicts(
    tmp_path: Path,
) -> None:
    whole = run(Recorder(HALF), tmp_path / "once")
    first = Recorder(HALF, limit=9)
    run(first, tmp_path / "twice", batch=4)
    file = tmp_path / "twice/final.jsonl"
    with file.open("ab") as torn:
        torn.write(b'{"problem_id": "p3", "sam')
    second = Recorder(HALF)
    continued = run(second, tmp_path / "twice", batch=4)
    asked = [(r.problem_id, r.sample) for r in first.asked + second.asked]
    assert len(asked) == len(set(asked)) == 24
    assert whole is not None
    assert continued is not None
    assert replace(continued, seconds=0) == replace(whole, seconds=0)
    rows = {(r.problem_id, r.sample): r for r in load_rows(tmp_path / "once/final.jsonl")}
    assert {(r.problem_id, r.sample): r for r in load_rows(file)} == rows
    third = Recorder(HALF)
    assert run(third, tmp_path / "twice") == continued
    assert third.asked == []


def test_more_samples_extend_the_same_file(tmp_path: Path) -> None:
    run(Recorder(HALF), tmp_path)
    policy = Recorder(HALF)
    result = run(policy, tmp_path, samples=8)
    assert len(policy.asked) == 24
    assert result is not None
    assert result.samples == 8


def test_other_weights_under_the_same_name_begin_anew_and_keep_the_old_files(
    tmp_path: Path,
) -> None:
    run(Recorder(HALF), tmp_path, policy_id="step 9")
    better = Recorder(script({f"p{i}": range(8) for i in range(6)}))
    result = run(better, tmp_path, policy_id="step 12")
    assert len(better.asked) == 24
    assert result is not None
    assert result.pass_at[1] == 1.0
    assert load_eval(tmp_path / "final.1.json").policy == "step 9"
    assert len(load_rows(tmp_path / "final.1.jsonl")) == 24


def test_another_protocol_under_the_same_name_is_refused(tmp_path: Path) -> None:
    run(Recorder(HALF), tmp_path)
    hotter = replace(PROTOCOL, temperature=1.0)
    with pytest.raises(ProtocolError, match=r"temperature \(0.6 and 1.0\)"):
        evaluate(
            Recorder(HALF), Suite(PROBLEMS, hotter, 1, (1,), 6), grader=ExactGrader(),
            folder=tmp_path, when="final", step=0,
        )  # fmt: skip


def test_a_grader_fault_is_no_wrong_answer(tmp_path: Path) -> None:
    faulty = HALF | {("p0", 2): Completion("crash", 3, False)}
    with pytest.raises(DataError, match="p0"):
        run(Recorder(faulty), tmp_path)
    many = [PromptedProblem(Problem(f"q{i}", f"{i}?", str(i)), f"{i}?", ()) for i in range(40)]
    answers: dict[tuple[str, int | None], Completion] = {
        (f"q{i}", None): Completion(str(i), 1, False) for i in range(40)
    }
    answers["q7", None] = Completion("crash", 1, False)
    protocol = protocol_of(
        "many", many, temperature=0, top_p=1, max_tokens=8, seed=1, grader="exact-1"
    )
    result = evaluate(
        Recorder(answers), Suite(many, protocol, 1, (1,), 64), grader=ExactGrader(),
        folder=tmp_path / "many", when="baseline", step=0,
    )  # fmt: skip
    assert result is not None
    assert (result.problems, result.pass_at[1]) == (39, 1.0)
    assert result.interval_95[1] == wilson_interval(39, 39)


def test_empty_suites_and_repeated_ids_are_refused(tmp_path: Path) -> None:
    for problems, message in ([], "holds no problems"), ([PROBLEMS[0]] * 2, "p0"):
        with pytest.raises(DataError, match=message):
            evaluate(
                Recorder(HALF), Suite(problems, PROTOCOL, 1, (1,), 6), grader=ExactGrader(),
                folder=tmp_path, when="final", step=0,
            )  # fmt: skip


def test_difference_uses_the_rounds_that_both_sides_have(tmp_path: Path) -> None:
    run(Recorder(HALF), tmp_path, when="baseline")
    run(Recorder(script({f"p{i}": range(8) for i in range(6)}), limit=20), tmp_path)
    final, base = load_eval(tmp_path / "final.json"), load_eval(tmp_path / "baseline.jsonl")
    found = difference(final, base)
    assert set(found) == {1, 2}
    assert found[1].samples == 3
    assert found[1].difference == pytest.approx(1 - (3 + 2 + 1) / 18)
    reverse = difference(base, final)[1]
    assert reverse.difference == pytest.approx(-found[1].difference)
    assert found[1].interval_95 is not None
    assert reverse.interval_95 == pytest.approx(
        (-found[1].interval_95[1], -found[1].interval_95[0])
    )


def test_different_protocols_and_missing_rounds_are_not_compared(tmp_path: Path) -> None:
    run(Recorder(HALF), tmp_path, when="baseline")
    run(Recorder(HALF, limit=3), tmp_path)
    base, final = load_eval(tmp_path / "baseline.json"), load_eval(tmp_path / "final.json")
    with pytest.raises(ProtocolError, match="no round is complete"):
        difference(base, final)
    other = replace(base, protocol=replace(PROTOCOL, max_tokens=99, seed=1))
    with pytest.raises(ProtocolError, match=r"max_tokens \(64 and 99\), seed \(7 and 1\)"):
        difference(base, other)


def test_protocol_depends_on_prompts_problems_and_stop_texts() -> None:
    def protocol(prompted: Sequence[PromptedProblem], stop: Sequence[str] = ()) -> Protocol:
        return protocol_of(
            "sums", prompted, temperature=0.6, top_p=0.95, max_tokens=64, seed=7,
            grader="exact-1", stop=stop,
        )  # fmt: skip

    asked_differently = [replace(item, prompt=f"Please: {item.prompt}") for item in PROBLEMS]
    assert PROTOCOL.differences(protocol(PROBLEMS)) == []
    assert PROTOCOL.differences(protocol(asked_differently)) == ["prompt"]
    assert PROTOCOL.differences(protocol(PROBLEMS, ["\n\n"])) == ["prompt"]
    assert "suite_fingerprint" in PROTOCOL.differences(protocol(PROBLEMS[:5]))


def test_a_protocol_names_the_sampler_where_this_engine_drew_at_random() -> None:
    recipe = load_recipe("quickstart").recipe
    drawn, greedy = (
        protocol_in(recipe, recipe.eval[0].model_copy(update={"temperature": t}), [], "g", None)
        for t in (1.0, 0.0)
    )
    assert (drawn.sampler, greedy.sampler) == (SAMPLER_VERSION, None)
    before = replace(drawn, sampler=None)
    assert describe_differences(before, drawn) == f"sampler (None and {SAMPLER_VERSION})"


def test_rows_that_nobody_could_have_written_are_left_out(tmp_path: Path) -> None:
    run(Recorder(HALF), tmp_path)
    file = tmp_path / "final.jsonl"
    rows = load_rows(file)
    line = json.loads(file.read_text().splitlines()[0])
    odd = [{"tokens": 1e400}, {"sample": -1}, {"tokens": None}, {"sample": "x"}, {"seed": 1e400}]
    lines = [json.dumps(line | change) + "\n" for change in odd]
    file.write_text("".join(lines) + "[" * 100_000 + "\n" + file.read_text())
    assert load_rows(file) == rows


def test_unreadable_evaluations_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="passwd: is neither a run nor a file"):
        load_eval(tmp_path / "passwd")
    for text in ("[" * 100_000, '{"schema_version": 1}', "\xff"):
        (tmp_path / "odd.json").write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match="is not an evaluation"):
            load_eval(tmp_path / "odd.json")
    with pytest.raises(DataError, match="cannot be read"):
        load_eval(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(DataError, match="is not an evaluation"):
        load_eval(tmp_path / "other.json")
    run(Recorder(HALF), tmp_path)
    data = json.loads((tmp_path / "final.json").read_text())
    (tmp_path / "final.json").write_text(json.dumps(data | {"k": [1e400]}))
    with pytest.raises(DataError, match="is not an evaluation"):
        load_eval(tmp_path / "final.json")
    (tmp_path / "final.json").write_text(json.dumps(data | {"schema_version": 99}))
    with pytest.raises(DataError, match="newer budgetrl"):
        load_eval(tmp_path / "final.json")
