"""How long demonstrations are, for plans: counted where the file is at hand, else a stated table.

lengths = demonstration_lengths(part)     lengths.kept_share, lengths.mean, lengths.padded(4)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from budgetrl.data.demonstrations import LEAST_KEPT, read_examples
from budgetrl.data.prompt_length import prompt_lengths, text_counter
from budgetrl.errors import DataError
from budgetrl.recipe.schema import Recipe

SAMPLE = 200
"""Rows that are counted, spread over all of them."""
_WRAPPING = 12
"""Tokens of a think block and an end that are put around a solution."""


@dataclass(frozen=True, slots=True)
class Published:
    """Lengths of a data set of the hub that is not at hand, in tokens."""

    mean: float
    cv: float
    """Standard deviation over the mean."""
    rows: int
    source: str


TABLE = {
    "simplescaling/s1K": Published(
        5300,
        0.6,
        1000,
        "s1 (arXiv 2501.19393): 4.7 M thinking tokens in 1,000 rows; spread assumed",
    ),
    "simplescaling/s1K-1.1": Published(
        9500, 0.7, 1000, "assumed: R1's traces of the same problems are about twice as long"
    ),
    "GAIR/LIMO": Published(7000, 0.7, 817, "assumed, as for R1's traces; not counted"),
}
"""By hub id; what an author stated or we assume, and which of both it is."""
UNKNOWN = Published(4000, 0.7, 1000, "assumed: nothing is known of this data set")


@dataclass(frozen=True, slots=True)
class DemonstrationLengths:
    """Tokens of rows within the window, prompts and solutions together."""

    lengths: tuple[float, ...]
    """Sorted; a sample of those kept."""
    prompt_tokens: float
    kept_share: float
    rows: int
    """In the data set, before any was left out."""
    source: str

    @property
    def mean(self) -> float:
        """Mean of a row."""
        return sum(self.lengths) / len(self.lengths)

    @property
    def mean_square(self) -> float:
        """Mean of its square."""
        return sum(length**2 for length in self.lengths) / len(self.lengths)

    def passes(self, rows: int, max_cells: int) -> tuple[int, float]:
        """Micro-batches of an update, and the length that its rows are padded to on the mean."""
        many = len(self.lengths)
        chosen = [self.lengths[int((i + 0.5) * many / rows)] for i in range(rows)]
        groups: list[list[float]] = [[]]
        for length in chosen:
            if groups[-1] and (len(groups[-1]) + 1) * length > max_cells:
                groups.append([])
            groups[-1].append(length)
        return len(groups), sum(len(group) * group[-1] for group in groups) / rows


def demonstration_lengths(part: Recipe) -> DemonstrationLengths:
    """Lengths of the demonstrations of a stage.

    Args:
        part: the stage's recipe.

    Raises:
        DataError: a file that cannot be learnt from, or too few rows fit the window.
    """
    window = float(part.sft.max_tokens)
    if part.sft.source == "self":
        prompts = prompt_lengths(part.model, part.prompt, ()).mean
        mean = min(
            window, prompts + (part.sampling.expected_tokens or part.sampling.max_tokens / 2)
        )
        return DemonstrationLengths((mean,), prompts, 1.0, 0, "the model's own answers: assumed")
    if part.data.path is None:
        known = TABLE.get(part.data.id or "", UNKNOWN)
        lengths = _quantiles(known)
        return _within(part, lengths, 150.0, known.rows, known.source)
    examples = read_examples(part)[0]
    chosen = examples[:: max(1, len(examples) // SAMPLE)][:SAMPLE]
    problems = [one.problem for one in chosen]
    prompts = prompt_lengths(part.model, part.prompt, problems).mean
    count, source = text_counter(part.model)
    texts = (f"{one.thinking or ''}{one.solution}" for one in chosen)
    lengths = sorted(prompts + count(text) + _extra(text) for text in texts)
    return _within(part, lengths, prompts, len(examples), source)


def _extra(text: str) -> int:
    """Tokens besides a solution's own: its end, and a think block where it has none."""
    return 1 if "</think>" in text else _WRAPPING


def _within(
    part: Recipe, lengths: Sequence[float], prompts: float, rows: int, source: str
) -> DemonstrationLengths:
    window = float(part.sft.max_tokens)
    fitting = [length for length in lengths if length <= window]
    share = len(fitting) / len(lengths)
    kept = fitting if part.sft.overlong == "drop" else [min(length, window) for length in lengths]
    if part.sft.overlong == "drop" and share < LEAST_KEPT:
        name = part.data.id or part.data.path
        raise DataError(
            f"{name}: about {share:.0%} of its rows fit sft.max_tokens = {part.sft.max_tokens} "
            f"({source}); a quarter is the least.",
            hint='Raise sft.max_tokens, or take rows without their ends: sft.overlong = "cut".',
        )
    return DemonstrationLengths(tuple(kept), prompts, share, rows, source)


def _quantiles(known: Published) -> list[float]:
    """A hundred rows of a lognormal distribution with this mean and spread."""
    from statistics import NormalDist

    sigma = math.sqrt(math.log(1 + known.cv**2))
    middle = math.log(known.mean) - sigma**2 / 2
    normal = NormalDist(middle, sigma)
    return [math.exp(normal.inv_cdf((i + 0.5) / 100)) for i in range(100)]
