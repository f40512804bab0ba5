"""`budgetrl watch SWEEP`: one line for every trial, from the files alone."""

from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from budgetrl.display.base import can_be_live
from budgetrl.study.rows import bill_words, trial_lines
from budgetrl.study.state import open_study

TICK_S = 1.0


def sweep_lines(path: Path) -> list[str]:
    """All trials as they are, and the bill."""
    study = open_study(path)
    running = "running" if study.is_held() else "not running"
    return [*trial_lines(study), f"{path.name}: {running}, {bill_words(study)} paid"]


def print_sweep_lines(path: Path, stream: TextIO) -> None:
    """Once."""
    stream.write("".join(f"{line}\n" for line in sweep_lines(path)))


def watch_sweep(path: Path, stream: TextIO, sleep: Callable[[float], None]) -> None:
    """Until no process hands out its trials: in place on a terminal, else each line that is new."""
    if not can_be_live(stream):
        told: set[str] = set()
        while True:
            lines = sweep_lines(path)
            stream.write("".join(f"{line}\n" for line in lines if line not in told))
            stream.flush()
            told.update(lines)
            if not open_study(path).is_held():
                return
            sleep(TICK_S)
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def drawn() -> Text:
        return Text("\n".join(sweep_lines(path)), no_wrap=True, overflow="ellipsis")

    with Live(drawn(), console=Console(file=stream), auto_refresh=False) as live:
        while open_study(path).is_held():
            sleep(TICK_S)
            live.update(drawn(), refresh=True)
