"""The bill by phase against the estimate: what the run was planned to cost and what it did."""

from collections.abc import Mapping, Sequence

from budgetrl.account.bill import BillRow, stage_rows
from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.text import gate_words
from budgetrl.phases import UPDATE_PHASES
from budgetrl.report.document import Bar, Block, Cell, Part, Table, Text, Tone
from budgetrl.units import duration, percent, usd

INKS: Mapping[str, str] = {
    "Download": "muted",
    "Setup": "muted",
    "Updates": "a",
    "Own answers drawn": "a",
    "Baseline evaluation": "b",
    "Evaluations on the way": "b",
    "Final evaluation": "b",
    "Gates": "c",
    "Entropy measurements": "c",
    "Checkpoints": "d",
    "Report": "d",
}
"""A colour for a kind of work: preparing (dark grey), learning, evaluating, measuring, writing; all
else is light grey."""


def bill_blocks(run: EvaluatedRun) -> list[Block]:
    """The table of the bill and where the time of the updates went."""
    rows = run.bill
    if not run.paid_s:
        return [Text("Nothing was paid yet.", "muted")]
    money = run.usd_per_hour is not None
    head = ["Phase", "estimate", "paid", "share", *(["dollars"] if money else [])]
    body = [_row(run, row, money) for row in rows]
    plan = run.plan
    total: list[Cell | str] = [
        Cell("Total", strong=True),
        Cell(duration(plan.total_s if plan else None), strong=True),
        Cell(duration(run.paid_s), strong=True),
        "",
    ]
    if money:
        total.append(Cell(usd(run.paid_usd), strong=True))
    caption = "Paid seconds from events.jsonl and heartbeat.json; the estimate from plan.json"
    if plan is not None:
        caption += f" ({plan.steps:,} updates planned; times: {plan.source})"
    if not any(row.name == "Report" and row.paid_s for row in rows):
        caption += "; this report itself is not yet in it"
    blocks: list[Block] = [Table(head, [*body, total], caption=f"{caption}.")]
    parts = [_part(row) for row in rows if row.paid_s and not row.part]
    blocks.append(Bar("Where the time went", parts))
    inner = [_part(row) for row in rows if row.paid_s and row.part]
    if inner:
        blocks.append(Bar("Within the updates", inner))
    return blocks + _stages(run)


def _part(row: BillRow) -> Part:
    """A phase by the colour of its kind; the phases of an update are shades of the updates'."""
    ink = INKS["Updates"] if row.part else INKS.get(row.name, "paper")
    depth = 1.0 - 0.18 * UPDATE_PHASES.index(row.name) if row.part else 1.0
    return Part(row.name, row.paid_s or 0.0, duration(row.paid_s), ink, depth)


def _stages(run: EvaluatedRun) -> list[Block]:
    """The updates of each stage against the plan."""
    rows = stage_rows(run)
    if not rows:
        return []
    money = run.usd_per_hour is not None
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
            *([usd(run.usd_of(row.paid_s))] if money else []),
        ]
        for row in rows
    ]
    return [Table(head, body, text_columns=2,
                  footnotes=[
                      f"Gate after {one.name}: {gate_words(one)}."
                      for one in run.history.stages
                      if one.state == "gate"
                  ],
                  caption="Updates by stage, without evaluations and checkpoints.")]  # fmt: skip


def _row(run: EvaluatedRun, row: BillRow, money: bool) -> Sequence[Cell | str]:
    tone: Tone = "muted" if row.part else ""
    share = None if row.paid_s is None else row.paid_s / run.paid_s
    texts = [duration(row.planned_s), duration(row.paid_s), percent(share)]
    if money:
        texts.append(usd(run.usd_of(row.paid_s)))
    name = f"\u2003{row.name}" if row.part else row.name
    return [Cell(name, tone), *(Cell(text, tone) for text in texts)]
