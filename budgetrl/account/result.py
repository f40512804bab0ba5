"""How a run ended, for programs: its exit code and its final JSON."""

from typing import Any

from budgetrl.account.bill import stage_rows
from budgetrl.account.run import Account
from budgetrl.errors import ExitCode
from budgetrl.events import RunFinished
from budgetrl.rundir import RunDir
from budgetrl.types import StopReason


def exit_code_of(finished: RunFinished) -> ExitCode:
    """How a run that ended makes its command end; codes that no budgetrl writes mean nothing."""
    try:
        return ExitCode(finished.exit_code)
    except ValueError:
        meant = {StopReason.FAILED: ExitCode.FAILED, StopReason.INTERRUPTED: ExitCode.INTERRUPTED}
        return meant.get(finished.stop_reason, ExitCode.OK)


def report_file(run: RunDir) -> str | None:
    """The report's page, if there is one."""
    page = run.report / "report.html"
    return str(page) if page.exists() else None


def result_of(account: Account) -> dict[str, Any]:
    """The final JSON of a run (CLI.md); empty while it lasts."""
    history, adapter = account.history, account.run.adapter
    finished = history.finished
    if finished is None:
        return {}
    return {
        "schema_version": 1,
        "run_dir": str(account.run.path),
        "recipe": history.started.recipe if history.started is not None else None,
        "stop_reason": finished.stop_reason.value,
        "steps": finished.steps,
        "spent": {
            "wall_s": account.paid_s,
            "train_s": finished.train_s,
            "usd": account.paid_usd,
        },
        "budget": {
            "wall_s": account.budget_s,
            "usd": account.budget.usd if account.budget else None,
            "source": account.budget.source if account.budget else None,
        },
        **finished.model_dump(mode="json", include={"baseline", "final", "difference"}),
        "best_checkpoint": finished.best_checkpoint,
        "attempts": history.attempt,
        "report": report_file(account.run),
        "adapter": str(adapter) if adapter.is_dir() else None,
        **_stages(account),
    }


def _stages(account: Account) -> dict[str, Any]:
    """Of a run in stages: the updates of each and what they took."""
    rows = [
        {
            "name": row.name,
            "kind": row.kind,
            "steps": row.steps,
            "spent": {"wall_s": row.paid_s, "usd": account.usd_of(row.paid_s)},
        }
        for row in stage_rows(account)
    ]
    return {"stages": rows} if rows else {}
