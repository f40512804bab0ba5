"""Which problems a step trains on: a pure function of (seed, step, draw, table).

    sampler = ProblemSampler(problems, seed, prompts_per_step)
    sampler.batch(step=7, draw=0)       the same problems in every attempt of the run

There is no cursor to save: a resumed run asks for the step it is at.
"""

import hashlib
import random
from collections.abc import Sequence

from budgetrl.types import Problem


class ProblemSampler:
    """Uniform order: each epoch is a new permutation, and steps walk through the epochs.

    Args:
        problems: at least one.
        seed: of the run.
        prompts_per_step: problems per step; may exceed the number of problems.
    """

    def __init__(self, problems: Sequence[Problem], seed: int, prompts_per_step: int) -> None:
        assert problems, "the loader refuses empty data"
        self._problems = tuple(problems)
        self._seed = seed
        self.prompts_per_step = prompts_per_step
        self._epochs: dict[int, list[int]] = {}

    def batch(self, step: int, draw: int = 0) -> list[Problem]:
        """The problems of a step (counted from 0); `draw` > 0 are resampling rounds within it."""
        if draw > 0:
            return self._fresh(step, draw)
        first = step * self.prompts_per_step
        return [self._at(position) for position in range(first, first + self.prompts_per_step)]

    def epoch(self, step: int) -> float:
        """Passes over the problems after `step` steps."""
        return step * self.prompts_per_step / len(self._problems)

    def _at(self, position: int) -> Problem:
        epoch, offset = divmod(position, len(self._problems))
        return self._problems[self._permutation(epoch)[offset]]

    def _permutation(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            order = list(range(len(self._problems)))
            self._random("epoch", epoch).shuffle(order)
            self._epochs = {**dict(list(self._epochs.items())[-1:]), epoch: order}
        return self._epochs[epoch]

    def _fresh(self, step: int, draw: int) -> list[Problem]:
        taken = {problem.id for problem in self.batch(step)}
        rest = [problem for problem in self._problems if problem.id not in taken]
        pool = rest if len(rest) >= self.prompts_per_step else list(self._problems)
        count = min(self.prompts_per_step, len(pool))
        return self._random("draw", step, draw).sample(pool, count)

    def _random(self, *key: object) -> random.Random:
        text = ":".join(map(str, (self._seed, *key)))
        return random.Random(hashlib.sha256(text.encode()).digest())
