"""Which problems a step trains on is decided by seed, step and draw alone."""

from collections import Counter

from hypothesis import given, strategies as st

from budgetrl.data.sampler import ProblemSampler
from budgetrl.types import Problem


def sampler(num_problems: int, prompts_per_step: int, seed: int = 1) -> ProblemSampler:
    problems = [Problem(f"p{i}", f"text {i}", "1") for i in range(num_problems)]
    return ProblemSampler(problems, seed, prompts_per_step)


def ids(made: ProblemSampler, step: int, draw: int = 0) -> list[str]:
    return [problem.id for problem in made.batch(step, draw)]


sizes = st.integers(1, 40)
calls = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), min_size=1, max_size=10)


@given(sizes, sizes, st.integers(0, 3), calls)
def test_a_batch_depends_on_seed_step_and_draw_alone(
    num_problems: int, prompts: int, seed: int, asked: list[tuple[int, int]]
) -> None:
    """Whatever was asked before: a resumed run asks in another order."""
    used = sampler(num_problems, prompts, seed)
    for step, draw in asked:
        assert ids(used, step, draw) == ids(sampler(num_problems, prompts, seed), step, draw)


@given(sizes, sizes, st.integers(0, 3))
def test_each_epoch_asks_each_problem_once(num_problems: int, prompts: int, seed: int) -> None:
    made = sampler(num_problems, prompts, seed)
    steps = -(-3 * num_problems // prompts)
    walked = [name for step in range(steps) for name in ids(made, step)]
    assert all(len(ids(made, step)) == prompts for step in range(steps))
    for epoch in range(3):
        one_pass = walked[epoch * num_problems : (epoch + 1) * num_problems]
        assert sorted(one_pass) == sorted(f"p{i}" for i in range(num_problems))


def test_epochs_steps_draws_and_seeds_differ() -> None:
    made = sampler(200, 50)
    batches = [ids(made, 0), ids(made, 1), ids(made, 4), ids(made, 0, 1), ids(made, 0, 2)]
    batches += [ids(made, 1, 1), ids(sampler(200, 50, seed=2), 0)]
    assert len({tuple(batch) for batch in batches}) == len(batches)
    assert (made.epoch(0), made.epoch(2), made.epoch(4)) == (0.0, 0.5, 1.0)


@given(sizes, sizes, st.integers(0, 20), st.integers(1, 3))
def test_resampling_brings_problems_that_are_new_in_the_step_while_there_are_enough(
    num_problems: int, prompts: int, step: int, draw: int
) -> None:
    made = sampler(num_problems, prompts)
    before = {name for earlier in range(draw) for name in ids(made, step, earlier)}
    fresh = ids(made, step, draw)
    assert max(Counter(fresh).values()) == 1
    assert len(fresh) == min(prompts, num_problems)
    if num_problems - len(before) >= prompts:
        assert not before & set(fresh)


def test_every_problem_is_resampled_as_often_as_any_other() -> None:
    made = sampler(20, 4)
    drawn = Counter(name for step in range(1000) for name in ids(made, step, 1))
    assert len(drawn) == 20
    assert 140 < min(drawn.values()) <= max(drawn.values()) < 260
