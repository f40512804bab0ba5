"""All GPUs for one recipe, as a table: what fits, what an update costs, which is the best value."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from budgetrl.estimation.as_json import best
from budgetrl.estimation.estimate import Estimate
from budgetrl.estimation.memory import Verdict
from budgetrl.units import GIB, duration, hours, usd

_STYLE = {Verdict.FITS: "green", Verdict.TIGHT: "yellow", Verdict.NO: "red"}
_DIM = "dim"


def print_table(estimates: Sequence[Estimate]) -> None:
    """Write the table to standard output, best value first, what does not fit last."""
    console = Console(file=sys.stdout, highlight=False)
    first = estimates[0]
    aim = f"{first.requested_steps} updates" if first.requested_steps else "the budget"
    console.print(Text(f"\n {first.scenario.recipe.name} on {len(estimates)} GPUs", style="bold"))
    console.print(Text(f" for {aim}; prices are dated defaults, --price overrides", style=_DIM))
    console.print(_table(estimates, console.width))
    console.print(Text("\n $ cheapest per update   > fastest\n", style=_DIM))


def _table(estimates: Sequence[Estimate], width: int) -> Table:
    marks = best(estimates)
    gap = 2 if width >= 100 else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    table.add_column("", min_width=2)
    table.add_column("GPU", no_wrap=True, max_width=24 if width >= 100 else 17)
    for name in ("GiB", "needs", "update", "updates", "hours", "$/h", "total", "per $"):
        table.add_column(name, justify="right", no_wrap=True)
    for made in sorted(estimates, key=_order):
        name = made.scenario.gpu.name
        mark = Text("$" if name == marks.cheapest else "", style="bold green")
        mark.append(">" if name == marks.fastest else "", style="bold cyan")
        mark.pad_right(2 - len(mark))
        table.add_row(mark, *_cells(made))
    return table


def _cells(made: Estimate) -> list[Text]:
    gpu, style = made.scenario.gpu, _STYLE[made.memory.verdict]
    needs = Text(f"{made.memory.peak / GIB:.0f}", style=style)
    price = made.price.usd_per_hour if made.price is not None else None
    row = [
        Text(gpu.name, style="default" if made.fits else _DIM),
        Text(f"{gpu.usable_gib:.0f}", style=_DIM),
        needs,
    ]
    if not made.fits:
        reason = "no bfloat16" if not gpu.bf16 else "does not fit"
        return [*row, Text(reason, style="red"), *[Text("")] * 5]
    updates = f"{made.affordable_steps}" if made.affordable_steps is not None else f"{made.steps}"
    per_usd = made.steps_per_usd
    return [
        *row,
        Text(duration(made.times.step_s)),
        Text(updates),
        Text(f"{hours(made.plan.total_s):.1f}"),
        Text(usd(price), style=_DIM),
        Text(usd(made.usd)),
        Text(f"{per_usd:.0f}" if per_usd is not None else "-", style="bold"),
    ]


def _order(made: Estimate) -> tuple[bool, float]:
    return (not made.fits, -(made.steps_per_usd or 0.0))
