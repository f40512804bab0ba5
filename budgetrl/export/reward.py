"""A recipe's reward inside verl's or TRL's worker: our grader, which cannot hang it.

    score = Scorer(folder)                 the folder of `budgetrl export`
    score(completion, gold)                -> {"score": 1.2, "acc": 1.0, "format": 1.0}

verl calls rewards in threads of Ray workers and sets no time limit; the grader's processes have
their own, and are killed. A completion that no verdict can be had on ends the training with a
reason: a 0 would be trained on as if the answer were wrong.
"""

import math
import os
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from budgetrl.errors import RewardError
from budgetrl.export.rows import read_recipe
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import RewardName
from budgetrl.rewards.pool import GradingPool
from budgetrl.rewards.registry import RewardSum, build_reward
from budgetrl.types import Completion, RewardBreakdown, Verdict

ALLOW_CODE = "BUDGETRL_ALLOW_CODE"
"""Set to 1 where rewards of the user's own may be imported, as --allow-code does here."""
BY_LENGTH = frozenset((RewardName.COSINE, RewardName.SOFT_OVERLONG))
"""Rewards that depend on how many tokens a completion has."""


class Scorer:
    """Scores single completions; may be called by several threads.

    Args:
        folder: of `budgetrl export`, with the recipe.
    """

    def __init__(self, folder: Path) -> None:
        self._recipe = read_recipe(folder)
        self._lock = threading.Lock()

    def __call__(
        self, completion: str, gold: str, num_tokens: int | None = None
    ) -> dict[str, float]:
        """The weighted sum as `score`, `acc`, and each part.

        Args:
            completion: the model's text.
            gold: the right answer.
            num_tokens: of the completion; counted where absent and asked for.

        Raises:
            RewardError: nobody can say what the completion deserves.
        """
        with self._lock:  # a user's own function answers one at a time
            count = self._length(completion) if num_tokens is None else num_tokens
            found = self._reward([Completion(completion, count, False)], [gold])[0]
        if found.total is None:
            raise RewardError(
                f"no reward for a completion with the gold answer {gold[:200]!r}: "
                f"{found.fault or 'the grader failed, or the gold answer cannot be used'}.",
                hint="It begins: " + completion[:200],
            )
        return _numbers(found)

    @cached_property
    def _reward(self) -> RewardSum:
        recipe = self._recipe
        return build_reward(
            recipe.rewards,
            prefilled=self._prefilled(),
            max_tokens=recipe.sampling.max_tokens,
            pool=GradingPool(workers=1),
            allow_code=os.environ.get(ALLOW_CODE) == "1",
        )

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(local_path(self._recipe.model.id))

    def _prefilled(self) -> bool:
        """Whether the prompt opens `<think>`, so that completions lack the tag."""
        if RewardName.FORMAT not in {reward.name for reward in self._recipe.rewards}:
            return False
        from budgetrl.data.prompts import PromptRenderer

        return PromptRenderer(self._tokenizer, self._recipe.prompt).prefilled

    def _length(self, completion: str) -> int:
        """Tokens of a text with its end token, which verl does not hand on."""
        if not BY_LENGTH & {reward.name for reward in self._recipe.rewards}:
            return 0
        return len(self._tokenizer(completion, add_special_tokens=False)["input_ids"]) + 1


def _numbers(found: RewardBreakdown) -> dict[str, float]:
    """Every row has the same keys, as verl wants it."""
    assert found.total is not None
    parts = {name: math.nan if x is None else x for name, x in found.components.items()}
    return {"score": found.total, "acc": float(found.verdict is Verdict.CORRECT), **parts}
