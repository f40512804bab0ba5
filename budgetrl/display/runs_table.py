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
    """The same for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    table = Table(box=None, pad_edge=False, header_style=g.LABEL)
    table.add_column("run", overflow="fold")
    table.add_column("status", no_wrap=True)
    for name in ("updates", "time", "money", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    missing = []
    for view in views:
        status, elapsed = view.status_at(), view.elapsed_s()
        losses, name = find_losses(view.run, view.history), scrub(short_path(view.run.path))
        table.add_row(
            Text(name),
            Text(status.value, g.TONES[STATUS_TONES[status]]),
            str(max(view.steps, losses.last)),
            duration(elapsed),
            usd(view.usd_of(elapsed)),
            Text(scrub(_gain(view))),
        )
        missing += [f"{name}: {sentence}" for sentence in losses.sentences()]
    console.print(table)
    for sentence in missing:
        console.print(Text(sentence, g.STRONG))


def _gain(view: LiveRun) -> str:
    """Of the first suite, at the smallest k."""
    for suite, by_k in view.recorded_differences().items():
        return f"{suite_name(suite)} pass@{min(by_k)} {points(by_k[min(by_k)].difference)} points"
    return "-"
