"""Tables 1 and 2 in the shape of the paper: printed numbers above measured ones, per model."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from budgetrl.account.outcome import tone_of
from budgetrl.account.text import interval_text, points, suite_name
from budgetrl.recipe.base import Rank, rank_name, rank_order
from budgetrl.report.arms import Arm, Estimate, best_arm
from budgetrl.report.cells import NOTHING
from budgetrl.report.document import Cell, Table, Tone
from budgetrl.report.paper import PaperNumbers, impossible
from budgetrl.types import Protocol
from budgetrl.units import percent

IMPOSSIBLE = "\u2020"
PROTOCOL = "\u2021"
_SHARED = ("suite_fingerprint", "temperature", "top_p", "max_tokens", "seed", "grader")
"""Fields of a protocol that must agree in a column; prompts differ with the models' templates."""


@dataclass(frozen=True, slots=True)
class ModelRows:
    """One model: its arms, and what the paper prints of it."""

    name: str
    arms: Sequence[Arm]
    numbers: PaperNumbers | None


@dataclass(slots=True)
class _Footnotes:
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        if line not in self.lines:
            self.lines.append(line)


def table_1(models: Sequence[ModelRows]) -> Table | None:
    """Pass@k before and after by suite; None without any number."""
    columns = _columns(models)
    if not columns:
        return None
    notes = _Footnotes()
    usual = {suite: _usual_protocol(models, suite) for suite, _ in columns}
    rows: list[Sequence[Cell | str]] = []
    for model in models:
        for when in ("baseline", "final"):
            if model.numbers is not None:
                rows.append(_printed(model, when, columns, notes))
            for arm in _shown_arms(model, when):
                rows.append(_measured(model, arm, when, columns, usual, notes))
    suites = list(dict.fromkeys(suite for suite, _ in columns))
    groups = [(suite_name(s), sum(1 for other, _ in columns if other == s)) for s in suites]
    return Table(
        head=["Model", "config", *(f"@{k}" for _, k in columns)],
        rows=rows,
        text_columns=2,
        super_head=[("", 2), *groups],
        footnotes=notes.lines,
        caption=(
            "Percent of problems. Ours with 95 % intervals: over seeds where there are several, "
            "else over the problems of the one run. Coloured where the interval of the gain "
            "excludes zero."
        ),
    )


def table_2(models: Sequence[ModelRows]) -> Table | None:
    """Relative entropy change by rank; None without any number."""
    changes = {
        (model.name, arm.label): (arm.rank, change)
        for model in models
        for arm in model.arms
        if (change := arm.entropy_change()) is not None
    }
    printed = {rank for model in models if model.numbers for rank in model.numbers.entropies}
    found_here = {rank for rank, _ in changes.values() if rank is not None}
    ranks: list[Rank] = sorted(printed | found_here, key=rank_order)
    if not changes or not ranks:
        return None
    rows: list[Sequence[Cell | str]] = []
    for model in models:
        if model.numbers is not None and model.numbers.entropies:
            printed_of = model.numbers.entropies
            cells = [None if rank == "full" else printed_of.get(rank) for rank in ranks]
            shown = [
                Cell("-" if c is None else f"{c:+.1f}", "paper", number=_paper_number(c))
                for c in cells
            ]
            rows.append([Cell(model.name, "paper"), Cell("paper", "paper"), *shown])
        for scales in _by_scale(model.arms):
            found = [changes.get((model.name, arm.label)) for arm in scales]
            by_rank = dict(change for change in found if change is not None)
            if by_rank:
                name = "" if model.numbers else model.name
                cells_here = [_change(by_rank.get(rank)) for rank in ranks]
                rows.append([name, Cell("ours", strong=True), *cells_here])
    return Table(
        head=["Model", "", *map(rank_name, ranks)],
        rows=rows,
        text_columns=2,
        caption=(
            "Change of the exact mean token entropy (paper Eq. 1) from the start to the end, in "
            "percent of the start. Mind the adapter's scale alpha/r, which differs between ranks."
        ),
    )


def _columns(models: Sequence[ModelRows]) -> list[tuple[str, int]]:
    printed = [column for model in models if model.numbers for column in model.numbers.columns()]
    if printed:
        return list(dict.fromkeys(printed))
    found = {
        (evaluation.suite, k): None
        for model in models
        for arm in model.arms
        for run in arm.runs
        for evaluation in run.history.evaluations
        if evaluation.when != "step"
        for k in evaluation.pass_at
    }
    return list(found)


def _shown_arms(model: ModelRows, when: str) -> list[Arm]:
    """Of the baseline one arm (all share the base model); of the final the chosen rank or all."""
    if when == "baseline":
        return list(model.arms[:1])
    best = best_arm(model.arms)
    return [best] if best is not None and model.numbers is not None else list(model.arms)


def _printed(
    model: ModelRows, when: str, columns: Sequence[tuple[str, int]], notes: _Footnotes
) -> list[Cell | str]:
    numbers = model.numbers
    assert numbers is not None
    config = when
    if when == "final":
        known = numbers.final_rank
        config += f", rank {known}" if known is not None else ", best rank, unstated"
    cells: list[Cell | str] = [
        Cell(model.name if when == "baseline" else "", "paper"),
        Cell(f"paper: {config}", "paper"),
    ]
    for suite, k in columns:
        value = numbers.passes.get((suite, k, when))
        why = None if value is None else impossible(suite, k, value)
        if why:
            notes.add(f"{IMPOSSIBLE} {suite_name(suite)} @{k}: {why}.")
        shown = "-" if value is None else f"{value:.1f}"
        marks = IMPOSSIBLE if why else ""
        cells.append(Cell(shown, "paper", marks=marks, number=_paper_number(value)))
    return cells


def _paper_number(percent: float | None) -> Mapping[str, Any] | None:
    return None if percent is None else {"value": percent / 100}


def _measured(
    model: ModelRows,
    arm: Arm,
    when: str,
    columns: Sequence[tuple[str, int]],
    usual: dict[str, tuple[object, ...] | None],
    notes: _Footnotes,
) -> list[Cell | str]:
    name = "" if model.numbers or when == "final" else model.name
    config = f"ours: {when}" if when == "baseline" else f"ours: final, {arm.label}"
    if when == "final" and len(model.arms) > 1 and best_arm(model.arms) is arm:
        config += ", best by validation"
    sizes = [_size(arm, suite, when, k) for suite, k in columns]
    usual_size = next(iter(Counter(filter(None, sizes)).most_common(1)), ("", 0))[0]
    cells: list[Cell | str] = [name, Cell(config, strong=True, note=usual_size)]
    for (suite, k), size in zip(columns, sizes, strict=True):
        found = arm.passes(suite, when, k)
        marks = ""
        differing = _differing(arm, suite, when, usual[suite])
        if found is not None and differing:
            marks = PROTOCOL
            notes.add(
                f"{PROTOCOL} {model.name}, {suite_name(suite)}, {when}: another protocol than the "
                f"rest of the column ({', '.join(differing)}); not comparable with it."
            )
        gain = arm.gain(suite, k) if when == "final" else None
        tone = tone_of(gain.interval_95) if gain is not None else ""
        own = size if size != usual_size else ""
        cell = _estimate(found, marks, tone if tone in ("good", "bad") else "", own)
        rounds = [e.samples for e in arm.evaluations(suite, when, k)]
        cells.append(replace(cell, number=cell.number and {**cell.number, "samples": rounds}))
    return cells


def _size(arm: Arm, suite: str, when: str, k: int) -> str:
    """Samples and seeds behind a cell: "n = 16, 2 seeds"."""
    counts = sorted(found.samples for found in arm.evaluations(suite, when, k))
    of = "" if len(arm.runs) == 1 else f", {len(counts)} seed{'s' if len(counts) > 1 else ''}"
    return f"n = {' or '.join(map(str, dict.fromkeys(counts)))}{of}" if counts else ""


def _estimate(found: Estimate | None, marks: str, tone: Tone, size: str) -> Cell:
    """A cell; its size where that is not the row's."""
    if found is None:
        return NOTHING
    interval = interval_text(found.interval_95) if found.interval_95 else ""
    note = "; ".join(filter(None, (interval, size)))
    shown = percent(found.value).removesuffix(" %")
    return Cell(shown, tone, note=note, marks=marks, number=found._asdict())


def _change(found: Estimate | None) -> Cell:
    if found is None:
        return NOTHING
    note = interval_text(found.interval_95, signed=True) if found.interval_95 else ""
    return Cell(points(found.value), note=note, number=found._asdict())


def _by_scale(arms: Sequence[Arm]) -> Iterator[list[Arm]]:
    """Arms in rows with each rank once: one row, unless scales were varied too."""
    left = list(arms)
    while left:
        row: dict[Rank | None, Arm] = {}
        for arm in left:
            row.setdefault(arm.rank, arm)
        left = [arm for arm in left if row[arm.rank] is not arm]
        yield list(row.values())


def _key(protocol: Protocol) -> tuple[object, ...]:
    return tuple(getattr(protocol, name) for name in _SHARED)


def _protocols(arm: Arm, suite: str, when: str) -> list[Protocol]:
    return [p for run in arm.runs if (p := run.protocol(suite, when)) is not None]


def _usual_protocol(models: Sequence[ModelRows], suite: str) -> tuple[object, ...] | None:
    counted = Counter(
        _key(protocol)
        for model in models
        for arm in model.arms
        for when in ("baseline", "final")
        for protocol in _protocols(arm, suite, when)
    )
    return counted.most_common(1)[0][0] if counted else None


def _differing(arm: Arm, suite: str, when: str, usual: tuple[object, ...] | None) -> list[str]:
    """Protocol fields in which an arm differs from the column."""
    if usual is None:
        return []
    found = set()
    for protocol in _protocols(arm, suite, when):
        pairs = zip(_SHARED, _key(protocol), usual, strict=True)
        found |= {name for name, here, there in pairs if here != there}
    return [name for name in _SHARED if name in found]
