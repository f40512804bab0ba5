"""How far the trials of a sweep are, from its files alone: rows, lines, `budgetrl watch SWEEP`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from budgetrl.account.result import result_of
from budgetrl.account.text import updates
from budgetrl.display.base import can_be_live
from budgetrl.study.state import StudyDir, open_study
from budgetrl.types import RunStatus
from budgetrl.units import duration, percent, usd

TICK_S = 1.0
SILENCE_S = 60.0
"""Between two lines of a trial that goes on, where there is no terminal."""


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
    place = f"trial {index + 1} of {len(study.trials)}: {study.trials[index].spec.label}"
    return f"{place}: {', '.join(_words(study, index, news))}"


def _words(study: StudyDir, index: int, news: str = "") -> list[str]:
    """Status, updates, time, and what else there is to say of a trial."""
    row, trial, suite = trial_row(study, index), study.trials[index], study.config.metric
    handed_out = row["status"] == "pending" and trial.run is not None
    status = news or ("starting" if handed_out else row["status"])
    words = [status, updates(row["steps"]), duration(row["spent"]["wall_s"])]
    if row["spent"]["usd"] is not None:
        words.append(usd(row["spent"]["usd"]))
    result = (row["final"] or {}).get(suite)
    if result is not None:
        words.append(f"{suite} {percent(result['pass_at']['1'])}")
    if row["stopped_early"]:
        words.append("ended early")
    if trial.error:
        words.append(trial.error)
    return words


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


def watch_sweep(path: Path, stream: TextIO, sleep: Callable[[float], None]) -> None:
    """Until no process hands out its trials: in place on a terminal, else lines of what is new."""
    if not can_be_live(stream):
        _tell_sweep(path, stream, sleep)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=stream)

    def drawn() -> Text:
        lines = sweep_screen(open_study(path), console.height - 1)
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")

    with Live(drawn(), console=console, auto_refresh=False) as live:
        while open_study(path).is_held():
            sleep(TICK_S)
            live.update(drawn(), refresh=True)
        live.update(drawn(), refresh=True)


def sweep_screen(study: StudyDir, rows: int) -> list[str]:
    """Trials in columns under a heading, what is tried in each last.

    Where there are more than rows, those around the first one that is not over.
    """
    count, room = len(study.trials), max(1, rows - 3)
    over = (RunStatus.FINISHED, RunStatus.FAILED)
    ahead = (i for i, trial in enumerate(study.trials) if study.status(trial) not in over)
    first = max(0, min(next(ahead, count) - room // 3, count - room))
    shown = range(first, min(count, first + room))
    words = [_words(study, index) for index in shown]
    told = [", ".join(rest) for _, _, *rest in words]
    width = max(map(len, told))
    tried, labels = _tried([trial.spec.label for trial in study.trials])
    lines = [f"     {'status':<11}  {'made':>11}  {'paid, result':<{width}}  {tried}"]
    for index, (status, made, *_), rest in zip(shown, words, told, strict=True):
        lines.append(f"{index + 1:>3}  {status:<11}  {made:>11}  {rest:<{width}}  {labels[index]}")
    if count > room:
        lines.append(f"trials {first + 1} to {first + room} of {count}")
    return [*lines, sweep_lines(study.path)[-1]]


def _tried(labels: Sequence[str]) -> tuple[str, Sequence[str]]:
    """What all labels name, and the values of each: a narrow terminal has no room for both.

    >>> _tried(["quickstart, rank 8, seed 1", "quickstart, rank 64, seed 1"])
    ('rank, seed', ['8, 1', '64, 1'])
    """
    split = [[part.rpartition(" ") for part in label.split(", ")[1:]] for label in labels]
    names = {", ".join(name for name, _, _ in parts) for parts in split}
    recipes = {label.partition(", ")[0] for label in labels}
    if len(names) > 1 or len(recipes) > 1:
        return "trial", labels
    return names.pop(), [", ".join(value for _, _, value in parts) for parts in split]


def _tell_sweep(path: Path, stream: TextIO, sleep: Callable[[float], None]) -> None:
    """A line for each trial whose status is new, and for all that run once a minute."""
    told: dict[int, str] = {}
    waited_s = 0.0
    while True:
        study = open_study(path)
        held, again = study.is_held(), waited_s >= SILENCE_S
        for index in range(len(study.trials)):
            status = _words(study, index)[0]
            if told.get(index) != status or (again and status == RunStatus.RUNNING):
                stream.write(f"{trial_line(study, index)}\n")
                told[index], waited_s = status, 0.0
        if not held:
            stream.write(f"{sweep_lines(path)[-1]}\n")
        stream.flush()
        if not held:
            return
        sleep(TICK_S)
        waited_s += TICK_S
