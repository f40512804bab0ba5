"""A recipe's [[rewards]] as one function: the weighted sum, with its parts kept.

    reward = build_reward(recipe.rewards, prefilled=False, max_tokens=3584, pool=pool)
    reward(completions, golds) -> [RewardBreakdown, ...]

The paper's is R = 0.2 R_format + R_accuracy. A part that raises or is not a number makes its row's
total None and its verdict `error`, so a fault is seen as a fault and never as a 0.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from budgetrl.errors import RecipeError, RewardError
from budgetrl.recipe.schema import Reward, RewardName
from budgetrl.rewards.own import OwnReward, RewardFault
from budgetrl.rewards.own_files import find_function, is_own
from budgetrl.rewards.pool import GradedRow
from budgetrl.rewards.shaping import cosine, signed, soft_overlong, think_format
from budgetrl.types import Completion, RewardBreakdown, Verdict

MAX_FAULTY_SHARE = 0.05
"""More rows than this without a reward in one step end the run; one is always allowed."""
_GRADER_FAULT = "the grader failed, or the gold answer cannot be used"
_NOT_ASKED = "was not asked again"


class Grader(Protocol):
    """Judges completions, such as a `GradingPool`."""

    def grade(self, rows: Sequence[tuple[str, str]]) -> Sequence[GradedRow]:
        """One verdict per (completion, gold answer)."""
        ...


class Row(NamedTuple):
    """What a reward may look at; a user's own function gets these as keyword arguments."""

    completion: str
    gold: str
    num_tokens: int
    verdict: Verdict


Part = Callable[[Row], float]


@dataclass(frozen=True, slots=True)
class RewardSum:
    """The weighted sum of a recipe's rewards."""

    parts: Mapping[str, tuple[float, Part]]
    """Name -> weight and function."""
    grader: Grader

    def __call__(
        self, completions: Sequence[Completion], golds: Sequence[str]
    ) -> list[RewardBreakdown]:
        """One breakdown per completion, in order.

        A reward of the user's that fails for more rows than are allowed is not asked again: the
        step is lost, and what hangs must not hang for every row.
        """
        texts = [completion.text for completion in completions]
        graded = self.grader.grade(list(zip(texts, golds, strict=True)))
        limit = _FaultLimit(most_faults(len(graded)))
        return [
            self._breakdown(Row(it.text, gold, it.num_tokens, one.verdict), one.extracted, limit)
            for it, gold, one in zip(completions, golds, graded, strict=True)
        ]

    def close(self) -> None:
        """End the processes of the user's own rewards."""
        for _, part in self.parts.values():
            if isinstance(part, _Own):
                part.reward.close()

    def _breakdown(self, row: Row, extracted: str | None, limit: "_FaultLimit") -> RewardBreakdown:
        values: dict[str, float | None] = dict.fromkeys(self.parts)
        told: str | None = None
        for name, (weight, part) in self.parts.items():
            try:
                values[name] = limit.ask(name, part, row)
            except _Ungraded:
                continue
            except RewardFault as fault:
                told = f"{name} {fault}" if weight else told
        if told is not None or row.verdict is Verdict.ERROR:
            return RewardBreakdown(None, values, Verdict.ERROR, extracted, told)
        total = math.fsum(
            weight * (values[name] or 0.0) for name, (weight, _) in self.parts.items()
        )
        return RewardBreakdown(total, values, row.verdict, extracted)


@dataclass(frozen=True, slots=True)
class _FaultLimit:
    """Faults of each reward among the completions of one step."""

    most: int
    faults: Counter[str] = field(default_factory=Counter)

    def ask(self, name: str, part: Part, row: Row) -> float:
        """The value of a part, unless it has failed too often.

        Raises:
            RewardFault: it fails, or is not asked.
        """
        if self.faults[name] > self.most:
            raise RewardFault(f"{_NOT_ASKED} after {self.faults[name]} faults")
        try:
            return part(row)
        except RewardFault:
            self.faults[name] += 1
            raise


def build_reward(
    specs: Sequence[Reward],
    *,
    prefilled: bool,
    max_tokens: int,
    pool: Grader,
    allow_code: bool = False,
    files: Mapping[str, str] | None = None,
) -> RewardSum:
    """The reward of a recipe.

    Args:
        specs: the recipe's [[rewards]].
        prefilled: the prompt already opens `<think>`.
        max_tokens: sampling.max_tokens, for length-scaled rewards.
        pool: judges the answers.
        allow_code: whether a user's own function may be imported.
        files: of the user's own rewards, by name; without it they are looked for.

    Raises:
        RecipeError: a user's function that is not allowed, not there, or cannot be imported.
    """
    parts: dict[str, tuple[float, Part]] = {}
    for spec in specs:
        if is_own(spec.name):
            refuse_code(spec.name, allow_code)
            file = Path(files[spec.name]) if files else find_function(spec.name)
            own = _Own(OwnReward(spec, file))
            own.reward.start()
            parts[spec.name] = (spec.weight, own)
        else:
            parts[spec.name] = (spec.weight, _known(spec, prefilled, max_tokens))
    return RewardSum(parts, pool)


def refuse_code(name: str, allowed: bool) -> None:
    """A user's own function runs only where that was said to be wanted.

    Raises:
        RecipeError: it was not.
    """
    if not allowed:
        raise RecipeError(
            f"[[rewards]] {name}: runs code of yours.",
            hint="Say that you want this with --allow-code.",
        )


def most_faults(num_rows: int) -> int:
    """Rows of a step that may be without a reward."""
    return max(1, int(MAX_FAULTY_SHARE * num_rows))


def check_faults(breakdowns: Sequence[RewardBreakdown]) -> None:
    """Refuse to go on when too many rows have no reward; call it after the rows are stored.

    Raises:
        RewardError: more than one row and more than 5 % of the rows.
    """
    faulty = sum(breakdown.total is None for breakdown in breakdowns)
    if faulty > most_faults(len(breakdowns)):
        raise RewardError(
            f"{faulty} of {len(breakdowns)} completions of one step could not be rewarded: "
            f"{'; '.join(fault_lines(breakdowns))}.",
            hint="Its file under completions/ shows them. Mend the data or the reward, then "
            "`budgetrl resume RUN --accept-changes data,reward`.",
        )


def fault_lines(breakdowns: Sequence[RewardBreakdown], limit: int = 3) -> list[str]:
    """Why rows have no reward: the most frequent reasons first, what follows from them last."""
    counted = Counter(b.fault or _GRADER_FAULT for b in breakdowns if b.total is None)
    ordered = sorted(counted.most_common(), key=lambda one: _NOT_ASKED in one[0])
    return [f"{fault} ({count} rows)" for fault, count in ordered[:limit]]


def _known(spec: Reward, prefilled: bool, max_tokens: int) -> Part:
    given = spec.parameters
    makers: dict[RewardName, Part] = {
        RewardName.ACCURACY: lambda row: 1.0 if _correct(row) else 0.0,
        RewardName.FORMAT: lambda row: think_format(row.completion, prefilled=prefilled),
        RewardName.SIGNED: lambda row: signed(_correct(row)),
        RewardName.COSINE: lambda row: cosine(
            _correct(row), row.num_tokens, **({"max_tokens": max_tokens} | given)
        ),
        RewardName.SOFT_OVERLONG: lambda row: soft_overlong(
            row.num_tokens,
            **({"max_tokens": max_tokens, "cache_tokens": max(1, max_tokens // 5)} | given),
        ),
    }
    return makers[RewardName(spec.name)]


def _correct(row: Row) -> bool:
    if row.verdict is Verdict.ERROR:
        raise _Ungraded
    return row.verdict is Verdict.CORRECT


class _Ungraded(Exception):
    """Nobody knows whether the answer is right, so accuracy is no 0."""


@dataclass(frozen=True, slots=True)
class _Own:
    """A user's own reward as a part."""

    reward: OwnReward

    def __call__(self, row: Row) -> float:
        return self.reward(**row._asdict())
