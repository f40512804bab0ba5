"""Which figures a run has data for, and what is in them. A figure without data is left out.

Drawing is `plots`; importing this module loads matplotlib.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.series import MEASURED, signal_share
from budgetrl.account.text import suite_name
from budgetrl.events import Evaluation, Event, StageEvent, Step
from budgetrl.report import plots
from budgetrl.report.document import Figure
from budgetrl.report.ink import SERIES

CURVES: Sequence[tuple[str, str, bool, bool]] = (
    ("reward", "Mean reward", False, False),
    ("accuracy", "Training accuracy", True, False),
    ("loss", "Loss of demonstrations", False, True),
    ("token_accuracy", "Right tokens of demonstrations", True, False),
    ("length", "Response length, tokens", False, False),
    ("entropy", "Entropy per token, nats", False, True),
    ("kl_teacher", "KL to the teacher, nats per token", False, True),
    ("top1_agreement", "Same likeliest token as the teacher", True, False),
    ("truncated", "Truncated completions", True, True),
    ("signal", "Groups with signal", True, True),
)
"""Of `series.MEASURED`: name, title, whether it is a share, whether the axis begins at zero."""


class Drawing(NamedTuple):
    """A figure before it is drawn."""

    name: str
    panel: plots.Panel
    alt: str


def draw_all(drawings: Sequence[Drawing]) -> list[Figure]:
    """Figures in rows of three, or of two and larger where three would leave a hole."""
    count = len(drawings)
    in_pairs = min(count, (0, 4, 2)[count % 3])
    return [
        Figure(name, panel.title, plots.draw(replace(panel, size=plots.WIDE)), alt, wide=True)
        if i < in_pairs
        else Figure(name, panel.title, plots.draw(panel), alt)
        for i, (name, panel, alt) in enumerate(drawings)
    ]


def money_label(run: EvaluatedRun) -> str:
    """What the axes of cost say."""
    return "US dollars" if run.usd_per_hour is not None else "minutes paid"


def costs(run: EvaluatedRun, made: Iterable[Event]) -> list[float]:
    """What was paid by then: dollars, or minutes where no price is known."""
    usd = run.usd_of(1.0)
    per_second = 1 / 60 if usd is None else usd
    return [event.elapsed_s * per_second for event in made]


def measured(run: EvaluatedRun, name: str) -> list[tuple[float, float]]:
    """A curve of `series.MEASURED` by update."""
    steps = run.history.steps
    values = map(MEASURED[name], steps)
    return [(float(s.step), y) for s, y in zip(steps, values, strict=True) if y is not None]


def learning_curves(run: EvaluatedRun) -> list[Figure]:
    """Reward, accuracy, length, entropy and shares against updates, with the cost on top."""
    steps = run.history.steps
    if len(steps) < 2:
        return []
    x_all = [float(step.step) for step in steps]
    money = costs(run, steps)
    top = (money_label(run), x_all, money) if money[-1] > money[0] else None
    drawings = []
    for name, title, percent, zero in CURVES:
        seen = measured(run, name)
        if len(seen) < 2:
            continue
        lines = [plots.Line(_entropy_label(steps), *_columns(seen))]
        if name == "entropy" and len(run.history.entropies) > 1:
            exact = [(float(e.step), e.mean_nats) for e in run.history.entropies]
            columns = _columns(exact)
            lines.append(plots.Line("exact (Eq. 1)", *columns, points=True, joined=False, ink="b"))
        panel = plots.Panel(
            title,
            "update",
            lines,
            percent=percent,
            zero=zero,
            second_axis=top,
            marks=[(stage.step + 0.5, stage.name) for stage in begun(run)],
        )
        alt = f"{title}: {seen[0][1]:.3g} at update {seen[0][0]:.0f}, {seen[-1][1]:.3g} at the end"
        drawings.append(Drawing(f"curve_{name}", panel, alt))
    return draw_all(drawings)


def begun(run: EvaluatedRun) -> list[StageEvent]:
    """Where stages of the training begin."""
    return [event for event in run.history.stages if event.state == "started"]


def _entropy_label(steps: Sequence[Step]) -> str:
    return "exact, training" if steps[-1].entropy_kind == "exact" else "sampled, -mean log p"


def frontier(run: EvaluatedRun) -> list[Figure]:
    """Held-out pass@1 against what was paid, and the useful groups that the money bought."""
    drawings = []
    lines = []
    for ink, suite in zip(SERIES, run.suites, strict=False):
        evaluations = _by_step(run, suite)
        if len(evaluations) > 1:
            paid = costs(run, evaluations)
            lines.append(_with_interval(suite_name(suite), paid, evaluations, ink))
    stages = begun(run)
    if lines:
        panel = plots.Panel(
            "Held-out pass@1, 95 % interval", money_label(run), lines, percent=True,
            marks=list(zip(costs(run, stages), (stage.name for stage in stages), strict=True)),
        )  # fmt: skip
        alt = "; ".join(f"{line.label}: {line.y[0]:.3f} to {line.y[-1]:.3f}" for line in lines)
        drawings.append(Drawing("frontier", panel, alt))
    useful = _signal_per_cost(run)
    if len(useful) > 1:
        unit = "dollar" if run.usd_per_hour is not None else "minute"
        panel = plots.Panel(
            f"Groups with signal per {unit}", money_label(run),
            [plots.Line("", *_columns(useful))], zero=True,
        )  # fmt: skip
        alt = f"{panel.title}: {useful[0][1]:.3g} at the start, {useful[-1][1]:.3g} at the end"
        drawings.append(Drawing("signal_per_cost", panel, alt))
    return draw_all(drawings)


def _signal_per_cost(run: EvaluatedRun) -> list[tuple[float, float]]:
    found = []
    steps = run.history.steps
    paid = pairwise(costs(run, steps))
    for (before, after), (start, end) in zip(pairwise(steps), paid, strict=True):
        signal = after.groups_with_signal or 0
        taught_by_reward = signal_share(after) is not None
        if taught_by_reward and end > start and before.attempt == after.attempt:
            found.append((end, signal / (end - start)))
    return found


def _by_step(run: EvaluatedRun, suite: str) -> list[Evaluation]:
    """Evaluations with pass@1, one per update (the final one wins), in order."""
    found = {e.step: e for e in run.scored(suite)}
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
