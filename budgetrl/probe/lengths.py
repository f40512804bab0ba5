"""Which sampling.max_tokens? What each limit cuts, what accuracy it gives, what an update costs.

    lengths = Lengths(); lengths.note(completions, right)        groups of a probe
    for request, ids in lengths.cut: ... lengths.went_on(tokens, right, ended)
    lengths.limits([64, 96, 128]) -> rows;  proposed(rows)

A limit that is too low cuts answers that would have been right, and training then teaches the
model to be short. So some of the completions that a limit cut are written to their end. Pure
arithmetic: drawing and grading are the probe's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from budgetrl.engine.base import Request
from budgetrl.types import Completion

MOST_CUT = 64
"""Cut completions that are written on."""
LONGEST = 4
"""Times the recipe's limit that they may take."""
FRACTIONS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
CUT = 0.05
"""Share of completions that a good limit cuts, at the most."""
WORSE = 0.01
"""Accuracy that a shorter limit may cost."""


@dataclass(frozen=True, slots=True)
class Written:
    """One completion."""

    tokens: int
    right: bool
    ended: bool
    """By itself; else it is longer than `tokens`."""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Limit:
    """What a limit would do."""

    max_tokens: int
    cut_share: float
    accuracy: float
    tokens_mean: float
    step_s: float | None = None
    """Of an update, by the plan."""


@dataclass(slots=True)
class Lengths:
    """Completions of a probe, by length."""

    whole: list[Written] = field(default_factory=list)
    cut: list[tuple[Request, str, tuple[int, ...]]] = field(default_factory=list)
    """Cut ones that may be written on: request, gold answer, tokens."""
    num_cut: int = 0
    longer: list[Written] = field(default_factory=list)

    def note(
        self,
        requests: Sequence[Request],
        golds: Sequence[str],
        completions: Sequence[Completion],
        right: Sequence[bool],
    ) -> None:
        """Completions as the recipe's limit leaves them."""
        for request, gold, one, good in zip(requests, golds, completions, right, strict=True):
            if not one.truncated:
                self.whole.append(Written(one.num_tokens, good, True))
                continue
            self.num_cut += 1
            if len(self.cut) < MOST_CUT and one.ids:
                self.cut.append((request, gold, one.ids))

    def all(self, limit: int) -> list[Written]:
        """Every completion, those that were cut by what became of some of them.

        Args:
            limit: of the recipe: all that is known of the others.
        """
        if not self.longer:
            return [*self.whole, *[Written(limit, False, False)] * self.num_cut]
        weight = self.num_cut / len(self.longer)
        return [*self.whole, *(replace(one, weight=weight) for one in self.longer)]


def limits_of(
    written: Sequence[Written],
    candidates: Sequence[int],
    cost: Callable[[int, float], float | None],
) -> list[Limit]:
    """What each candidate would do, beside what an update costs.

    Args:
        written: of `Lengths.all`.
        candidates: limits, in order; those beyond what was written are left out.
        cost: seconds of an update for a limit and a mean length.
    """
    if not written:
        return []
    total = sum(one.weight for one in written)
    known = min((one.tokens for one in written if not one.ended), default=max(candidates))
    found = []
    for limit in candidates:
        if limit > known:
            break
        over = [one for one in written if not one.ended or one.tokens > limit]
        right = sum(w.weight for w in written if w.ended and w.right and w.tokens <= limit)
        mean = sum(min(one.tokens, limit) * one.weight for one in written) / total
        cut = sum(one.weight for one in over if one.tokens > limit or not one.ended) / total
        found.append(Limit(limit, cut, right / total, mean, cost(limit, mean)))
    return found


def candidates_of(limit: int, room: int | None) -> list[int]:
    """Limits around a recipe's, as far as the window goes."""
    step = 8 if limit < 512 else 64
    found = {max(step, round(limit * share / step) * step) for share in FRACTIONS} | {limit}
    return sorted(one for one in found if room is None or one <= room)


def proposed(limits: Sequence[Limit]) -> int | None:
    """The lowest limit that cuts next to nothing and costs no accuracy; None: none does."""
    best = max((one.accuracy for one in limits), default=0.0)
    good = [one for one in limits if one.cut_share <= CUT and one.accuracy >= best - WORSE]
    return good[0].max_tokens if good else None
