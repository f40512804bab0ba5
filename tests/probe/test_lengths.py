"""Which token limit a probe proposes, from completions of known lengths."""

import pytest

from budgetrl.engine.base import Request
from budgetrl.probe.lengths import Lengths, Written as W, candidates_of, limits_of, proposed
from budgetrl.types import Completion


def test_a_limit_cuts_what_is_longer_and_keeps_what_is_right_within_it() -> None:
    written = [W(10, True, True), W(20, True, True), W(30, False, True), W(60, True, True)]
    rows = limits_of(written, [8, 20, 32, 64], lambda tokens, mean: mean)
    assert [one.cut_share for one in rows] == [1.0, 0.5, 0.25, 0.0]
    assert [one.accuracy for one in rows] == [0.0, 0.5, 0.5, 0.75]
    assert [one.step_s for one in rows] == [8.0, 17.5, 23.0, 30.0]
    assert proposed(rows) == 64
    assert proposed(rows[:3]) is None


def test_cut_completions_count_by_what_became_of_some_of_them() -> None:
    lengths = Lengths()
    request = Request("p", (1,), 0, 1)
    whole, cut = Completion("", 10, False, (1,)), Completion("", 16, True, (1,) * 16)
    lengths.note([request] * 5, ["7"] * 5, [whole, cut, cut, cut, cut], [True] + [False] * 4)
    assert (lengths.num_cut, len(lengths.cut)) == (4, 4)
    # Nothing was written on: no limit above the recipe's is known.
    rows = limits_of(lengths.all(16), [8, 16, 32], lambda tokens, mean: None)
    assert [(one.max_tokens, one.cut_share) for one in rows] == [(8, 1.0), (16, 0.8)]
    lengths.longer += [W(24, True, True), W(64, False, False)]
    rows = limits_of(lengths.all(16), [16, 32, 64], lambda tokens, mean: None)
    assert [one.cut_share for one in rows] == pytest.approx([0.8, 0.4, 0.4])
    assert [one.accuracy for one in rows] == pytest.approx([0.2, 0.6, 0.6])


def test_candidates_lie_around_the_recipes_limit_and_within_the_window() -> None:
    assert candidates_of(64, None) == [16, 32, 48, 64, 96, 128, 192, 256]
    assert candidates_of(64, 100) == [16, 32, 48, 64, 96]
    assert candidates_of(3584, 8192)[-1] <= 8192
    assert limits_of([], [8], lambda tokens, mean: None) == [] and proposed([]) is None
