"""The audit's arithmetic holds on known data, and its page is the one that the script makes."""

import importlib.util
import random
import sys
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from budgetrl.evaluation.passk import mean_interval

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("paper_audit", ROOT / "scripts/paper_audit.py")
assert spec is not None
assert spec.loader is not None
audit = importlib.util.module_from_spec(spec)
sys.modules["paper_audit"] = audit
spec.loader.exec_module(audit)


def test_allowed_spread_holds_the_true_spread_of_any_counts() -> None:
    draw = random.Random(1)
    for _ in range(200):
        rate = draw.random()
        counts = [draw.choice((0, draw.randint(1, 16), 16)) if draw.random() < rate else 0
                  for _ in range(30)]  # fmt: skip
        rates = [count / 16 for count in counts]
        solved = fmean(count > 0 for count in counts)
        bounds = audit.allowed_spread(fmean(rates), solved)
        assert bounds.low - 1e-9 <= pstdev(rates) <= bounds.high + 1e-9


def test_needed_correlation_is_where_the_interval_touches_zero() -> None:
    for difference, a, b in ((0.11, 0.3, 0.35), (0.05, 0.2, 0.2), (0.2, 0.3, 0.4)):
        needed = audit.needed_correlation(difference, a, b, 30)
        assert audit.half_width(a, b, needed, 30) == pytest.approx(difference)


def test_half_width_of_paired_results_is_students_t() -> None:
    draw = random.Random(2)
    values = [draw.random() for _ in range(30)]
    low, high = mean_interval(values) or (0.0, 0.0)
    assert audit.half_width(pstdev(values), 0.0, 0.0, 30) == pytest.approx((high - low) / 2)


def test_audit_finds_what_is_wrong_with_table_1() -> None:
    paper = audit.read_paper()
    assert len(paper) == 5
    impossible = {
        (model, when, suite, k)
        for model, numbers in paper.items()
        for when in ("baseline", "final")
        for suite, k, figure in audit.figures_of(numbers, when)
        if not audit.possible_samples([figure], [16])
    }
    deep = ("DeepScaleR-1.5B-Preview", "baseline")
    assert {row for row in impossible if row[:2] == deep} == {
        (*deep, "aime24", 1), (*deep, "aime24", 16), (*deep, "aime25", 16), (*deep, "amc23", 16),
    }  # fmt: skip
    assert len(impossible) == 5  # and Qwen2.5-Instruct's final 16.6
    verdicts = {row[0][:20]: row[1] for row in audit.claims(paper)}
    assert "contradicted by Table 2" in verdicts.values()


@pytest.mark.skipif(not audit.SEEDS.is_file(), reason=f"{audit.SEEDS} is not here")
def test_the_committed_page_is_what_the_script_makes() -> None:
    assert audit.PAGE.read_text() == audit.page(audit.read_paper(), audit.SEEDS)
