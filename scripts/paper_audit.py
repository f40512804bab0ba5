"""Check the printed numbers of "Plasticity vs. Rigidity" by arithmetic: writes docs/paper_audit.md.

    python scripts/paper_audit.py            write the page
    python scripts/paper_audit.py --check    say whether the page is up to date (exit 1 if not)

All numbers come from the [[expected]] tables of the recipes. No GPU, no network.
"""

import argparse
import csv
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from budgetrl.account.text import suite_name
from budgetrl.evaluation.granularity import Published, possible_samples
from budgetrl.evaluation.passk import wilson_interval
from budgetrl.recipe.load import list_recipes, load_recipe
from budgetrl.report.paper import SUITE_SIZES, PaperNumbers, merged, paper_numbers
from budgetrl.student_t import t_quantile

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "paper_audit.md"
SEEDS = ROOT.parent / "shared" / "data" / "results" / "tina_multiseed_eval.csv"
ARXIV = "2601.06677"
SAMPLES = 16
"""What pass@16 needs at least, and what all rows but one fit."""
USUAL = (16, 24, 32, 48, 64)
TYPICAL_CORRELATION = 0.9
"""Between two checkpoints' solve rates on the same problems; assumed, for orientation."""


@dataclass(frozen=True)
class Spread:
    """Standard deviations between problems that a printed pass@1 and pass@16 allow."""

    low: float
    high: float


class Change(NamedTuple):
    """One difference in pass@1."""

    model: str
    suite: str
    before: float
    after: float
    needed_low: float
    """Correlation of the two results per problem above which the difference is no noise, at the
    smallest spread that the printed numbers allow."""
    needed_high: float
    """The same at the largest spread."""


def read_paper() -> dict[str, PaperNumbers]:
    """The printed numbers by model, from the bundled recipes."""
    found: dict[str, list[PaperNumbers]] = {}
    # The paper's own before what others make of them.
    for name in sorted(list_recipes(), key=lambda name: ("/" in name, name)):
        recipe = load_recipe(name).recipe
        numbers = paper_numbers(recipe)
        paper = recipe.paper
        if numbers is not None and paper is not None and paper.arxiv == ARXIV and paper.row:
            found.setdefault(paper.row, []).append(numbers)
    return {model: whole for model, parts in found.items() if (whole := merged(parts))}


def figures_of(numbers: PaperNumbers, when: str) -> list[tuple[str, int, Published]]:
    """The printed percentages of a row."""
    return [
        (suite, k, Published(value, SUITE_SIZES[suite], k))
        for (suite, k, moment), value in numbers.passes.items()
        if moment == when
    ]


def allowed_spread(mean: float, solved: float, samples: int = SAMPLES) -> Spread:
    """Bounds on the spread of solve rates between problems.

    Args:
        mean: pass@1.
        solved: share of problems with any right sample (pass@n).
        samples: per problem; a solved problem has a rate of at least 1 / samples.
    """
    if not 0 < mean <= solved:
        return Spread(0.0, 0.0)
    even = mean * mean / solved - mean * mean
    certain = max(0.0, (mean - solved / samples) / (1 - 1 / samples))
    extreme = certain + (solved - certain) / samples**2 - mean * mean
    return Spread(math.sqrt(max(0.0, even)), math.sqrt(max(even, extreme, 0.0)))


def half_width(spread_a: float, spread_b: float, correlation: float, problems: int) -> float:
    """Half the 95 % interval of a paired difference over problems (Student t)."""
    variance = spread_a**2 + spread_b**2 - 2 * correlation * spread_a * spread_b
    variance *= problems / (problems - 1)
    return t_quantile(problems - 1) * math.sqrt(max(0.0, variance) / problems)


def needed_correlation(difference: float, a: float, b: float, problems: int) -> float:
    """Correlation at which the interval just excludes zero; above 1: never; below -1: always."""
    if a == 0 or b == 0:
        return -2.0 if abs(difference) > half_width(a, b, 0.0, problems) else 2.0
    limit = (difference / t_quantile(problems - 1)) ** 2 * (problems - 1)
    return (a * a + b * b - limit) / (2 * a * b)


def changes(paper: dict[str, PaperNumbers]) -> Iterator[Change]:
    """All differences in pass@1, with the correlation that each needs."""
    for model, numbers in paper.items():
        for suite in dict.fromkeys(suite for suite, _, _ in numbers.passes):
            before, after = (numbers.passes[suite, 1, when] for when in ("baseline", "final"))
            spreads = [
                allowed_spread(
                    numbers.passes[suite, 1, when] / 100, numbers.passes[suite, 16, when] / 100
                )
                for when in ("baseline", "final")
            ]
            size, change = SUITE_SIZES[suite], (after - before) / 100
            low = needed_correlation(change, spreads[0].low, spreads[1].low, size)
            high = needed_correlation(change, spreads[0].high, spreads[1].high, size)
            yield Change(model, suite, before, after, low, high)


# --- the page


def page(paper: dict[str, PaperNumbers], seeds: Path | None) -> str:
    """The whole Markdown page."""
    parts = [
        "# The paper's numbers, checked by arithmetic",
        "Made by `scripts/paper_audit.py` from the `[[expected]]` tables of the recipes: what "
        "Tables 1 and 2 of *Plasticity vs. Rigidity* (arXiv 2601.06677) print, and what can follow "
        "from it. Nothing here was measured by us.",
        *_granularity(paper),
        *_copies(paper),
        *_intervals(paper),
        *_seed_spread(seeds),
        *_claims(paper),
    ]
    return "\n\n".join(parts) + "\n"


def _granularity(paper: dict[str, PaperNumbers]) -> Iterator[str]:
    yield "## Which sample counts are possible"
    yield (
        "With n samples of each of P problems pass@1 is a multiple of 1/(P n), pass@n one of 1/P, "
        "and pass@k in between a mean over P of the values that 1 - C(n-c,k)/C(n,k) can take. "
        "A figure that no such mean rounds to was not made with n samples (the GRIM test). "
        f"Tried: n from {SAMPLES} to 64."
    )
    rows = []
    for model, numbers in paper.items():
        for when in ("baseline", "final"):
            figures = figures_of(numbers, when)
            common = possible_samples([f for _, _, f in figures], range(SAMPLES, 65))
            wrong = [
                f"{suite_name(s)} @{k} {f.percent}"
                for s, k, f in figures
                if not possible_samples([f], [SAMPLES])
            ]
            rows.append(
                [model, when, ", ".join(wrong) or "none", _counts(common), _per_figure(figures)]
            )
    head = ["model", "config", f"impossible at n = {SAMPLES}", "n that fits the whole row", "alone"]
    yield _table(head, rows)
    yield (
        "Last column: the usual counts (16, 24, 32, 48, 64) that each impossible figure fits by "
        "itself. Another n does not bias pass@1; it shows that the two sides were set up "
        "separately, and the paper does not say whether token limit, temperature and prompt agree."
    )


def _per_figure(figures: Sequence[tuple[str, int, Published]]) -> str:
    shown = []
    for suite, k, figure in figures:
        if not possible_samples([figure], [SAMPLES]):
            fits = ", ".join(map(str, possible_samples([figure], USUAL))) or "none"
            shown.append(f"{suite_name(suite)} @{k}: {fits}")
    return "; ".join(shown)


def _counts(values: Sequence[int]) -> str:
    if not values:
        return "none"
    if len(values) == 65 - SAMPLES:
        return "all"
    return ", ".join(map(str, values[:8])) + (" ..." if values[8:] else "")


def _copies(paper: dict[str, PaperNumbers]) -> Iterator[str]:
    yield "## Final rows that repeat the baseline"
    rows = []
    for model, numbers in paper.items():
        pairs = list(_pairs(numbers))
        same = sum(before == after for before, after in pairs)
        largest = max(abs(after - before) for before, after in pairs)
        verdict = "the baseline again" if largest <= 0.11 else ""
        rows.append([model, f"{same} of {len(pairs)}", f"{largest:.1f}", verdict])
    yield _table(["model", "identical figures", "largest change, points", ""], rows)
    yield (
        "At temperature 0.6 two honest evaluations of even the same weights differ by several "
        "points (next sections). A row that is identical was copied, or its adapter was not "
        "applied. budgetrl proves that an adapter changes the logits before it evaluates it."
    )


def _intervals(paper: dict[str, PaperNumbers]) -> Iterator[str]:
    yield "## The intervals that the printed numbers allow"
    yield (
        "The spread of solve rates between problems is not printed, but pass@1 and pass@16 bound "
        "it: smallest if all solved problems are equally hard, largest if they are either certain "
        "or solved once. The half width is Student's t over problems for two independent results; "
        "the needed correlation is how similar the two results must be problem by problem for the "
        "difference to exclude zero (smallest to largest spread). Where the sample counts differ "
        "pass@16 is taken as the share of solved problems, which is close."
    )
    rows = []
    for change in changes(paper):
        numbers = paper[change.model]
        spreads = [
            allowed_spread(
                numbers.passes[change.suite, 1, w] / 100, numbers.passes[change.suite, 16, w] / 100
            )
            for w in ("baseline", "final")
        ]
        size = SUITE_SIZES[change.suite]
        widths = [
            100 * half_width(getattr(spreads[0], end), getattr(spreads[1], end), 0.0, size)
            for end in ("low", "high")
        ]
        rows.append(
            [
                change.model,
                suite_name(change.suite),
                f"{change.before:.1f} to {change.after:.1f}",
                f"{change.after - change.before:+.1f}",
                f"{widths[0]:.1f} to {widths[1]:.1f}",
                _needed(change),
                survives(change),
            ]
        )
    head = ["model", "suite", "pass@1", "change", "half width if independent"]
    yield _table([*head, "needed correlation", "survives?"], rows)


def survives(change: Change) -> str:
    """What may be said of a difference, were both sides made with one protocol."""
    if change.before == change.after:
        return "no change printed"
    low, high = sorted((change.needed_low, change.needed_high))
    if high <= 0:
        return "yes"
    if high <= TYPICAL_CORRELATION:
        return "yes, if paired"
    return "perhaps" if low <= TYPICAL_CORRELATION else "no"


def _needed(change: Change) -> str:
    if change.before == change.after:
        return "-"
    return f"{_correlation(change.needed_low)} to {_correlation(change.needed_high)}"


def _correlation(value: float) -> str:
    if value > 1:
        return "never"
    return "none" if value <= 0 else f"{value:.2f}"


def _seed_spread(path: Path | None) -> Iterator[str]:
    if path is None or not path.is_file():
        return
    scores: dict[tuple[str, str], list[float]] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores.setdefault((row["model"], row["task"]), []).append(float(row["score_percent"]))
    yield "## How far seeds alone move such numbers"
    yield (
        "Tina's published evaluations: the same weights, one sample per problem, five seeds. "
        "Sixteen samples shrink the part that is sampling by four; the part that is the choice of "
        "30 problems stays, and so does what a second training seed would add, which the paper "
        "(one seed) cannot show."
    )
    rows = []
    for task in SUITE_SIZES:
        spreads = [stdev(v) for (_, t), v in scores.items() if t == task]
        ranges = [max(v) - min(v) for (_, t), v in scores.items() if t == task]
        if spreads:
            rows.append(
                [
                    suite_name(task),
                    str(len(spreads)),
                    f"{fmean(spreads):.1f}",
                    f"{max(ranges):.1f}",
                ]
            )
    head = ["suite", "models", "standard deviation over seeds, points", "largest range, points"]
    yield _table(head, rows)


def _claims(paper: dict[str, PaperNumbers]) -> Iterator[str]:
    yield "## Which claims survive"
    yield _table(["claim", "verdict", "why"], list(claims(paper)))


def claims(paper: dict[str, PaperNumbers]) -> Iterator[list[str]]:
    """Claims of the text, what the printed numbers allow to say of them, and why."""
    by_model = {(c.model, c.suite): c for c in changes(paper)}
    deep = next(model for model in paper if model.startswith("DeepScaleR"))
    yield _headline(by_model[deep, "aime24"], paper[deep])
    yield _explored(paper[deep])
    yield _copied(paper)
    yield _mixed(paper, by_model)
    yield _ratio(paper)
    yield _lengths(paper)


def _headline(change: Change, numbers: PaperNumbers) -> list[str]:
    wrong = [f for _, _, f in figures_of(numbers, "baseline") if not possible_samples([f], [16])]
    return [
        f"DeepScaleR gains {change.after - change.before:.1f} points pass@1 on AIME24",
        "not shown",
        f"{len(wrong)} of 9 baseline figures cannot come from 16 samples, all final ones can: the "
        "two sides were evaluated by different set-ups. Under one protocol a gain of this size is "
        f"no noise if the results correlate by {_correlation(change.needed_low)} to "
        f"{_correlation(change.needed_high)} problem by problem, which is likely; the gains on "
        "AIME25 and AMC23 stand likewise.",
    ]


def _explored(numbers: PaperNumbers) -> list[str]:
    before, after = (numbers.passes["aime24", 16, when] for when in ("baseline", "final"))
    low, high = wilson_interval(round(after / 100 * 30), 30)
    return [
        f"DeepScaleR's pass@16 on AIME24 rises from {before} to {after}",
        "no",
        f"At n = 16 pass@16 is one yes or no per problem: {after} has a 95 % interval of "
        f"{100 * low:.1f} to {100 * high:.1f}, which holds {before}.",
    ]


def _copied(paper: dict[str, PaperNumbers]) -> list[str]:
    names = [
        model
        for model, numbers in paper.items()
        if all(abs(after - before) <= 0.11 for before, after in _pairs(numbers))
    ]
    pairs = [pair for name in names for pair in _pairs(paper[name])]
    same = sum(before == after for before, after in pairs)
    return [
        f"{' and '.join(names)} do not change on the hard suites",
        "not tested",
        f"{same} of {len(pairs)} figures are identical and the rest differ by 0.1: copied, or "
        "evaluated without the adapter.",
    ]


def _mixed(paper: dict[str, PaperNumbers], by_model: dict[tuple[str, str], Change]) -> list[str]:
    names = [m for m in paper if m.startswith(("Qwen2.5-Math", "Qwen3"))]
    mine = [change for (model, _), change in by_model.items() if model in names]
    up = sum(change.after > change.before for change in mine)
    verdicts = [survives(change) for change in mine]
    sure = sum(verdict.startswith("yes") for verdict in verdicts)
    return [
        f"{' and '.join(names)} improve on some benchmarks",
        "noise" if sure == 0 else "in part",
        f"{up} of {len(mine)} pass@1 figures rise; {sure} of the changes would survive even if the "
        f"two results correlate by {TYPICAL_CORRELATION}.",
    ]


def _ratio(paper: dict[str, PaperNumbers]) -> list[str]:
    ratios = {
        model: abs(numbers.entropies[256] / numbers.entropies[8])
        for model, numbers in paper.items()
        if {8, 256} <= set(numbers.entropies)
    }
    shown = ", ".join(f"{model} {ratio:.1f}" for model, ratio in ratios.items())
    above = sum(ratio > 3 for ratio in ratios.values())
    return [
        '"Across all architectures" entropy shifts at rank 256 are "up to 3x" those at rank 8',
        "contradicted by Table 2",
        f"Ratios of the sizes: {shown}. {above} of {len(ratios)} are above 3, and "
        f"{sum(ratio < 1 for ratio in ratios.values())} below 1. alpha is one fixed value in the "
        "prior, so the adapter's scale differs by a factor of 32 between these ranks.",
    ]


def _lengths(paper: dict[str, PaperNumbers]) -> list[str]:
    stated = {
        f.key: f.value
        for numbers in paper.values()
        for f in numbers.stated
        if len(numbers.stated) > 1
    }
    start, end = stated["completion_tokens.start"], stated["completion_tokens.end"]
    return [
        f"Llama's answers nearly double from {start:.0f} to over {end:.0f} tokens",
        "consistent",
        f"{end / start:.2f} times; a figure, no table: nothing else to check.",
    ]


def _pairs(numbers: PaperNumbers) -> Iterator[tuple[float, float]]:
    for suite, k, when in numbers.passes:
        if when == "baseline":
            yield numbers.passes[suite, k, "baseline"], numbers.passes[suite, k, "final"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--seeds", type=Path, default=SEEDS, help="CSV of multi-seed evaluations")
    options = parser.parse_args()
    text = page(read_paper(), options.seeds)
    if options.check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print(f"{PAGE.relative_to(ROOT)}: {'up to date' if same else 'differs'}")
        return 0 if same else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
