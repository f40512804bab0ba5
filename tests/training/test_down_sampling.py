"""The rows of a group that are trained on: those of largest variance."""

import random
from itertools import combinations
from statistics import pvariance

import pytest

from budgetrl.errors import RecipeError
from budgetrl.recipe.load import load_recipe
from budgetrl.training.down_sampling import down_sample, widest


def test_no_subset_has_a_larger_variance() -> None:
    draw = random.Random(1)
    for _ in range(300):
        size = draw.randint(2, 8)
        rewards = [draw.choice((0.0, 0.2, 1.0, 1.2, draw.random())) for _ in range(size)]
        count = draw.randint(2, size)
        found = pvariance([rewards[row] for row in widest(rewards, count)])
        most = max(pvariance(subset) for subset in combinations(rewards, count))
        assert found == pytest.approx(most, abs=1e-12)


def test_a_row_without_reward_is_never_kept_and_others_have_no_advantage() -> None:
    kept, advantages = down_sample([[1.0, None, 0.0, 0.2], [0.2] * 4, [None] * 4], 2, "group")
    assert kept == [True, False, True, False, True, True, False, False, *[False] * 4]
    assert advantages[0] == -advantages[2] == pytest.approx(0.5 / (0.5**0.5 + 1e-4))
    assert not any(advantages[1:2] + advantages[3:])


def test_a_distillation_learns_from_every_row() -> None:
    (part,) = load_recipe("quickstart_distill", ["signal.keep_rows=2"]).recipe.parts
    assert (part.signal.skip, part.signal.keep_rows) == ("off", None)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["signal.keep_rows=9"], r"keep_rows = 9 is above grpo\.num_generations = 8"),
        (["signal.keep_rows=4", "signal.skip=off"], r"keep_rows needs signal\.skip"),
        (["signal.keep_rows=1"], r"keep_rows = 1: input should be greater than or equal to 2"),
    ],
)
def test_what_would_keep_nothing_useful_is_refused(settings: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe("quickstart", settings)
