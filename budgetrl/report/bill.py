"""The bill by phase against the estimate: what the run was planned to cost and what it did."""

from collections.abc import Sequence

from budgetrl.account.bill import BillRow, bill_rows, stage_rows
from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.report.document import Bar, Block, Cell, Table, Text, Tone
from budgetrl.units import duration, percent, usd


def bill_blocks(facts: EvaluatedRun) -> list[Block]:
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
    return blocks + _stages(facts)


def _stages(facts: EvaluatedRun) -> list[Block]:
    """The updates of each stage against the plan."""
    rows = stage_rows(facts)
    if not rows:
        return []
    money = facts.usd_per_hour is not None
    head = ["Stage", "kind", "updates: planned", "made", "estimate", "paid"]
    head += ["dollars"] if money else []
    body = [
        [
            row.name,
            row.kind,
            "-" if row.planned_steps is None else str(row.planned_steps),
            str(row.steps),
            duration(row.planned_s),
            duration(row.paid_s),
            *([usd(facts.usd_of(row.paid_s))] if money else []),
        ]
        for row in rows
    ]
    return [Table(head, body, caption="Updates by stage, without evaluations and checkpoints.")]


def _row(facts: EvaluatedRun, row: BillRow, money: bool) -> Sequence[Cell | str]:
    tone: Tone = "muted" if row.part else ""
    share = None if row.paid_s is None else row.paid_s / facts.paid_s
    texts = [duration(row.planned_s), duration(row.paid_s), percent(share)]
    if money:
        texts.append(usd(facts.usd_of(row.paid_s)))
    name = f"\u2003{row.name}" if row.part else row.name
    return [Cell(name, tone), *(Cell(text, tone) for text in texts)]
