"""Ten completions to read: the same problems before and after, or the first and the last update."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.text import shortened, suite_name
from budgetrl.evaluation.rows import EvalRow
from budgetrl.report.document import Block, Pair, Sample, Text
from budgetrl.types import Verdict

PAIRS = 5
PROBLEM_LIMIT = 1000
"""Characters of a problem or a gold answer."""
_WANTED = ((False, True), (True, True), (False, False), (True, False))
"""Right before and after: learnt, kept, still wrong, lost."""


def sample_blocks(run: EvaluatedRun) -> list[Block]:
    """Pairs of completions, each with its verdict and the file that it is in."""
    pairs = _evaluated(run) or _trained(run)
    return list(pairs)


def _evaluated(run: EvaluatedRun) -> list[Block]:
    """The same held-out problems before and after training, of every kind of change."""
    for suite in run.suites:
        base, final = run.stored.get((suite, "baseline")), run.stored.get((suite, "final"))
        if base is None or final is None or final.step == base.step:
            continue
        before = {row.problem_id: row for row in base.rows if row.sample == 0}
        after = {row.problem_id: row for row in final.rows if row.sample == 0}
        common = [(before[p], after[p]) for p in base.problem_ids if p in before and p in after]
        chosen = _varied(common)
        if not chosen:
            continue
        intro = Text(
            f"The first sample of problems of {suite_name(suite)}, before and after training: "
            "learnt, kept, not learnt and lost, as far as each occurs.",
            "muted",
        )
        files = (
            run.run.relative(base.completions_file),
            run.run.relative(final.completions_file),
        )
        return [intro, *(_pair(b, a, files) for b, a in chosen)]
    return []


def _varied(common: Sequence[tuple[EvalRow, EvalRow]]) -> list[tuple[EvalRow, EvalRow]]:
    """Up to five pairs, taking turns between the kinds of change."""
    kinds = [[pair for pair in common if (pair[0].correct, pair[1].correct) == k] for k in _WANTED]
    turns = [pair for turn in zip_longest(*(kind[:PAIRS] for kind in kinds)) for pair in turn]
    return [pair for pair in turns if pair is not None][:PAIRS]


def _pair(before: EvalRow, after: EvalRow, files: tuple[str, str]) -> Pair:
    samples = [
        Sample(
            title,
            row.verdict.value,
            shortened(row.completion),
            f"{row.tokens:,} tokens{', cut off' if row.truncated else ''}; {file}",
        )
        for title, row, file in zip(("Before", "After"), (before, after), files, strict=True)
    ]
    return Pair(
        shortened(before.problem, PROBLEM_LIMIT), shortened(before.answer, PROBLEM_LIMIT), samples
    )


def _trained(run: EvaluatedRun) -> list[Block]:
    """Right and wrong completions of the first and the last update."""
    steps = [step.step for step in run.history.steps]
    if not steps:
        return []
    first, last = run.completions(steps[0]), run.completions(steps[-1])
    pairs = list(_by_verdict(first, last, (steps[0], steps[-1])))
    if not pairs:
        return []
    intro = Text(
        f"Training completions of update {steps[0]} and update {steps[-1]}, right and wrong.",
        "muted",
    )
    return [intro, *pairs]


def _by_verdict(
    first: Sequence[dict[str, Any]], last: Sequence[dict[str, Any]], steps: tuple[int, int]
) -> Iterator[Pair]:
    for right, count in ((True, 3), (False, 2)):
        rows = [
            [row for row in side if (row.get("verdict") == Verdict.CORRECT) == right][:count]
            for side in (first, last)
        ]
        for pair in zip_longest(*rows):
            samples = [
                _training_sample(row, step) for row, step in zip(pair, steps, strict=True) if row
            ]
            yield Pair("", "", samples)


def _training_sample(row: dict[str, Any], step: int) -> Sample:
    tokens = row.get("tokens")
    details = f"{tokens:,} tokens" if isinstance(tokens, int) else "tokens not known"
    if isinstance(row.get("reward"), int | float):
        details += f", reward {row['reward']:.2f}"
    problem = shortened(str(row.get("problem", "")), PROBLEM_LIMIT)
    return Sample(
        f"Update {step}",
        str(row.get("verdict", "")),
        shortened(f"{problem}\n\n{row.get('completion', '')}"),
        f"{details}; completions/step_{step:06d}.jsonl",
    )
