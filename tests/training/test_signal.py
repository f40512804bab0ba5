"""[signal]: leaving out what teaches nothing changes no gradient; the order finds what teaches."""

import random
from pathlib import Path
from typing import Any

import pytest
import test_grpo_oracle as harness
import torch

from budgetrl.data.difficulty import SolveRates
from budgetrl.data.sampler import ProblemSampler
from budgetrl.errors import RecipeError
from budgetrl.recipe.load import load_recipe
from budgetrl.training.signal import LIVE, padding_share, repack, swap_groups
from budgetrl.types import Problem

EXACT = '"exact"'


def test_micro_batches_are_filled_by_tokens_up_to_their_limit() -> None:
    batches = micro_batches([9, 1, 8, 2, 7, 3, 1, 1], parts=4)
    limit = 2 * (4 + 10)  # two rows of full length
    packed = repack(batches, loss_type="dapo", trim=True, max_cells=limit)
    rows = [batch["completion_ids"].shape[0] for batch in packed]
    assert rows == [2, 2, 4, 0]
    for batch in packed[:3]:
        assert batch["completion_ids"].shape[0] * (4 + batch["completion_ids"].shape[1]) <= limit
    assert sum(int(batch["completion_mask"].sum()) for batch in packed) == 32
    longest = repack(micro_batches([10] * 8, parts=4), loss_type="dapo", trim=True, max_cells=limit)
    assert [batch["completion_ids"].shape[0] for batch in longest] == [2, 2, 2, 2]


def test_an_update_without_any_signal_is_a_no_op(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "REWARDS", ((1.2,) * harness.GROUP,) * harness.PROMPTS)
    training = harness.train(tmp_path, signal__skip=EXACT)
    gradients = training.updates[0].gradients.values()
    assert all(bool((gradient == 0).all()) for gradient in gradients)


def test_equal_rewards_have_advantage_zero_in_float32_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "REWARDS", ((1.2,) * harness.GROUP,) * harness.PROMPTS)
    assert set(harness.train(tmp_path).recorded_advantages) == {0.0}


def micro_batches(lengths: list[int], parts: int = 2, width: int = 10) -> list[dict[str, Any]]:
    """Rows whose token ids are their number, right-padded completions, left-padded prompts."""
    rows = torch.arange(len(lengths))
    mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
    prompt_mask = (torch.arange(4)[None] >= 2).long().expand(len(lengths), 4)
    whole = {
        "prompt_ids": rows[:, None].expand(-1, 4).clone(),
        "prompt_mask": prompt_mask.clone(),
        "completion_ids": rows[:, None].expand(-1, width).clone(),
        "completion_mask": mask,
        "advantages": rows.float(),
    }
    size = len(lengths) // parts
    return [
        {k: v[i * size : (i + 1) * size] for k, v in whole.items()}
        | {"num_items_in_batch": mask.sum()}
        for i in range(parts)
    ]


def test_sorting_keeps_every_token_and_cuts_padding() -> None:
    batches = micro_batches([9, 1, 8, 2, 7, 3])
    packed = repack(batches, loss_type="dapo", trim=True)
    assert [batch["completion_ids"].shape for batch in packed] == [(3, 3), (3, 9)]
    assert all(batch["prompt_ids"].shape[1] == 2 for batch in packed)
    tokens = sum(int(batch["completion_mask"].sum()) for batch in packed)
    assert tokens == 30 == int(packed[0]["num_items_in_batch"])
    assert padding_share(packed) < padding_share(batches)
    rows = torch.cat([batch["advantages"] for batch in packed])
    assert sorted(rows.tolist()) == [0, 1, 2, 3, 4, 5]


def test_rows_that_divide_a_loss_are_made_up_for_in_advantages() -> None:
    batches = micro_batches([5] * 8)
    for batch, live in zip(batches, ([True, False] * 2, [False] * 4), strict=True):
        batch[LIVE] = torch.tensor(live)
    packed = repack(batches, loss_type="grpo", trim=False)
    assert [batch["advantages"].tolist() for batch in packed] == [[0.0], [0.5]]
    unscaled = repack(batches, loss_type="dapo", trim=False)
    assert [batch["advantages"].tolist() for batch in unscaled] == [[0.0], [2.0]]


def test_swapped_groups_are_padded_alike_and_counted_anew() -> None:
    batch = micro_batches([2, 2, 4, 4], parts=1, width=4)[0]
    fresh = micro_batches([6, 6, 1, 1], parts=1, width=6)[0]
    merged = swap_groups(batch, fresh, into=[2, 3], out_of=[0, 1])
    assert merged["completion_ids"].shape == (4, 6)
    assert merged["completion_mask"].sum(dim=1).tolist() == [2, 2, 6, 6]
    assert int(merged["num_items_in_batch"]) == 16
    assert merged["advantages"].tolist() == [0, 1, 0, 1]


def test_chance_of_a_mixed_group_is_that_of_draws() -> None:
    rates = SolveRates(decay=1.0)
    problem = Problem("a", "a?", "1")
    rates.observe(problem, 3, 8)
    alpha, beta = rates._posterior(problem)
    draw = random.Random(0)
    mixed = 0
    for _ in range(20_000):
        p = draw.betavariate(alpha, beta)
        solved = sum(draw.random() < p for _ in range(8))
        mixed += 0 < solved < 8
    assert rates.chance_of_signal(problem, 8) == pytest.approx(mixed / 20_000, abs=0.015)


def problems(count: int) -> list[Problem]:
    return [Problem(f"p{i}", f"{i}?", "1", level=str(i % 4)) for i in range(count)]


def test_the_order_by_difficulty_prefers_what_teaches_and_still_explores() -> None:
    rates = SolveRates(decay=0.9)
    everything = problems(400)
    for problem in everything:
        solved = 4 if problem.level == "0" else 0
        rates.observe(problem, solved, 8)
    sampler = ProblemSampler(everything, 1, 20, rates=rates, explore=0.2)
    batches = [sampler.batch(step) for step in range(20)]
    teaching = sum(problem.level == "0" for batch in batches for problem in batch)
    assert teaching / 400 > 0.6, "a quarter would be uniform"
    assert teaching / 400 < 0.95, "a fifth of each batch explores"
    assert all(len({problem.id for problem in batch}) == 20 for batch in batches)


def test_the_order_is_a_pure_function_of_seed_step_draw_and_table() -> None:
    def sampler() -> ProblemSampler:
        rates = SolveRates(decay=0.9)
        rates.restore({"problems": {"p3": [4.0, 4.0]}, "levels": {"0": [8.0, 40.0]}})
        return ProblemSampler(problems(100), 5, 10, rates=rates)

    used = sampler()
    for step in range(7):
        used.batch(step)
    assert used.batch(7) == sampler().batch(7)
    assert used.batch(7, draw=1) == sampler().batch(7, draw=1)
    again = {problem.id for problem in used.batch(7)} & {p.id for p in used.batch(7, draw=1)}
    assert not again


def test_a_problem_never_asked_borrows_the_rate_of_its_level() -> None:
    rates = SolveRates(decay=0.9)
    asked = problems(8)
    for problem in asked:
        rates.observe(problem, 4 if problem.level == "1" else 0, 8)
    easy, hard = Problem("x", "x?", "1", level="1"), Problem("y", "y?", "1", level="2")
    assert rates.chance_of_signal(easy, 8) > 2 * rates.chance_of_signal(hard, 8)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (['signal.skip="exact"', "grpo.beta=0.01"], "KL"),
        (["signal.resample_rounds=2", "grpo.num_iterations=2"], "num_iterations"),
        (['signal.skip="exact"', 'grpo.loss_type="bnpo"'], "bnpo"),
        (['signal.order="difficulty"', "rewards.accuracy.weight=0"], "accuracy reward"),
        (["signal.resample_rounds=-1"], "greater than or equal to 0"),
        (["signal.resample_rounds=0"], "would replace nothing"),
    ],
)
def test_contradicting_settings_are_refused_with_the_reason(sets: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe("quickstart", sets)
