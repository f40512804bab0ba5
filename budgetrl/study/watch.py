"""How far the trials of a sweep are, from its files alone: rows, lines, `budgetrl watch SWEEP`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from budgetrl.account.result import result_of
from budgetrl.display.base import can_be_live
from budgetrl.study.state import StudyDir, open_study
from budgetrl.types import RunStatus
from budgetrl.units import duration, percent, usd

TICK_S = 1.0


def trial_row(study: StudyDir, index: int) -> dict[str, Any]:
    """One trial for tables and JSON."""
    trial = study.trials[index]
    account = study.account(trial)
    steps, paid_s = (account.steps, account.paid_s) if account else (0, 0.0)
    status = study.status(trial)
    whole = study.sweep.rungs[-1] if study.sweep.rungs else 0
    return {
        **trial.plan_row(index),
        "run_dir": str(account.run.path) if account else None,
        "status": status,
        "error": trial.error,
        "steps": steps,
        "spent": {"wall_s": paid_s, "usd": study.sweep.budget.usd_of(paid_s)},
        "final": result_of(account).get("final") if account else None,
        "stopped_early": status == RunStatus.FINISHED and steps < whole,
        "scores": {str(made): score for made, score in trial.scores.items()},
    }


def trial_rows(study: StudyDir) -> list[dict[str, Any]]:
    """All trials, in order."""
    return [trial_row(study, index) for index in range(len(study.trials))]


def trial_line(study: StudyDir, index: int, news: str = "") -> str:
    """One trial for people who wait, as it is or with what has just become of it."""
    row, trial, suite = trial_row(study, index), study.trials[index], study.config.metric
    handed_out = row["status"] == "pending" and trial.run is not None
    status = news or ("starting" if handed_out else row["status"])
    words = [status, f"{row['steps']} updates", duration(row["spent"]["wall_s"])]
    if row["spent"]["usd"] is not None:
        words.append(usd(row["spent"]["usd"]))
    result = (row["final"] or {}).get(suite)
    if result is not None:
        words.append(f"{suite} {percent(result['pass_at']['1'])}")
    if row["stopped_early"]:
        words.append("ended early")
    if trial.error:
        words.append(trial.error)
    place = f"trial {index + 1} of {len(study.trials)}: {trial.spec.label}"
    return f"{place}: {', '.join(words)}"


def trial_lines(study: StudyDir) -> list[str]:
    """All trials, in order."""
    return [trial_line(study, index) for index in range(len(study.trials))]


def bill_words(study: StudyDir) -> str:
    """Spent and limit."""
    budget, paid_s = study.sweep.budget, study.paid_s()
    bill = budget.usd_of(paid_s)
    money = "" if bill is None else f" ({usd(bill)})"
    return f"{duration(paid_s)}{money} of {duration(budget.wall_s)}"


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
