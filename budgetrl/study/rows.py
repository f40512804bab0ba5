"""How far the trials of a sweep are, from their files: one row or line each; light to import."""

from typing import Any

from budgetrl.account.result import result_of
from budgetrl.study.state import StudyDir
from budgetrl.types import RunStatus
from budgetrl.units import duration, percent, usd


def is_sweep(study: StudyDir) -> bool:
    """Whether it was made by `budgetrl sweep`, not by `replicate`."""
    return study.config.get("kind") == "sweep"


def trial_row(study: StudyDir, index: int) -> dict[str, Any]:
    """One trial for tables and JSON."""
    trial = study.trials[index]
    account = study.account(trial)
    steps, paid_s = (account.steps, account.paid_s) if account else (0, 0.0)
    status = study.status(trial)
    whole = study.rungs[-1] if study.rungs else 0
    return {
        "index": index,
        "values": dict(trial.spec.values),
        **trial.row,
        "run_dir": str(account.run.path) if account else None,
        "status": status,
        "error": trial.error,
        "steps": steps,
        "spent": {"wall_s": paid_s, "usd": study.budget.usd_of(paid_s)},
        "final": result_of(account).get("final") if account else None,
        "stopped_early": status == RunStatus.FINISHED and steps < whole,
        "scores": {str(made): score for made, score in trial.scores.items()},
    }


def trial_line(study: StudyDir, index: int, news: str = "") -> str:
    """One trial for people who wait, as it is or with what has just become of it."""
    row, trial, suite = trial_row(study, index), study.trials[index], study.config.get("metric")
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


def sweep_spent(study: StudyDir) -> dict[str, float | None]:
    """Limit and bill of a sweep, for JSON."""
    whole = study.budget
    paid_s = study.paid_s()
    return {
        "wall_s": whole.wall_s,
        "usd": whole.usd,
        "spent_s": paid_s,
        "spent_usd": whole.usd_of(paid_s),
    }
