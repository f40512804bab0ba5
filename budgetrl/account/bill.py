"""The bill: what the seconds and dollars of a run went for, by phase, planned and paid.

bill_of(view, status, now)    of a run that goes on: paid so far, and where the rest will go
bill_rows(run)                of a run to be reported: each phase against its estimate
"""

from dataclasses import dataclass
from typing import NamedTuple

from budgetrl.account.live import LiveRun
from budgetrl.account.run import Account
from budgetrl.phases import PHASES, UPDATE_PHASES
from budgetrl.types import RunStatus


class BillRow(NamedTuple):
    """One phase."""

    name: str
    planned_s: float | None
    paid_s: float | None
    part: bool = False
    """A part of the row above."""


def bill_rows(account: Account) -> list[BillRow]:
    """The phases in order; they add up to what was paid."""
    paid, times, plan = account.history.phase_seconds(), account.times, account.plan
    steps = account.history.step_phase_seconds()
    num_planned = plan.steps if plan else 0
    download_s = times.download_s if times else 0.0
    setup = [n for n, kind in PHASES.items() if kind.bill == "setup" and n != "download"]
    setup_s = sum(paid.get(name, 0.0) for name in setup)
    rows = [
        BillRow("Download", download_s or None, paid.get("download")),
        BillRow("Setup", plan.setup_s - download_s if plan else None, setup_s),
        BillRow("Baseline evaluation", plan.baseline_s if plan else None, paid.get("baseline")),
        BillRow(
            "Updates", num_planned * plan.step_s if plan else None, sum(steps.values()) or None
        ),
    ]
    for name in UPDATE_PHASES:
        expected = getattr(times, f"{name}_s") * num_planned if times else None
        rows.append(BillRow(name, expected, steps.get(name), part=True))
    rows += [
        BillRow(
            "Evaluations on the way", plan.step_evals_s if plan else None, paid.get("evaluation")
        ),
        BillRow("Own answers drawn", None, paid.get("traces")),
        BillRow("Gates", None, paid.get("gate")),
        BillRow("Entropy measurements", None, paid.get("entropy")),
        BillRow("Checkpoints", plan.saves_s if plan else None, paid.get("checkpoint")),
        BillRow("Final evaluation", times.final_s if times else None, paid.get("final")),
        BillRow("Report", plan.report_s if plan else None, paid.get("report")),
    ]
    known = sum(row.paid_s or 0.0 for row in rows if not row.part)
    rows.append(BillRow("Everything else", None, max(0.0, account.paid_s - known)))
    return [row for row in rows if row.planned_s or row.paid_s]


class StageRow(NamedTuple):
    """What one stage of a training was planned to take and took."""

    name: str
    kind: str
    planned_steps: int | None
    steps: int
    planned_s: float | None
    paid_s: float


def stage_rows(account: Account) -> list[StageRow]:
    """Each stage that was begun; none where a run has no stages. Seconds of updates alone."""
    steps: dict[str | None, list[float]] = {}
    for step in account.history.steps:
        steps.setdefault(step.stage, []).append(sum(step.phase_s.values()))
    planned = {stage.name: stage for stage in (account.plan.stages if account.plan else ())}
    rows = []
    for event in account.history.stages:
        if event.state != "started":
            continue
        plan, paid = planned.get(event.name), steps.get(event.name, [])
        counts = None if plan is None else plan.steps
        expected = None if plan is None else plan.seconds
        rows.append(StageRow(event.name, event.training, counts, len(paid), expected, sum(paid)))
    return rows


@dataclass(frozen=True, slots=True)
class Bill:
    """Seconds of a run by what they are for: paid, then expected."""

    setup: float
    baseline: float
    train: float
    end: float
    ahead: float
    """Expected training."""
    reserve: float
    """Kept for the final evaluation, the last save and the report."""
    free: float
    """Of the budget, not expected to be used."""
    paid: float
    ends_at: float
    budget: float

    @property
    def left(self) -> float:
        """Of the budget; never negative."""
        return max(0.0, self.budget - self.paid)


def bill_of(view: LiveRun, status: RunStatus, now: float) -> Bill:
    """Where the seconds went, and where the rest will go; `now` in Unix seconds."""
    history, plan = view.history, view.plan
    paid = view.elapsed_s(now)
    seconds = history.phase_seconds(paid)
    setup, baseline, end = (
        sum(s for name, s in seconds.items() if PHASES[name].bill == part)
        for part in ("setup", "baseline", "end")
    )
    if history.finished is not None:
        # After the worker's last event only the report and the exit are paid.
        end += max(0.0, paid - history.elapsed_s)
    if "train" not in seconds and not view.steps:
        setup = paid - baseline - end
    train = max(0.0, paid - setup - baseline - end)
    budget = view.budget_s or 0.0
    if status is not RunStatus.RUNNING:
        return Bill(setup, baseline, train, end, 0, 0, max(0, budget - paid), paid, paid, budget)
    forecast = history.plan
    known = forecast or plan
    kept = max(0.0, (known.reserve_s if known else 0.0) + (plan.report_s if plan else 0.0) - end)
    ends_at = forecast.ends_at_s if forecast else plan.total_s if plan else budget
    ends_at = max(paid, ends_at)
    rest = max(0.0, ends_at - paid)
    ending = end > 0 or "final" in seconds
    reserve = rest if ending else min(kept, rest)
    free = max(0.0, budget - ends_at)
    return Bill(setup, baseline, train, end, rest - reserve, reserve, free, paid, ends_at, budget)


def more_updates(view: LiveRun) -> tuple[int, int, int] | None:
    """Updates that the budget still buys: expected, low and high; None before the first forecast.

    Each update brings its own forecast; the range is that of the newest plan, in proportion.
    """
    plan = view.history.plan
    if plan is None or not plan.step:
        return None
    steps = view.history.steps
    expected = (
        steps[-1].forecast_steps if steps and steps[-1].step >= plan.step else plan.forecast_steps
    )
    scale = expected / plan.forecast_steps if plan.forecast_steps else 1.0
    low, high = round(plan.forecast_low * scale), round(plan.forecast_high * scale)
    more, least, most = (
        updates_ahead(view, view.steps, forecast)
        for forecast in (expected, low, max(high, expected))
    )
    return more, least, most


def updates_ahead(account: Account, made: int, forecast: int) -> int:
    """Updates to come after `made`, where so many more fit at the pace of the newest ones.

    That pace is the running stage's; those of later stages are as planned.
    """
    plan, events = account.plan, account.history.stages
    if plan is None:
        return forecast
    following = plan.stages[events[-1].index + 1 :] if events else ()
    if following:
        stage = running_stage(account)
        rest = stage.planned - (made - stage.first_step) if stage is not None else 0
        return min(forecast, max(0, rest)) + sum(planned.steps for planned in following)
    asked = plan.requested_steps
    return forecast if asked is None else min(forecast, max(0, asked - made))


@dataclass(frozen=True, slots=True)
class RunningStage:
    """The stage that a run is in."""

    name: str
    index: int
    first_step: int
    """Updates before it."""
    asked: int | None
    """Updates that it is to make; None: as many as fit."""
    planned: int
    """That it makes by the plan."""


def running_stage(account: Account) -> RunningStage | None:
    """The newest stage, if it is not over; None where a run has but one, or no plan for it."""
    events, plan = account.history.stages, account.plan
    if not events or events[-1].state in ("ended", "gate") or plan is None:
        return None
    newest = events[-1]
    if newest.index >= len(plan.stages) or len(plan.stages) == 1:
        return None
    mine = [event for event in events if event.name == newest.name]
    times = 1 + sum(event.state == "extended" for event in mine)
    planned = plan.stages[newest.index]
    asked = None if planned.requested is None else times * planned.requested
    return RunningStage(
        newest.name, newest.index, mine[0].step, asked, asked or times * planned.steps
    )
