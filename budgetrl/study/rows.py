"""How far the trials of a sweep are, from their files: one row or line each; light to import."""

from typing import Any

from budgetrl.account.result import result_of
from budgetrl.study.state import StudyDir
from budgetrl.types import RunStatus
from budgetrl.units import duration, percent, usd


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
