"""Which problems a step trains on: a pure function of (seed, step, draw, table).

    sampler = ProblemSampler(problems, seed, prompts_per_step)
    sampler.batch(step=7, draw=0)       the same problems in every attempt of the run

There is no cursor to save: a resumed run asks for the step it is at. Under the order by
difficulty the table of solve rates is part of the checkpoint.
"""

import hashlib
import random
from collections.abc import Sequence

from budgetrl.data.difficulty import SolveRates
from budgetrl.types import Problem


class ProblemSampler:
    """Uniform order walks through permutations; the other prefers problems that teach.

    Args:
        problems: at least one.
        seed: of the run.
        prompts_per_step: problems per step; may exceed the number of problems.
        rates: solve rates to order by; None: uniform order.
        group_size: completions per problem.
        explore: share of a batch that stays in uniform order, under the order by difficulty.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        seed: int,
        prompts_per_step: int,
        *,
        rates: SolveRates | None = None,
        group_size: int = 8,
        explore: float = 0.2,
    ) -> None:
        assert problems, "the loader refuses empty data"
        self.problems = tuple(problems)
        self._seed = seed
        self._group_size = group_size
        self._explore = explore
        self._epochs: dict[int, list[int]] = {}
        self.prompts_per_step = prompts_per_step
        self.rates = rates

    def batch(self, step: int, draw: int = 0) -> list[Problem]:
        """The problems of a step (counted from 0); `draw` > 0 are resampling rounds within it."""
        if draw == 0 and self.rates is None:
            return self._walk(step, self.prompts_per_step)
        taken = {problem.id for earlier in range(draw) for problem in self.batch(step, earlier)}
        rest = [problem for problem in self.problems if problem.id not in taken]
        pool = rest if len(rest) >= self.prompts_per_step else list(self.problems)
        count = min(self.prompts_per_step, len(pool))
        if self.rates is None:
            return self._random("draw", step, draw).sample(pool, count)
        return self._by_difficulty(step, draw, pool, count)

    def epoch(self, step: int) -> float:
        """Problems asked in `step` steps, in multiples of all problems."""
        return step * self.prompts_per_step / len(self.problems)

    def _by_difficulty(
        self, step: int, draw: int, pool: Sequence[Problem], count: int
    ) -> list[Problem]:
        """A floor of uniform exploration, then weighted draws without replacement.

        The weight is the chance of a mixed group, squared: between two problems the one that
        teaches twice as often is asked four times as often.
        """
        assert self.rates is not None
        exploring = round(self._explore * count)
        walk = self._walk(step, exploring) if draw == 0 else []
        chosen = {problem.id: problem for problem in walk}
        generator = self._random("difficulty", step, draw)
        rest = [problem for problem in pool if problem.id not in chosen]
        # Efraimidis and Spirakis (2006): the largest u^(1/w) are a weighted sample.
        keys = {
            p.id: generator.random()
            ** (1.0 / max(1e-6, self.rates.chance_of_signal(p, self._group_size) ** 2))
            for p in rest
        }
        best = sorted(rest, key=lambda problem: -keys[problem.id])
        return [*chosen.values(), *best[: count - len(chosen)]]

    def _walk(self, step: int, count: int) -> list[Problem]:
        """The next problems of the epochs' permutations."""
        first = step * count
        return [self._at(position) for position in range(first, first + count)]

    def _at(self, position: int) -> Problem:
        epoch, offset = divmod(position, len(self.problems))
        return self.problems[self._permutation(epoch)[offset]]

    def _permutation(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            order = list(range(len(self.problems)))
            self._random("epoch", epoch).shuffle(order)
            self._epochs = {**dict(list(self._epochs.items())[-1:]), epoch: order}
        return self._epochs[epoch]

    def _random(self, *key: object) -> random.Random:
        text = ":".join(map(str, (self._seed, *key)))
        return random.Random(hashlib.sha256(text.encode()).digest())
