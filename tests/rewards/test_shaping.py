"""Format and length rewards: their formulas at the points that matter."""

import math

import pytest
from hypothesis import given, strategies as st

from budgetrl.rewards.shaping import cosine, signed, soft_overlong, think_format


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>why</think>5", 1.0),
        ("<think>\nwhy\n</think>\n\n5", 1.0),
        (" \n<think>why</think>5", 1.0),
        ("<think>why</think>", 0.0),
        ("<think>why</think> \n", 0.0),
        ("<think></think>5", 0.0),
        ("<think> \n </think>5", 0.0),
        ("so <think>why</think>5", 0.0),
        ("<think>why</think>b</think>5", 0.0),
        ("<think>a<think>why</think>5", 0.0),
        ("</think>why<think>5", 0.0),
        ("<Think>why</Think>5", 0.0),
        ("<THINK>why</THINK>5", 0.0),
        ("<think >why</think>5", 0.0),
        ("<think>why5", 0.0),
        ("why</think>5", 0.0),
        ("5", 0.0),
        ("", 0.0),
    ],
)
def test_the_format_is_each_tag_once_in_order_with_text_in_both_parts(
    completion: str, expected: float
) -> None:
    assert think_format(completion, prefilled=False) == expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("why</think>5", 1.0),
        ("\nwhy\n</think>\n5", 1.0),
        ("<think>why</think>5", 0.0),
        ("why <think> </think>5", 0.0),
        ("</think>5", 0.0),
        ("why</think>", 0.0),
        ("why</think>b</think>5", 0.0),
        ("why", 0.0),
    ],
)
def test_a_tag_in_the_prompt_counts_as_present_and_must_not_be_repeated(
    completion: str, expected: float
) -> None:
    assert think_format(completion, prefilled=True) == expected


@pytest.mark.parametrize(
    ("correct", "num_tokens", "expected"),
    [
        (True, 0, 1.0),
        (True, 500, 0.75),
        (True, 1000, 0.5),
        (True, 5000, 0.5),
        (True, 250, 0.5 + 0.25 * (1 + math.sqrt(0.5))),
        (False, 0, 0.0),
        (False, 500, -0.25),
        (False, 1000, -0.5),
        (False, 5000, -0.5),
    ],
)
def test_cosine_has_the_bounds_of_open_rs_and_tina(
    correct: bool, num_tokens: int, expected: float
) -> None:
    assert cosine(correct, num_tokens, max_tokens=1000) == pytest.approx(expected)


@given(st.integers(0, 3000), st.integers(1, 3000), st.integers(1, 3000))
def test_cosine_falls_with_length_and_right_beats_wrong(shorter: int, more: int, top: int) -> None:
    longer = shorter + more
    for correct in (True, False):
        assert cosine(correct, shorter, max_tokens=top) >= cosine(correct, longer, max_tokens=top)
    assert cosine(True, longer, max_tokens=top) > cosine(False, shorter, max_tokens=top)


def test_cosine_takes_other_bounds() -> None:
    bounds = {"min_correct": 0.0, "max_correct": 2.0, "min_wrong": -10.0, "max_wrong": 0.0}
    assert cosine(True, 0, max_tokens=10, **bounds) == 2.0
    assert cosine(False, 0, max_tokens=10, **bounds) == -10.0
    assert cosine(False, 10, max_tokens=10, **bounds) == pytest.approx(0.0)


def test_signed_is_one_or_minus_one() -> None:
    assert (signed(True), signed(False)) == (1.0, -1.0)


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [(0, 0.0), (16_384, 0.0), (18_432, -0.5), (20_480, -1.0), (20_481, -1.0), (99_999, -1.0)],
)
def test_soft_overlong_falls_over_the_last_tokens_as_in_dapo(
    num_tokens: int, expected: float
) -> None:
    assert soft_overlong(num_tokens, max_tokens=20_480, cache_tokens=4_096) == expected
