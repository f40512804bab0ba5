"""The bill by phase against the estimate: what the run was planned to cost and what it did."""

from collections.abc import Sequence
from typing import NamedTuple

from budgetrl.account.run import Facts
from budgetrl.budget import Plan
from budgetrl.report.document import Bar, Block, Cell, Table, Text, Tone
from budgetrl.units import duration, percent, usd

SETUP = ("imports", "model", "data", "preflight")
STEP_PHASES = ("rollout", "reward", "logprob", "update", "other")


class BillRow(NamedTuple):
    """One phase."""

    name: str
    planned_s: float | None
    paid_s: float | None
    part: bool = False
    """A part of the row above."""


def exclusive_seconds(facts: Facts) -> dict[str, float]:
    """Paid seconds by phase over all attempts, each without the phases that ran inside it."""
    totals: dict[str, float] = {}
    open_spans: list[tuple[str, float]] = []  # name and end of the phases around this one
    for span in sorted(facts.history.spans, key=lambda span: (span.attempt, span.started_s)):
        lasting = facts.history.elapsed_s - span.started_s
        seconds = max(0.0, lasting if span.seconds is None else span.seconds)
        while open_spans and open_spans[-1][1] <= span.started_s + 1e-3:
            open_spans.pop()
        if open_spans:
            totals[open_spans[-1][0]] -= seconds
        totals[span.name] = totals.get(span.name, 0.0) + seconds
        open_spans.append((span.name, span.started_s + seconds))
    return {name: max(0.0, seconds) for name, seconds in totals.items()}


def bill_rows(facts: Facts) -> list[BillRow]:
    """The phases in order; they add up to what was paid."""
    paid, times = exclusive_seconds(facts), facts.times
    plan = _planned(facts.plan, times.download_s if times else 0.0)
    steps = facts.history.step_phase_seconds()
    num_planned = facts.plan.steps if facts.plan else 0
    setup_s = sum(paid.get(name, 0.0) for name in SETUP)
    rows = [
        BillRow("Download", times.download_s if times else None, paid.get("download")),
        BillRow("Setup", plan.get("setup"), setup_s),
        BillRow("Baseline evaluation", plan.get("baseline"), paid.get("baseline")),
        BillRow("Updates", plan.get("updates"), sum(steps.values()) or None),
    ]
    for name in STEP_PHASES:
        expected = getattr(times, f"{name}_s") * num_planned if times else None
        rows.append(BillRow(name, expected, steps.get(name), part=True))
    rows += [
        BillRow("Evaluations on the way", plan.get("evaluations"), paid.get("evaluation")),
        BillRow("Entropy measurements", None, paid.get("entropy")),
        BillRow("Checkpoints", plan.get("saves"), paid.get("checkpoint")),
        BillRow("Final evaluation", times.final_s if times else None, paid.get("final")),
        BillRow("Report", plan.get("report"), paid.get("report")),
    ]
    known = sum(row.paid_s or 0.0 for row in rows if not row.part)
    rows.append(BillRow("Everything else", None, max(0.0, facts.paid_s - known)))
    return [row for row in rows if row.planned_s or row.paid_s]


def _planned(plan: Plan | None, download_s: float) -> dict[str, float]:
    if plan is None:
        return {}
    return {
        "setup": plan.setup_s - download_s,
        "baseline": plan.baseline_s,
        "updates": plan.steps * plan.step_s,
        "evaluations": plan.step_evals_s,
        "saves": plan.saves_s,
        "report": plan.report_s,
    }


def bill_blocks(facts: Facts) -> list[Block]:
    """The table of the bill and where the time of the updates went."""
    rows = bill_rows(facts)
    if not facts.paid_s:
        return [Text("Nothing was paid yet.", "muted")]
    money = facts.usd_per_hour is not None
    head = ["Phase", "estimate", "paid", "share", *(["dollars"] if money else [])]
    body = [_row(facts, row, money) for row in rows]
    plan = facts.plan
    total: list[Cell | str] = [
        Cell("Total", strong=True),
        Cell(duration(plan.total_s if plan else None), strong=True),
        Cell(duration(facts.paid_s), strong=True),
        "",
    ]
    if money:
        total.append(Cell(usd(facts.paid_usd), strong=True))
    caption = "Paid seconds from events.jsonl and heartbeat.json; the estimate from plan.json"
    if plan is not None:
        caption += f" ({plan.steps:,} updates planned; times: {plan.source})"
    if not any(row.name == "Report" and row.paid_s for row in rows):
        caption += "; this report itself is not yet in it"
    blocks: list[Block] = [Table(head, [*body, total], caption=f"{caption}.")]
    parts = [(row.name, row.paid_s, duration(row.paid_s)) for row in rows if row.paid_s]
    top = {row.name for row in rows if not row.part}
    blocks.append(Bar("Where the time went", [part for part in parts if part[0] in top]))
    inner = [part for part in parts if part[0] not in top]
    if inner:
        blocks.append(Bar("Within the updates", inner))
    return blocks


def _row(facts: Facts, row: BillRow, money: bool) -> Sequence[Cell | str]:
    tone: Tone = "muted" if row.part else ""
    share = None if row.paid_s is None else row.paid_s / facts.paid_s
    texts = [duration(row.planned_s), duration(row.paid_s), percent(share)]
    if money:
        texts.append(usd(facts.usd(row.paid_s)))
    name = f"\u2003{row.name}" if row.part else row.name
    return [Cell(name, tone), *(Cell(text, tone) for text in texts)]
