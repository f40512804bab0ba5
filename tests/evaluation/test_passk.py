"""pass@k, maj@k and their intervals equal what one gets by exact or brute-force arithmetic."""

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, strategies as st

from budgetrl.errors import UsageError
from budgetrl.evaluation.passk import (
    bootstrap_interval,
    maj_at_k,
    mean_interval,
    paired_difference,
    paired_pass_difference,
    pass_at_k,
    pass_interval,
    wilson_interval,
)
from budgetrl.student_t import MANY, t_quantile

VERDICTS = (
    Path(__file__).resolve().parents[3] / "shared/data/results/qwen_math100_n8_verdicts.jsonl"
)


@st.composite
def n_c_k(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 1024))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(n_c_k())
def test_pass_at_k_equals_exact_rational_arithmetic(case: tuple[int, int, int]) -> None:
    n, c, k = case
    miss = Fraction(1)
    for i in range(k):
        miss *= Fraction(max(0, n - c - i), n - i)
    assert pass_at_k(n, c, k) == pytest.approx(float(1 - miss), abs=1e-12)


def test_pass_at_k_equals_enumeration_of_all_subsets() -> None:
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            samples = [1] * c + [0] * (n - c)
            subsets = list(itertools.combinations(samples, k))
            assert pass_at_k(n, c, k) == pytest.approx(fmean(max(s) for s in subsets), abs=1e-12)


@pytest.mark.skipif(not VERDICTS.is_file(), reason=f"{VERDICTS} is not here")
def test_pass_at_k_of_real_verdicts_equals_enumeration() -> None:
    rows = [json.loads(line)["correct"] for line in VERDICTS.read_text().splitlines()]
    for k in (1, 2, 4, 8):
        brute = fmean(fmean(any(s) for s in itertools.combinations(row, k)) for row in rows)
        ours = fmean(pass_at_k(len(row), sum(row), k) for row in rows)
        assert ours == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(8, 3, 9), (8, 3, 0), (8, 9, 1), (8, -1, 1), (0, 0, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(UsageError):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("df", "value"),  # Abramowitz and Stegun, table 26.10
    [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (29, 2.045), (120, 1.980)],
)
def test_t_quantile_equals_the_table(df: int, value: float) -> None:
    assert t_quantile(df) == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.9995])
def test_t_quantile_of_many_values_goes_on_where_that_of_fewer_ends(level: float) -> None:
    exact, expanded = t_quantile(MANY, level), t_quantile(MANY + 1, level)
    assert 0 < exact - expanded < 3e-7


@pytest.mark.parametrize(
    ("df", "one_sided", "value"), [(3, 0.1, 1.638), (4, 0.05, 2.132), (29, 0.005, 2.756)]
)
def test_t_quantile_of_other_levels(df: int, one_sided: float, value: float) -> None:
    assert t_quantile(df, 1 - 2 * one_sided) == pytest.approx(value, abs=6e-4)


def test_wilson_interval_equals_its_textbook_value_and_stays_inside_the_unit_interval() -> None:
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson_interval(0, 30) == pytest.approx((0.0, 0.1135), abs=1e-4)
    assert wilson_interval(30, 30)[1] == 1.0
    with pytest.raises(UsageError):
        wilson_interval(0, 0)


def test_one_problem_has_no_interval() -> None:
    assert mean_interval([0.5]) is None
    assert bootstrap_interval([0.5]) is None
    assert pass_interval([3], 8, 1) is None
    assert paired_difference([[1, 0]], [[0, 0]]) == (0.5, None, None)
    assert paired_pass_difference([2], [1], 4, 2)[1] is None


def test_mean_interval_is_over_problems_not_over_samples() -> None:
    few = mean_interval([0.0, 1.0] * 15)
    assert few is not None
    half = t_quantile(29) * math.sqrt(30 / 29 * 0.25 / 30)
    assert few == pytest.approx((0.5 - half, 0.5 + half))
    assert pass_interval([0, 16] * 15, 16, 1) == pytest.approx(few)


def test_single_samples_get_the_wilson_interval() -> None:
    assert pass_interval([1, 0, 1, 1], 1, 1) == wilson_interval(3, 4)


@pytest.mark.parametrize("k", [1, 4])
def test_a_suite_without_any_spread_is_not_called_certain(k: int) -> None:
    assert pass_interval([0] * 30, 16, k) == wilson_interval(0, 30)
    assert pass_interval([16] * 30, 16, k) == wilson_interval(30, 30)


def test_too_few_rare_problems_for_a_bootstrap_give_a_wider_interval() -> None:
    counts = [16] * 28 + [8, 2]
    values = [pass_at_k(16, c, 8) for c in counts]
    interval, resampled = pass_interval(counts, 16, 8), bootstrap_interval(values)
    assert interval is not None
    assert resampled is not None
    assert interval[0] < resampled[0]
    assert interval[1] == 1.0 or interval[1] > resampled[1] - 0.02


@given(st.lists(st.integers(0, 8), min_size=2, max_size=30), st.sampled_from([1, 2, 8]))
def test_intervals_repeat_hold_the_estimate_and_stay_inside_the_unit_interval(
    counts: list[int], k: int
) -> None:
    interval = pass_interval(counts, 8, k)
    assert interval is not None
    estimate = fmean(pass_at_k(8, c, k) for c in counts)
    assert 0 <= interval[0] <= estimate + 1e-12
    assert estimate - 1e-12 <= interval[1] <= 1
    assert interval == pass_interval(counts, 8, k)


def test_paired_difference_is_a_minus_b_with_students_t_over_problems() -> None:
    a, b = [[1, 1], [1, 0], [0, 0]], [[0, 0], [1, 0], [0, 1]]
    difference, low, high = paired_difference(a, b)
    assert difference == pytest.approx((1 + 0 - 0.5) / 3)
    assert (low, high) == pytest.approx(mean_interval([1, 0, -0.5]))
    assert paired_difference(b, a)[0] == pytest.approx(-difference)
    assert paired_pass_difference([2, 1, 0], [0, 1, 1], 2, 1) == (
        pytest.approx(difference),
        pytest.approx((low, high)),
    )


def test_unpaired_problems_are_refused() -> None:
    for a, b in ([], []), ([[1]], [[1], [0]]), ([[1], []], [[1], [0]]):
        with pytest.raises(UsageError):
            paired_difference(a, b)


def test_majority_vote_pools_right_answers_and_splits_ties() -> None:
    assert maj_at_k(["1/2", "0.5", "3", "3", "3"], [True, True, False, False, False], 5) == 0.0
    assert maj_at_k(["1/2", "0.5", "3"], [True, True, False], 3) == 1.0
    assert maj_at_k(["1", "2"], [True, False], 2) == 0.5
    assert maj_at_k([None, None], [False, False], 2) == 0.0
    assert maj_at_k([None, "1", "2", None], [False, True, False, False], 2) == 0.5
    with pytest.raises(UsageError):
        maj_at_k(["1"], [True], 2)
