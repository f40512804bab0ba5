"""The sentences of a run's end: what came out, what it cost, what to type next.

Plain text without layout, shared by the plain lines and the live view.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budgetrl.account.live import RunView, number
from budgetrl.units import duration, gib, hours_option, percent, usd

STOPPED = {
    "completed": "All updates that the recipe asks for are made",
    "budget": "The budget is used: one more update did not fit",
    "no_signal": "Stopped: no group had anything left to learn from",
    "interrupted": "Interrupted",
    "failed": "Failed",
}


def points(share: float | None) -> str:
    """A difference of shares, in percentage points with its sign."""
    return "-" if share is None else f"{100 * share:+.1f} points"


def updates(count: int) -> str:
    """A number of updates."""
    return f"{count:,} update{'' if count == 1 else 's'}"


def interval(bounds: Any, signed: bool = False) -> str:
    """An interval of shares, in percent or points: "38.0 to 44.4"; empty without one."""
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        return ""
    low, high = (100 * (number(bound) or 0.0) for bound in bounds)
    return f"{low:+.1f} to {high:+.1f}" if signed else f"{low:.1f} to {high:.1f}"


def first_k(table: Any) -> str:
    """The smallest k of a `{"1": ..}` table."""
    keys = sorted(table, key=int) if isinstance(table, Mapping) else []
    return keys[0] if keys else "1"


def gain(result: Mapping[str, Any]) -> tuple[str, str, float, Any] | None:
    """The headline of a result: suite, k, difference and its interval; None without both ends."""
    for suite, entry in (result.get("difference") or {}).items():
        k = first_k(entry.get("pass_at"))
        value = number((entry.get("pass_at") or {}).get(k))
        if value is not None:
            return suite, k, value, (entry.get("interval_95") or {}).get(k)
    return None


def outcome(view: RunView, result: Mapping[str, Any]) -> str:
    """One sentence: what the run made of the model."""
    stopped = STOPPED.get(str(result.get("stop_reason")), "The run is over")
    found = gain(result)
    if found is None:
        made = updates(int(number(result.get("steps")) or 0))
        reason = result.get("stop_reason")
        saved = result.get("best_checkpoint") or view.run.checkpoints()
        if reason == "interrupted":
            kept = "the newest checkpoint is kept" if saved else "nothing was saved"
            return f"{stopped} after {made}; {kept}."
        return f"{stopped} after {made}" + (
            "." if reason == "failed" else "; before and after are not compared."
        )
    suite, k, value, bounds = found
    before, after = (
        number((((result.get(end) or {}).get(suite) or {}).get("pass_at") or {}).get(k))
        for end in ("baseline", "final")
    )
    change = f"{suite} pass@{k}: {percent(before)} before, {percent(after)} after"
    spread = interval(bounds, signed=True)
    if not spread:
        return f"{change}, {points(value)}; too few problems for an interval."
    low, high = bounds
    verdict = "better" if low > 0 else "worse" if high < 0 else "no clear change"
    return f"{change}, {points(value)} (95 % interval {spread}): {verdict}."


def bill(view: RunView, result: Mapping[str, Any]) -> str:
    """What was paid, what was allowed, and what the plan said."""
    spent, budget = result.get("spent") or {}, result.get("budget") or {}
    paid = number(spent.get("wall_s"))
    text = money(paid, number(spent.get("usd")))
    allowed = number(budget.get("wall_s"))
    if allowed:
        share = percent((paid or 0.0) / allowed, 0)
        text += f" of {money(allowed, number(budget.get('usd')) or view.usd_of(allowed))}, {share}"
    planned = number(view.plan.get("total_s"))
    return f"{text}; the plan said {money(planned, view.usd_of(planned))}" if planned else text


def money(seconds: float | None, dollars: float | None) -> str:
    """Time, and money where a price is known: "5 m 02 s ($0.44)"."""
    return duration(seconds) if dollars is None else f"{duration(seconds)} ({usd(dollars)})"


def short_path(path: Path) -> str:
    """A path as one would type it here."""
    try:
        relative = os.path.relpath(path)
    except FileNotFoundError:  # the current folder is gone
        return str(path)
    return relative if len(relative) < len(str(path)) else str(path)


def downloading(repo: str, done: float, total: float, seconds: float) -> str:
    """How far a download is: "a/b: 0.4 GiB of 1.2 GiB, 85.0 MiB/s, about 9.8 s left"."""
    text = f"{repo}: {gib(done)} of {gib(total)}"
    if seconds <= 0 or done <= 0:
        return text
    rate = done / seconds
    left = f", about {duration((total - done) / rate)} left" if done < total else ""
    return f"{text}, {gib(rate)}/s{left}"


def report_path(view: RunView) -> str | None:
    """The report's file, the one for people first."""
    folder = view.run.path / "report"
    for pattern in ("*.html", "*.md"):
        for file in sorted(folder.glob(pattern)):
            return short_path(file)
    return None


def next_command(view: RunView, result: Mapping[str, Any]) -> str:
    """What to type next."""
    run = shlex.quote(short_path(view.run.path))
    reason = result.get("stop_reason")
    if reason in (None, "interrupted", "failed"):
        return f"budgetrl resume {run}"
    if reason == "budget" and view.budget_s:
        return f"budgetrl resume {run} --hours {hours_option(view.budget_s)}"
    return f"budgetrl eval {run}"


def ending(view: RunView, result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of the end screen, as label and text."""
    lines = [("result", outcome(view, result))]
    if view.history.errors and result.get("stop_reason") == "failed":
        error = view.history.errors[-1]
        lines.append(("error", f"{error.type}: {error.message} {error.hint}".strip()))
    reason = STOPPED.get(str(result.get("stop_reason")), "")
    attempts = int(number(result.get("attempts")) or 1)
    if gain(result) is not None and reason:
        made = updates(int(number(result.get("steps")) or 0))
        lines.append(("stopped", f"{reason}, after {made}"))
    if attempts > 1:
        lines.append(("attempts", str(attempts)))
    lines.append(("bill", bill(view, result)))
    if result.get("best_checkpoint"):
        judged = result.get("final") is not None
        lines.append(("best" if judged else "saved", str(result["best_checkpoint"])))
    report = report_path(view)
    if report:
        lines.append(("report", report))
    lines.append(("next", next_command(view, result)))
    return lines
