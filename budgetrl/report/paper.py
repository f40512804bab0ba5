"""What a recipe's paper prints, beside what was measured: rows for its Tables 1 and 2.

`[[expected]]` keys: "aime24@16.final" and "aime24@1.baseline" (percent, as printed), and
"entropy_change.r8" (percent); others are stated in the text, by metric.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from budgetrl.evaluation.granularity import Published, possible_samples
from budgetrl.recipe.schema import Expected, Recipe
from budgetrl.recipe.suites import SUITES

SUITE_SIZES: Mapping[str, int] = {str(name): suite.problems for name, suite in SUITES.items()}
CANDIDATES = (16, 24, 32, 48, 64)
"""Usual sample counts, which the granularity test tries."""

_PASS = re.compile(r"(?P<suite>[a-z0-9_-]+)@(?P<k>\d+)\.(?P<when>baseline|final)")
_ENTROPY = re.compile(r"entropy[a-z_]*\.r(?P<rank>\d+)")


@dataclass(frozen=True, slots=True)
class PaperNumbers:
    """The printed numbers of one model."""

    passes: Mapping[tuple[str, int, str], float]
    """(suite, k, "baseline" | "final") -> percent."""
    entropies: Mapping[int, float]
    """Rank -> relative entropy change in percent."""
    final_rank: int | None
    """None: the paper does not say."""
    stated: Sequence[Expected] = field(default_factory=tuple)
    """Everything else."""

    def columns(self) -> list[tuple[str, int]]:
        """(suite, k) in the order of the paper."""
        return list(dict.fromkeys((suite, k) for suite, k, _ in self.passes))


def paper_numbers(recipe: Recipe | None) -> PaperNumbers | None:
    """The printed numbers of a recipe's model; None without a paper."""
    if recipe is None or recipe.paper is None or not recipe.expected:
        return None
    return parse_expected(recipe.expected)


def parse_expected(expected: Iterable[Expected]) -> PaperNumbers:
    """Sort expectations by what they are."""
    passes: dict[tuple[str, int, str], float] = {}
    entropies: dict[int, float] = {}
    ranks: set[int] = set()
    stated = []
    for entry in expected:
        if match := _PASS.fullmatch(entry.key):
            passes[match["suite"], int(match["k"]), match["when"]] = entry.value
            if match["when"] == "final" and isinstance(entry.rank, int):
                ranks.add(entry.rank)
        elif match := _ENTROPY.fullmatch(entry.key):
            entropies[int(match["rank"])] = entry.value
        else:
            stated.append(entry)
    return PaperNumbers(passes, entropies, ranks.pop() if len(ranks) == 1 else None, stated)


def merged(numbers: Sequence[PaperNumbers]) -> PaperNumbers | None:
    """What several recipes of one model expect: each rank's recipe knows its own entropy."""
    if not numbers:
        return None
    entropies = {rank: value for part in numbers for rank, value in part.entropies.items()}
    return replace(numbers[0], entropies=dict(sorted(entropies.items())))


def impossible(suite: str, k: int, percent: float, samples: int = 16) -> str | None:
    """Why a printed figure cannot come from that many samples; None if it can."""
    size = SUITE_SIZES.get(suite)
    if size is None or k > samples:
        return None
    fitting = possible_samples([Published(percent, size, k)], CANDIDATES)
    if samples in fitting:
        return None
    fits = ", ".join(map(str, fitting)) or "none of the usual ones"
    return (
        f"{percent} cannot come from {samples} samples of {size} problems; it fits {fits} "
        f"(of {', '.join(map(str, CANDIDATES))} samples)"
    )
