"""How a run came out, in sentences: the same in the terminal, the report and on the model card.

    difference_sentence("amc23", found)     "+6.2 points pass@1 on AMC23, 95 % interval ..."
    stopped(account, finished), paid(account)
    ending(account, finished)               the lines of the end screen, as label and text

Plain text without layout; whoever draws it scrubs or escapes it.
"""

import shlex
from collections.abc import Iterator, Mapping
from typing import Literal

from budgetrl.account.run import Account
from budgetrl.account.text import interval_text, money, points, short_path, suite_name, updates
from budgetrl.events import RunFinished
from budgetrl.types import Difference, Interval, RunStatus, StopReason
from budgetrl.units import hours_option, percent

Tone = Literal["", "good", "bad", "noise", "paper", "muted"]
"""What a colour says, on every face."""
Judgement = Literal["better", "worse", "noise", "unknown"]

VERDICTS: Mapping[Judgement, str] = {
    "better": "better than before",
    "worse": "worse than before",
    "noise": "not distinguishable from noise",
    "unknown": "one problem gives no interval",
}
COMPARED: Mapping[Judgement, str] = {
    **VERDICTS,
    "better": "the first is better",
    "worse": "the second is better",
}
TONES: Mapping[Judgement, Tone] = {
    "better": "good",
    "worse": "bad",
    "noise": "noise",
    "unknown": "muted",
}
STATUS_TONES: Mapping[RunStatus, Tone] = {
    RunStatus.RUNNING: "good",
    RunStatus.FINISHED: "good",
    RunStatus.INTERRUPTED: "noise",
    RunStatus.FAILED: "bad",
    RunStatus.CRASHED: "bad",
}
ENDS: Mapping[StopReason | RunStatus, str] = {
    StopReason.COMPLETED: "All updates that the recipe asks for are made",
    StopReason.BUDGET: "The budget is used: one more update did not fit",
    StopReason.NO_SIGNAL: "Stopped: no group had anything left to learn from",
    StopReason.INTERRUPTED: "Interrupted",
    StopReason.FAILED: "Failed",
    RunStatus.CRASHED: "Crashed: its processes are gone and wrote no end",
    RunStatus.RUNNING: "Still running",
}


def judgement(interval: Interval | None) -> Judgement:
    """What an interval of a difference allows to say."""
    if interval is None:
        return "unknown"
    if interval[0] > 0:
        return "better"
    return "worse" if interval[1] < 0 else "noise"


def tone_of(interval: Interval | None) -> Tone:
    """The colour of a difference."""
    return TONES[judgement(interval)]


def difference_sentence(
    suite: str, found: Difference, k: int = 1, verdicts: Mapping[Judgement, str] = VERDICTS
) -> str:
    """Such as "+6.2 points pass@1 on AMC23, 95 % interval -1.0 to +13.4: not distinguishable"."""
    interval = found.interval_95
    sure = "" if interval is None else f", 95 % interval {interval_text(interval, signed=True)}"
    verdict = verdicts[judgement(interval)]
    return f"{points(found.difference)} points pass@{k} on {suite_name(suite)}{sure}: {verdict}"


def stopped(account: Account, end: RunFinished | RunStatus) -> str:
    """Why it ended, or how it stands, and after how many updates."""
    if isinstance(end, RunFinished):
        return f"{ENDS[end.stop_reason]}, after {updates(end.steps)}"
    return f"{ENDS[end]}, after {updates(account.steps)}"


def paid(account: Account) -> str:
    """What was paid of what was allowed: "2 m 31 s ($0.02) of 4 m 00 s ($0.03)"."""
    budget_s = account.budget_s
    text = money(account.paid_s, account.paid_usd)
    return text if budget_s is None else f"{text} of {money(budget_s, account.usd_of(budget_s))}"


def ending(account: Account, end: RunFinished | RunStatus) -> list[tuple[str, str]]:
    """The lines of the end screen, as label and text."""
    if isinstance(end, RunStatus):
        return [("result", f"{stopped(account, end)}."), ("next", next_command(account, None))]
    lines = list(_results(account, end))
    if account.history.errors and end.stop_reason is StopReason.FAILED:
        error = account.history.errors[-1]
        lines.append(("error", f"{error.type}: {error.message} {error.hint}".strip()))
    if end.difference:
        lines.append(("stopped", stopped(account, end)))
    if account.history.attempt > 1:
        lines.append(("attempts", str(account.history.attempt)))
    lines.append(("bill", _bill(account)))
    if end.best_checkpoint:
        lines.append(("best" if end.final is not None else "saved", end.best_checkpoint))
    report = _report_path(account)
    if report:
        lines.append(("report", report))
    return [*lines, ("next", next_command(account, end.stop_reason))]


def _results(account: Account, end: RunFinished) -> Iterator[tuple[str, str]]:
    """What the run made of the model, a line for each suite."""
    label = "result"
    for suite, by_k in account.recorded_differences(end).items():
        k = min(by_k)
        before, after = (
            percent(scores[suite].pass_at.get(k)) if suite in scores else "-"
            for scores in (end.baseline, end.final or {})
        )
        yield label, f"{difference_sentence(suite, by_k[k], k)} ({before} before, {after} after)."
        label = "also"
    if label == "also":
        return
    said = stopped(account, end)
    if end.stop_reason is StopReason.INTERRUPTED:
        saved = end.best_checkpoint or account.run.checkpoints()
        said += "; the newest checkpoint is kept" if saved else "; nothing was saved"
    elif end.stop_reason is not StopReason.FAILED:
        said += "; before and after are not compared"
    yield label, f"{said}."


def _bill(account: Account) -> str:
    """What was paid, what was allowed, and what the plan said."""
    text, plan, budget_s = paid(account), account.plan, account.budget_s
    if budget_s:
        text += f", {percent(account.paid_s / budget_s, 0)}"
    planned = plan and money(plan.total_s, account.usd_of(plan.total_s))
    return f"{text}; the plan said {planned}" if planned else text


def _report_path(account: Account) -> str | None:
    """The report's file, the one for people first."""
    folder = account.run.report
    files = (file for pattern in ("*.html", "*.md") for file in sorted(folder.glob(pattern)))
    return next(map(short_path, files), None)


def next_command(account: Account, reason: StopReason | None) -> str:
    """What to type next."""
    run = shlex.quote(short_path(account.run.path))
    if reason in (None, StopReason.INTERRUPTED, StopReason.FAILED):
        return f"budgetrl resume {run}"
    if reason is StopReason.BUDGET and account.budget_s:
        return f"budgetrl resume {run} --hours {hours_option(round(account.budget_s))}"
    return f"budgetrl eval {run}"
