"""The plain sentences at the top of a report: better or not, how sure, and at what cost."""

from collections.abc import Mapping

from budgetrl.account.run import Facts
from budgetrl.account.text import Judgement, interval_text, judgement, points, suite_name
from budgetrl.evaluation.compare import Difference
from budgetrl.report.document import Text, Tone
from budgetrl.types import RunStatus, StopReason
from budgetrl.units import duration, percent, usd

_VERDICTS: Mapping[Judgement, str] = {
    "better": "better than before",
    "worse": "worse than before",
    "noise": "not distinguishable from noise",
    "unknown": "one problem gives no interval",
}
COMPARED: Mapping[Judgement, str] = {
    **_VERDICTS,
    "better": "the first is better",
    "worse": "the second is better",
}
TONES: Mapping[Judgement, Tone] = {
    "better": "good",
    "worse": "bad",
    "noise": "noise",
    "unknown": "muted",
}
_ENDS = {
    StopReason.COMPLETED: "It made all the updates that the recipe asks for",
    StopReason.BUDGET: "It stopped because one more update did not fit into the budget",
    StopReason.NO_SIGNAL: "It stopped early because no group had anything left to learn from",
    StopReason.INTERRUPTED: "It was interrupted",
    StopReason.FAILED: "It failed",
}


def difference_sentence(
    suite: str, found: Difference, k: int = 1, verdicts: Mapping[Judgement, str] = _VERDICTS
) -> str:
    """Such as "+6.2 points pass@1 on AMC23, 95 % interval -1.0 to 13.4: not distinguishable"."""
    interval = found.interval_95
    sure = "" if interval is None else f", 95 % interval {interval_text(interval, signed=True)}"
    verdict = verdicts[judgement(interval)]
    size = points(found.difference)
    return f"{size} points pass@{k} on {suite_name(suite)}{sure}: {verdict}"


def headline(facts: Facts) -> list[Text]:
    """One sentence per compared suite, then how the run ended and what it cost."""
    sentences = []
    for suite, by_k in facts.differences.items():
        if 1 in by_k:
            tone = TONES[judgement(by_k[1].interval_95)]
            sentences.append(Text(f"{difference_sentence(suite, by_k[1])}.", tone))
    if not sentences:
        sentences.append(Text(_without_comparison(facts), "muted"))
    return [*sentences, Text(_ending(facts), "muted")]


def _without_comparison(facts: Facts) -> str:
    if not facts.suites:
        return "This run has no evaluation yet, so nothing can be said about its outcome."
    parts = []
    for suite in facts.suites:
        shown = [e for e in facts.history.evaluations if e.suite == suite and "1" in e.pass_at]
        if not shown:
            continue
        first, last = shown[0], shown[-1]
        text = f"{suite_name(suite)} stood at {percent(first.pass_at['1'])} pass@1"
        text += " at the start" if first.when == "baseline" else f" after {first.step} updates"
        if last is not first:
            text += f" and at {percent(last.pass_at['1'])} after {last.step} updates"
        parts.append(text)
    seen = "; ".join(parts)
    return (
        f"There is no final evaluation to compare with the start. {seen}."
        if seen
        else ("There is no final evaluation to compare with the start.")
    )


def _ending(facts: Facts) -> str:
    finished = facts.history.finished
    if facts.status is RunStatus.CRASHED:
        end = "It crashed: its processes are gone and wrote no end"
    elif facts.status is RunStatus.RUNNING or finished is None:
        end = "It is still running"
    else:
        end = _ENDS[finished.stop_reason]
    budget = facts.history.budget_s
    cost = duration(facts.paid_s) + (f" of {duration(budget)}" if budget is not None else "")
    if facts.paid_usd is not None:
        allowed = facts.usd(budget)
        of = f" of {usd(allowed)}" if allowed is not None else ""
        cost += f", {usd(facts.paid_usd)}{of}"
    updates = "1 update" if facts.steps == 1 else f"{facts.steps:,} updates"
    return f"{end}. {updates} in {cost}."
