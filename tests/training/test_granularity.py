"""The granularity test finds what real counts give, and rejects what no counts can give."""

import random
from statistics import fmean

import pytest

from budgetrl.evaluation.granularity import Published, is_possible, possible_samples
from budgetrl.evaluation.passk import pass_at_k


@pytest.mark.parametrize("problems", [30, 40])
@pytest.mark.parametrize(("n", "k"), [(16, 1), (16, 8), (16, 16), (24, 8), (5, 3)])
def test_what_counts_give_is_possible(problems: int, n: int, k: int) -> None:
    draw = random.Random(problems * n + k)
    for _ in range(20):
        rate = draw.random()
        counts = [sum(draw.random() < rate for _ in range(n)) for _ in range(problems)]
        percent = round(100 * fmean(pass_at_k(n, c, k) for c in counts), 1)
        assert is_possible(Published(percent, problems, k), n)


@pytest.mark.parametrize(
    ("percent", "problems", "k"),  # the paper's DeepScaleR baseline
    [(28.9, 30, 1), (62.5, 30, 16), (45.2, 30, 16), (92.2, 40, 16)],
)
def test_the_papers_deepscaler_baseline_is_impossible_at_16_samples(
    percent: float, problems: int, k: int
) -> None:
    figure = Published(percent, problems, k)
    assert not is_possible(figure, 16)
    assert {32, 48, 64} <= set(possible_samples([figure], range(16, 65)))


def test_a_share_that_was_cut_off_is_impossible() -> None:
    assert is_possible(Published(16.7, 30, 16), 16)
    assert not is_possible(Published(16.6, 30, 16), 16)


def test_k_above_n_is_impossible() -> None:
    assert not is_possible(Published(50.0, 30, 16), 8)
