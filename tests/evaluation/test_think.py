"""Budget forcing: limits of thinking, closing text, nudges, and thinking drawn only once."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from budgetrl.budget import Limits
from budgetrl.cli import main
from budgetrl.engine.base import Request, SamplingSpec, StopCheck
from budgetrl.engine.thinking import ThinkBudget, ThinkingPolicy, Trajectories
from budgetrl.errors import RecipeError, UsageError
from budgetrl.evaluation.judge import evaluate_target
from budgetrl.evaluation.rows import load_eval, load_rows
from budgetrl.evaluation.run import never
from budgetrl.evaluation.specs import suite_specs
from budgetrl.evaluation.target import find_target
from budgetrl.plan import make_plan
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.window import fit_answers
from budgetrl.types import Completion

MODEL = "asset:tiny/quickstart"
END = 0
SAMPLING = SamplingSpec(1.0, 1.0, 999)


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def decode(ids: Sequence[int]) -> str:
    return "".join(chr(i) for i in ids if i != END)


class Writer:
    """One character is one token; goes on in a text of its own, or answers what was closed."""

    def __init__(self, text: str, answer: str = "42", stops: int = 10**9) -> None:
        self.text, self.answer, self.left = text, answer, stops
        self.asked: list[tuple[str, int]] = []
        self.calls: list[int] = []
        self.stems: list[int] = []

    end_ids = frozenset([END])

    def decode(self, ids: Sequence[int]) -> str:
        return decode(ids)

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Completion | None]:
        made: list[Completion | None] = []
        self.calls.append(len(requests))
        for request in requests:
            self.left -= 1
            self.stems.append(request.stem)
            so_far = decode(request.prompt_ids[1:])
            if self.text.startswith(so_far):
                rest = self.text[len(so_far) :]
            elif so_far.endswith("Wait"):
                rest = "...</think>7"
            else:
                rest = self.answer
            self.asked.append((so_far, sampling.max_tokens))
            ids = [*ids_of(rest), END][: sampling.max_tokens]
            cut = ids[-1:] != [END]
            done = Completion(decode(ids), len(ids), cut, tuple(ids))
            made.append(None if self.left < 0 else done)
        return made


BUDGET = ThinkBudget(
    max_tokens=12,
    answer_tokens=6,
    close_ids=ids_of("</think>\n"),
    open_tag="<think>",
    close_tag="</think>",
    nudge_ids=ids_of("Wait"),
    max_nudges=0,
)


def answer(
    writer: Writer, budget: ThinkBudget = BUDGET, memory: Trajectories | None = None
) -> Completion | None:
    policy = ThinkingPolicy(writer, budget, memory)  # type: ignore[arg-type]
    (made,) = policy.generate([Request("p", (1,), 0, 5)], SAMPLING, never)
    return made


def test_at_the_limit_the_closing_text_is_appended_and_the_answer_is_written() -> None:
    made = answer(Writer("<think>1234567890</think>9"))
    assert made is not None and made.thinking is not None
    assert made.text == "<think>12345</think>\n42"
    assert (made.num_tokens, made.truncated) == (12 + 3, False)  # "42" and its end token
    assert (made.thinking.tokens, made.thinking.appended, made.thinking.forced) == (12, 9, True)


def test_thinking_that_ends_in_time_is_left_alone() -> None:
    made = answer(Writer("<think>1</think>9"), replace(BUDGET, max_tokens=20))
    assert made is not None and made.thinking is not None
    assert (made.text, made.num_tokens, made.truncated) == ("<think>1</think>9", 18, False)
    assert (made.thinking.tokens, made.thinking.appended, made.thinking.forced) == (8, 0, False)
    guessed = answer(Writer("9"))
    assert guessed is not None and guessed.thinking is not None
    assert (guessed.text, guessed.thinking.tokens) == ("9", 0)


def test_an_answer_that_the_limit_cuts_goes_on_and_has_its_own_limit() -> None:
    writer = Writer("<think>1</think>123456789")
    made = answer(writer, replace(BUDGET, max_tokens=18))
    assert made is not None and made.thinking is not None
    assert made.text == "<think>1</think>123456"
    assert made.truncated and not made.thinking.forced and made.thinking.appended == 0
    assert writer.asked[-1] == ("<think>1</think>12", 4)


def test_below_the_least_the_end_of_thinking_is_replaced_by_the_nudge() -> None:
    budget = replace(BUDGET, max_tokens=30, min_tokens=15, max_nudges=1)
    made = answer(Writer("<think>1</think>9"), budget)
    assert made is not None and made.thinking is not None
    assert made.text == "<think>1Wait...</think>7"
    assert (made.thinking.nudges, made.thinking.appended, made.thinking.tokens) == (1, 4, 11)
    assert made.num_tokens == len(made.text) - 4 + 1
    # One nudge and no more; and none for what never began to think.
    twice = answer(Writer("<think>1</think>9"), replace(budget, min_tokens=25))
    assert twice is not None and twice.text == made.text
    guessed = answer(Writer("9"), budget)
    assert guessed is not None and guessed.text == "9"


def test_without_tags_all_is_thinking_and_a_prompt_may_have_begun_it() -> None:
    whole = replace(BUDGET, open_tag=None, close_tag=None, close_ids=ids_of(" So: "))
    made = answer(Writer("1+1 is two, or not"), whole)
    assert made is not None and made.thinking is not None
    assert (made.text, made.thinking.tokens) == ("1+1 is two,  So: 42", 12)
    begun = answer(Writer("12</think>9"), replace(BUDGET, open_tag=None))
    assert begun is not None and begun.thinking is not None
    assert (begun.text, begun.thinking.tokens) == ("12</think>9", 2)


def test_a_stop_in_either_pass_leaves_the_completion_out() -> None:
    text = "<think>1234567890</think>9"
    assert answer(Writer(text, stops=0)) is None
    assert answer(Writer(text, stops=1)) is None
    assert answer(Writer(text, stops=2)) is not None


def test_a_shorter_limit_takes_its_thinking_from_a_longer_one() -> None:
    text, memory = "<think>1234567890abcdef</think>9", Trajectories()
    longest = replace(BUDGET, max_tokens=20)
    answer(Writer(text), longest, memory)
    for limit in (16, 12, 8):
        writer = Writer(text)
        made = answer(writer, replace(BUDGET, max_tokens=limit), memory)
        assert made == answer(Writer(text), replace(BUDGET, max_tokens=limit))
        assert [len(asked) for asked, _ in writer.asked] == [limit + 9]  # only the answer
    writer = Writer(text)
    answer(writer, replace(BUDGET, max_tokens=24), memory)
    assert writer.asked[0][0] == ""  # a longer one starts over


def test_answers_of_lower_limits_are_drawn_ahead_and_are_the_same() -> None:
    text, memory = f"<think>{'1+2+' * 10}</think>9", Trajectories()
    limits = [replace(BUDGET, max_tokens=limit) for limit in (40, 12, 8)]
    writer = Writer(text)
    requests = [Request("p", (1,), sample, 5) for sample in range(4)]
    for place, budget in enumerate(limits):
        policy = ThinkingPolicy(writer, budget, memory, limits[place + 1 :])  # type: ignore[arg-type]
        made = policy.generate(requests, SAMPLING, never)
        assert made == [answer(Writer(text), budget)] * 4
    # Thinking once, and answers in two passes: all in one would hold more than the longest alone.
    assert writer.calls == [4, 4, 8]
    one = ThinkingPolicy(writer, limits[0], Trajectories(), limits[1:], rows=16)  # type: ignore[arg-type]
    one.generate(requests, SAMPLING, never)
    assert writer.calls[3:] == [4, 12]  # but there is room for more rows
    # What is thought is read with the longest, up to where each was cut.
    assert writer.stems[-12:] == [0] * 4 + [1 + 12] * 4 + [1 + 8] * 4


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "sums.jsonl"
    sums = ["7+5-8+2", "3+4-1", "9-2+5", "8+1-6+4", "2+6-3", "1+9-4", "5+8-7", "6+3-2+1"]
    rows = [{"id": s, "problem": f"Compute {s}.", "answer": str(eval(s))} for s in sums]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_limits_of_a_real_model_share_thinking_and_are_what_each_alone_would_be(
    tmp_path: Path, suite: Path
) -> None:
    target = find_target(MODEL, "quickstart")

    def think(limits: Sequence[int], out: str) -> dict[int, Path]:
        specs = suite_specs(target.recipe, [str(suite)], samples=2, ks=[1], think=limits)
        done = evaluate_target(target, specs, tmp_path / out)
        return {
            json.loads(one.protocol.think or "")["max_tokens"]: one.completions_file for one in done
        }

    together, alone = think([24, 12], "together"), think([12], "alone")
    assert list(together) == [12, 24]
    first, second = load_rows(together[12]), load_rows(alone[12])
    assert first == second and len(first) == 16
    forced = [row for row in first if row.thinking is not None and row.thinking.forced]
    assert forced
    for row in forced:
        assert row.thinking is not None and row.thinking.tokens <= 12
        assert row.tokens <= 12 + 64 and "</think>\n" in row.completion
    stored = load_eval(together[12])
    assert stored.result is not None and stored.result.think is not None
    assert stored.result.think["max_tokens"] == 12 and stored.protocol.max_tokens == 12 + 64
    assert 0 < stored.result.think["forced_share"] < 1
    assert stored.protocol != load_eval(together[24]).protocol


def test_bad_limits_are_refused(
    tmp_path: Path, suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = [
        "eval", MODEL, "--recipe", "quickstart", "--suite", str(suite), "--out", str(tmp_path)
    ]  # fmt: skip
    for options, message in (
        (["--think", "8,x"], "--think '8,x' is not a list of numbers"),
        (["--think", "8,9999"], "Thinking, closing text and answer have 192 tokens together"),
    ):
        assert main([*usual, *options]) == 2
        assert message in capsys.readouterr().err
    assert main(["eval", MODEL, "--suite", str(suite), "--out", str(tmp_path), "--think", "8"]) == 2
    assert "--think-whole" in capsys.readouterr().err
    target = find_target(MODEL, "quickstart")

    def refused(think: str) -> str:
        sets = [f"eval.heldout.think={think}", f"eval.heldout.path={suite}"]
        recipe = load_recipe("quickstart", sets).recipe
        with pytest.raises(RecipeError) as caught:
            evaluate_target(target, recipe.eval, tmp_path / "refused")
        return str(caught.value)

    assert "marks turns" in refused('{max_tokens=8, close="<|im_end|>"}')
    with pytest.raises(RecipeError, match="is above max_tokens"):
        load_recipe("quickstart", ["eval.heldout.think={max_tokens=8, min_tokens=9}"])
    with pytest.raises(UsageError, match="is above max_tokens"):
        recipe = load_recipe(
            "quickstart", ["eval.heldout.think={max_tokens=80, min_tokens=9}"]
        ).recipe
        suite_specs(recipe, (), think=[8])


def test_an_answer_has_what_the_window_leaves() -> None:
    recipe = load_recipe("quickstart", ["eval.heldout.think={max_tokens=150}"]).recipe
    assert recipe.answer_tokens(recipe.eval[0]) == 64
    (spec,) = fit_answers(recipe, 256).eval
    # 256 - 64 of the prompt - 150 - 9 bytes of the closing text
    assert spec.think is not None and spec.think.answer_tokens == 33


def test_a_plan_fits_answers_to_the_window_and_refuses_what_cannot_fit() -> None:
    limits = Limits(600.0)
    planned = make_plan(
        load_recipe("quickstart", ["eval.heldout.think={max_tokens=150}"]), limits, dry_run=True
    )
    (spec,) = planned.recipe.eval
    assert spec.think is not None and spec.think.answer_tokens == 33
    with pytest.raises(RecipeError, match=r"eval.heldout.think \(thinking and answer\)"):
        make_plan(load_recipe("quickstart", ["eval.heldout.think={max_tokens=999}"]), limits)
