"""The table of `budgetrl runs`: one line per run directory, oldest first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from budgetrl.account.live import RunView
from budgetrl.account.outcome import gain, points, short_path
from budgetrl.account.text import scrub
from budgetrl.losses import find_losses
from budgetrl.rundir import list_runs
from budgetrl.types import RunStatus
from budgetrl.units import duration, usd

PIPE_WIDTH = 200
"""Columns where there is no terminal: nothing is folded."""
STATUS_STYLE = {
    RunStatus.RUNNING: "green",
    RunStatus.FINISHED: "bold",
    RunStatus.INTERRUPTED: "yellow",
    RunStatus.FAILED: "red",
    RunStatus.CRASHED: "red",
}


def runs(out: Path) -> list[dict[str, Any]]:
    """What `budgetrl runs --json` prints: each run with its status, spend and result."""
    return [_row(RunView(run)) for run in list_runs(out)]


def _row(view: RunView) -> dict[str, Any]:
    view.catch_up()
    result, losses = view.result(), find_losses(view.run, view.history)
    elapsed = view.elapsed_s()
    spent = result.get("spent") or {
        "wall_s": elapsed,
        "train_s": None,
        "usd": view.usd_of(elapsed),
    }
    return {
        "run_dir": str(view.run.path),
        "recipe": view.name,
        "status": view.status().value,
        "steps": max(view.step, losses.last),
        "spent": spent,
        "final": result.get("final"),
        "difference": result.get("difference"),
        "missing": losses.sentences(),
    }


def print_runs(rows: Sequence[dict[str, Any]], stream: TextIO) -> None:
    """The same for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column("run", overflow="fold")
    table.add_column("status", no_wrap=True)
    for name in ("updates", "time", "money", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in rows:
        status = RunStatus(entry["status"])
        found = gain(entry)
        gained = "-" if found is None else f"{found[0]} pass@{found[1]} {points(found[2])}"
        table.add_row(
            Text(scrub(short_path(Path(entry["run_dir"])))),
            Text(status.value, STATUS_STYLE[status]),
            str(entry["steps"]),
            duration(entry["spent"].get("wall_s")),
            usd(entry["spent"].get("usd")),
            Text(scrub(gained)),
        )
    console.print(table)
    for entry in rows:
        for sentence in entry["missing"]:
            name = scrub(short_path(Path(entry["run_dir"])))
            console.print(Text(f"{name}: {sentence}", "yellow"))
