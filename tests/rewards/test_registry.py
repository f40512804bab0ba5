"""A recipe's rewards as one sum: weights, faults, parameters and functions of the user's own."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from budgetrl.errors import RecipeError, RewardError
from budgetrl.recipe.schema import Reward
from budgetrl.rewards.own_files import find_function
from budgetrl.rewards.pool import GradedRow, GradingPool
from budgetrl.rewards.registry import RewardSum, build_reward, check_faults
from budgetrl.types import Completion, RewardBreakdown, Verdict

RIGHT, WRONG = "<think>a</think>\\boxed{1}", "<think>a</think>\\boxed{2}"
OWN_REWARDS = """
import math
print("imported")

def brevity(completion, num_tokens, scale=1.0, **row):
    return scale / num_tokens

def says_gold(gold, verdict, **row):
    return verdict == "correct" and gold == "1"

def breaks(completion, **row):
    return 1 / ("\\\\boxed{1}" not in completion)

def not_a_number(**row):
    return math.nan

constant = 5
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(workers=1) as made:
        yield made


@pytest.fixture
def own_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    file = tmp_path / "own_rewards.py"
    file.write_text(OWN_REWARDS)
    monkeypatch.chdir(tmp_path)
    yield file
    sys.modules.pop("own_rewards", None)


def reward_of(pool: GradingPool, *specs: Mapping[str, Any], **options: Any) -> RewardSum:
    defaults = {"prefilled": False, "max_tokens": 100, "allow_code": False}
    return build_reward([Reward(**spec) for spec in specs], pool=pool, **(defaults | options))


def score(
    reward: RewardSum, completions: Sequence[str], gold: str = "1", tokens: int = 10
) -> list[RewardBreakdown]:
    made = [Completion(text, tokens, False) for text in completions]
    return reward(made, [gold] * len(made))


def test_the_papers_reward_is_a_fifth_of_format_plus_accuracy(pool: GradingPool) -> None:
    reward = reward_of(pool, {"name": "accuracy"}, {"name": "format", "weight": 0.2})
    breakdowns = score(reward, [RIGHT, WRONG, "\\boxed{1}", "\\boxed{2}", "nothing"])
    assert [b.total for b in breakdowns] == pytest.approx([1.2, 0.2, 1.0, 0.0, 0.0])
    assert breakdowns[0].components == {"accuracy": 1.0, "format": 1.0}
    assert [b.verdict.value for b in breakdowns] == [
        *("correct", "wrong", "correct", "wrong", "unparsable")
    ]
    assert [b.extracted for b in breakdowns] == ["1", "2", "1", "2", None]


def test_a_prompt_that_opens_the_reasoning_counts(pool: GradingPool) -> None:
    reward = reward_of(pool, {"name": "format"}, prefilled=True)
    assert [b.total for b in score(reward, ["a</think>b", "<think>a</think>b"])] == [1.0, 0.0]


def test_length_rewards_use_the_recipes_token_limit(pool: GradingPool) -> None:
    reward = reward_of(pool, {"name": "cosine"}, {"name": "soft_overlong"}, {"name": "signed"})
    (short,), (long,) = score(reward, [RIGHT], tokens=0), score(reward, [WRONG], tokens=100)
    assert short.components == {"cosine": 1.0, "soft_overlong": 0.0, "signed": 1.0}
    assert long.components == {"cosine": -0.5, "soft_overlong": -1.0, "signed": -1.0}
    own = reward_of(pool, {"name": "cosine", "parameters": {"max_tokens": 50, "min_correct": 0.1}})
    assert score(own, [RIGHT], tokens=50)[0].total == pytest.approx(0.1)


def test_an_unusable_gold_is_an_error_and_never_a_zero(pool: GradingPool) -> None:
    reward = reward_of(pool, {"name": "accuracy"}, {"name": "format", "weight": 0.2})
    (breakdown,) = score(reward, [RIGHT], gold=" ")
    assert breakdown.total is None
    assert breakdown.verdict is Verdict.ERROR
    assert breakdown.components == {"accuracy": None, "format": 1.0}


class Slow:
    """A grader that needed too long for every answer."""

    def grade(self, rows: Sequence[tuple[str, str]]) -> Sequence[GradedRow]:
        return [GradedRow(Verdict.TIMEOUT, "x", 3.0) for _ in rows]


def test_an_answer_that_takes_too_long_is_not_right() -> None:
    reward = build_reward(
        [Reward(name="accuracy"), Reward(name="signed")], prefilled=False, max_tokens=9, pool=Slow()
    )
    (breakdown,) = score(reward, [RIGHT])
    assert breakdown.components == {"accuracy": 0.0, "signed": -1.0}
    assert breakdown.total == -1.0
    assert breakdown.verdict is Verdict.TIMEOUT


def test_a_function_of_ones_own_gets_the_row_and_its_parameters(
    pool: GradingPool, own_rewards: Path
) -> None:
    brevity = {"name": "own_rewards:brevity", "weight": 2.0, "parameters": {"scale": 3.0}}
    reward = reward_of(pool, brevity, {"name": "own_rewards:says_gold"}, allow_code=True)
    (breakdown,) = score(reward, [RIGHT], tokens=12)
    assert breakdown.components == {"own_rewards:brevity": 0.25, "own_rewards:says_gold": 1.0}
    assert breakdown.total == 1.5
    reward.close()


@pytest.mark.parametrize("name", ["own_rewards:breaks", "own_rewards:not_a_number"])
def test_a_faulty_reward_costs_its_row_and_no_other(
    pool: GradingPool, own_rewards: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    reward = reward_of(pool, {"name": "accuracy"}, {"name": name}, allow_code=True)
    faulty, other = score(reward, [RIGHT, WRONG])
    assert (faulty.total, faulty.verdict) == (None, Verdict.ERROR)
    assert faulty.components == {"accuracy": 1.0, name: None}
    if name.endswith("breaks"):
        assert other.total == 1.0
        assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_faulty_reward_without_weight_costs_nothing(pool: GradingPool, own_rewards: Path) -> None:
    broken = {"name": "own_rewards:not_a_number", "weight": 0.0}
    reward = reward_of(pool, {"name": "accuracy"}, broken, allow_code=True)
    assert score(reward, [RIGHT])[0].total == 1.0


def test_more_than_five_per_cent_of_faults_end_the_run() -> None:
    fine = RewardBreakdown(1.0, {}, Verdict.CORRECT, "1")
    faulty = RewardBreakdown(None, {}, Verdict.ERROR, "1")
    check_faults([])
    check_faults([fine] * 19 + [faulty])
    with pytest.raises(RewardError, match=r"2 of 20 completions") as caught:
        check_faults([fine] * 18 + [faulty] * 2)
    assert "budgetrl resume" in caught.value.hint


def test_code_is_run_only_when_allowed(pool: GradingPool, own_rewards: Path) -> None:
    with pytest.raises(RecipeError, match="--allow-code"):
        reward_of(pool, {"name": "own_rewards:brevity"})
    assert "own_rewards" not in sys.modules


def test_a_function_is_found_without_running_its_module(own_rewards: Path) -> None:
    assert find_function("own_rewards:brevity") == own_rewards.resolve()
    assert "own_rewards" not in sys.modules


def test_a_function_in_a_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("from math import sqrt as root\n")
    (tmp_path / "mine" / "deep.py").write_text("score = len\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_function("mine:root").name == "__init__.py"
    assert find_function("mine.deep:score").name == "deep.py"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("own_rewards:missing", "defines no missing"),
        ("nowhere_at_all:f", "no module nowhere_at_all"),
        ("broken:f", "is not Python"),
    ],
)
def test_a_function_that_is_not_there_is_named(own_rewards: Path, name: str, problem: str) -> None:
    (own_rewards.parent / "broken.py").write_text("def f(:")
    with pytest.raises(RecipeError, match=problem):
        find_function(name)


def test_what_is_no_function_or_fails_on_import_is_refused(
    pool: GradingPool, own_rewards: Path
) -> None:
    with pytest.raises(RecipeError, match="own_rewards:constant: it is no function"):
        reward_of(pool, {"name": "own_rewards:constant"}, allow_code=True)
    (own_rewards.parent / "failing.py").write_text("raise OSError('no')\ndef f(): ...")
    with pytest.raises(RecipeError, match="OSError: no"):
        reward_of(pool, {"name": "failing:f"}, allow_code=True)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"name": "accuracy", "parameters": {"strict": True}}, "unknown parameters strict"),
        ({"name": "cosine", "parameters": {"max_len": 5}}, "unknown parameters max_len"),
        ({"name": "cosine", "parameters": {"max_tokens": 0}}, "max_tokens = 0 must be"),
        ({"name": "cosine", "parameters": {"min_wrong": "low"}}, "min_wrong = 'low' must be"),
        ({"name": "cosine", "parameters": {"min_wrong": math.inf}}, "min_wrong = inf must be"),
        ({"name": "soft_overlong", "parameters": {"cache_tokens": True}}, "cache_tokens = True"),
        ({"name": "own-rewards:f"}, "unknown reward"),
        ({"name": "own_rewards:"}, "unknown reward"),
        ({"name": ":"}, "unknown reward"),
    ],
)
def test_wrong_names_and_parameters_are_refused_by_the_recipe(
    spec: Mapping[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        Reward.model_validate(spec)
