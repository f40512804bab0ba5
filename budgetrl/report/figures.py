"""Which figures a run has data for, and what is in them. A figure without data is left out.

Drawing is `plots`; importing this module loads matplotlib.
"""

from collections.abc import Sequence
from itertools import pairwise

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.series import MEASURED, signal_share
from budgetrl.account.text import suite_name
from budgetrl.events import Evaluation, Step
from budgetrl.report import plots
from budgetrl.report.document import Figure
from budgetrl.report.ink import SERIES

CURVES: Sequence[tuple[str, str, bool, bool]] = (
    ("reward", "Mean reward", False, False),
    ("accuracy", "Training accuracy", True, False),
    ("length", "Response length, tokens", False, False),
    ("entropy", "Entropy per token, nats", False, True),
    ("kl_teacher", "KL to the teacher, nats per token", False, True),
    ("top1_agreement", "Same likeliest token as the teacher", True, False),
    ("truncated", "Truncated completions", True, True),
    ("signal", "Groups with signal", True, True),
)
"""Of `series.MEASURED`: name, title, whether it is a share, whether the axis begins at zero."""


def money_label(facts: EvaluatedRun) -> str:
    """What the axes of cost say."""
    return "US dollars" if facts.usd_per_hour is not None else "minutes paid"


def cost(facts: EvaluatedRun, elapsed_s: float) -> float:
    """Dollars, or minutes where no price is known."""
    usd = facts.usd_of(elapsed_s)
    return elapsed_s / 60 if usd is None else usd


def measured(facts: EvaluatedRun, name: str) -> list[tuple[float, float]]:
    """A curve of `series.MEASURED` by update."""
    value = MEASURED[name]
    return [(float(s.step), y) for s in facts.history.steps if (y := value(s)) is not None]


def learning_curves(facts: EvaluatedRun) -> list[Figure]:
    """Reward, accuracies, length, entropy and shares against updates, with the cost on top."""
    steps = facts.history.steps
    if len(steps) < 2:
        return []
    x_all = [float(step.step) for step in steps]
    money = [cost(facts, step.elapsed_s) for step in steps]
    top = (money_label(facts), x_all, money) if money[-1] > money[0] else None
    figures = []
    for name, title, percent, zero in CURVES:
        seen = measured(facts, name)
        if len(seen) < 2:
            continue
        lines = [plots.Line(_entropy_label(steps), *_columns(seen))]
        if name == "entropy" and len(facts.history.entropies) > 1:
            exact = [(float(e.step), e.mean_nats) for e in facts.history.entropies]
            columns = _columns(exact)
            lines.append(plots.Line("exact (Eq. 1)", *columns, points=True, joined=False, ink="b"))
        panel = plots.Panel(
            title,
            "update",
            lines,
            percent=percent,
            zero=zero,
            second_axis=top,
            marks=stage_marks(facts),
        )
        alt = f"{title}: {seen[0][1]:.3g} at update {seen[0][0]:.0f}, {seen[-1][1]:.3g} at the end"
        figures.append(Figure(f"curve_{name}", title, plots.draw(panel), alt))
        if name == "accuracy":
            figures += _suite_accuracy(facts, x_all, top)
    return figures


def stage_marks(facts: EvaluatedRun) -> list[tuple[float, str]]:
    """Where stages of the training begin: between two updates."""
    started = [event for event in facts.history.stages if event.state == "started"]
    return [(event.step + 0.5, event.name) for event in started]


def _entropy_label(steps: Sequence[Step]) -> str:
    return "exact, training" if steps[-1].entropy_kind == "exact" else "sampled, -mean log p"


def _suite_accuracy(
    facts: EvaluatedRun, x_all: list[float], top: tuple[str, list[float], list[float]] | None
) -> list[Figure]:
    lines = []
    for ink, suite in zip(SERIES, facts.suites, strict=False):
        evaluations = _by_step(facts, suite)
        if len(evaluations) > 1:
            x = [float(e.step) for e in evaluations]
            lines.append(_with_interval(suite_name(suite), x, evaluations, ink))
    if not lines:
        return []
    title = "Held-out pass@1, 95 % interval"
    panel = plots.Panel(
        title, "update", lines, percent=True, second_axis=top, marks=stage_marks(facts)
    )
    alt = "; ".join(f"{line.label} {line.y[0]:.3f} to {line.y[-1]:.3f}" for line in lines)
    return [Figure("curve_suites", title, plots.draw(panel), alt)]


def frontier(facts: EvaluatedRun) -> list[Figure]:
    """Held-out pass@1 against what was paid, and the useful groups that the money bought."""
    figures = []
    lines = []
    for ink, suite in zip(SERIES, facts.suites, strict=False):
        evaluations = _by_step(facts, suite)
        if len(evaluations) > 1:
            paid = [cost(facts, e.elapsed_s) for e in evaluations]
            lines.append(_with_interval(suite_name(suite), paid, evaluations, ink))
    size = plots.WIDE
    if lines:
        panel = plots.Panel(
            "Held-out pass@1 against the bill", money_label(facts), lines, percent=True, size=size
        )
        alt = "; ".join(f"{line.label}: {line.y[0]:.3f} to {line.y[-1]:.3f}" for line in lines)
        figures.append(Figure("frontier", panel.title, plots.draw(panel), alt, wide=True))
    useful = _signal_per_cost(facts)
    if len(useful) > 1:
        unit = "dollar" if facts.usd_per_hour is not None else "minute"
        panel = plots.Panel(
            f"Groups with signal per {unit}", money_label(facts),
            [plots.Line("", *_columns(useful), ink="c")], zero=True, size=size,
        )  # fmt: skip
        alt = f"{panel.title}: {useful[0][1]:.3g} at the start, {useful[-1][1]:.3g} at the end"
        figures.append(Figure("signal_per_cost", panel.title, plots.draw(panel), alt, wide=True))
    return figures


def _signal_per_cost(facts: EvaluatedRun) -> list[tuple[float, float]]:
    found = []
    for before, after in pairwise(facts.history.steps):
        start, end = cost(facts, before.elapsed_s), cost(facts, after.elapsed_s)
        signal = after.groups_with_signal or 0
        taught_by_reward = signal_share(after) is not None
        if taught_by_reward and end > start and before.attempt == after.attempt:
            found.append((end, signal / (end - start)))
    return found


def _by_step(facts: EvaluatedRun, suite: str) -> list[Evaluation]:
    """Evaluations with pass@1, one per update (the final one wins), in order."""
    found = {e.step: e for e in facts.scored(suite)}
    return [found[step] for step in sorted(found)]


def _with_interval(
    label: str, x: list[float], evaluations: list[Evaluation], ink: str
) -> plots.Line:
    y = [e.pass_at[1] for e in evaluations]
    intervals = [e.interval_95.get(1) for e in evaluations]
    known = [interval for interval in intervals if interval is not None]
    low = [interval[0] for interval in known] if len(known) == len(y) else None
    high = [interval[1] for interval in known] if len(known) == len(y) else None
    return plots.Line(label, x, y, low, high, points=True, ink=ink)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
