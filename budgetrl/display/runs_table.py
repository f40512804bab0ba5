"""The table of `budgetrl runs`: one line per run directory, oldest first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from budgetrl.account.live import LiveRun
from budgetrl.account.outcome import STATUS_TONES
from budgetrl.account.result import result_of
from budgetrl.account.text import points, scrub, short_path, suite_name
from budgetrl.display import glyphs as g
from budgetrl.losses import find_losses
from budgetrl.rundir import list_runs
from budgetrl.units import duration, usd

PIPE_WIDTH = 200
"""Columns where there is no terminal: nothing is folded."""
ANY_WIDTH = 10_000


def runs(out: Path) -> list[LiveRun]:
    """The runs under a folder, each as far as it is."""
    found = [LiveRun(run) for run in list_runs(out)]
    for view in found:
        view.catch_up()
    return found


def run_json(view: LiveRun) -> dict[str, Any]:
    """What `budgetrl runs --json` says of a run: its status, spend and result."""
    result, losses = result_of(view), find_losses(view.run, view.history)
    elapsed = view.elapsed_s()
    spent = {"wall_s": elapsed, "train_s": None, "usd": view.usd_of(elapsed)}
    return {
        "run_dir": str(view.run.path),
        "recipe": view.name,
        "status": view.status_at().value,
        "steps": max(view.steps, losses.last),
        "spent": result.get("spent", spent),
        "final": result.get("final"),
        "difference": result.get("difference"),
        "missing": losses.sentences(),
    }


def print_runs(views: Sequence[LiveRun], stream: TextIO) -> None:
    """The same for people; where a name has no room beside the rest, it stands above it."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    rows, missing = [], []
    for view in views:
        status, elapsed = view.status_at(), view.elapsed_s()
        losses, name = find_losses(view.run, view.history), scrub(short_path(view.run.path))
        row = (
            Text(name),
            Text(status.value, g.TONES[STATUS_TONES[status]]),
            str(max(view.steps, losses.last)),
            duration(elapsed),
            usd(view.usd_of(elapsed)),
            Text(scrub(_gain(view))),
        )
        rows.append(row)
        missing += [f"{name}: {sentence}" for sentence in losses.sentences()]
    wide = console.options.update(width=ANY_WIDTH)
    if console.measure(table := _table(rows), options=wide).maximum <= console.width:
        console.print(table)
    else:  # a name in pieces can be neither read nor copied
        for path, state, made, *others in rows:
            facts = [f"{made} updates", *(str(fact) for fact in others if str(fact) != "-")]
            console.print(path, soft_wrap=True)
            console.print(Text.assemble("  ", state, "  ", "  ".join(facts)))
    for sentence in missing:
        console.print(Text(sentence, g.STRONG))


def _table(rows: Sequence[Sequence[Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style=g.LABEL)
    for name in ("run", "status", "updates", "time", "money", "gain"):
        left = name in ("run", "status")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _gain(view: LiveRun) -> str:
    """Of the first suite, at the smallest k."""
    for suite, by_k in view.recorded_differences().items():
        return f"{suite_name(suite)} pass@{min(by_k)} {points(by_k[min(by_k)].difference)} points"
    return "-"
