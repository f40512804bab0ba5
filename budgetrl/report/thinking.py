"""Accuracy against thinking tokens, before and after: what `budgetrl eval RUN --think` found.

Importing this module loads matplotlib.
"""

from collections.abc import Iterator, Sequence

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.text import interval_text, suite_name
from budgetrl.report import plots
from budgetrl.report.document import Block, Cell, Figures, Table
from budgetrl.report.figures import Drawing, draw_all
from budgetrl.types import EvalResult
from budgetrl.units import percent

Curve = dict[int, EvalResult]
"""Results by the limit of thinking."""


def thinking_blocks(run: EvaluatedRun) -> Iterator[Block]:
    """A figure and a table for each suite with limits of thinking."""
    curves = _curves(run)
    figures = draw_all([_drawing(run, suite, both) for suite, both in curves.items()])
    if figures:
        yield Figures(figures)
    for suite, both in curves.items():
        yield _table(suite, both)


def _curves(run: EvaluatedRun) -> dict[str, dict[str, Curve]]:
    """By suite and "before" or "after"; of several checkpoints the last one's."""
    found: dict[str, dict[str, Curve]] = {}
    limited = [one for one in run.further if one.protocol.think is not None]
    for stored in sorted(limited, key=lambda one: one.step):
        result = stored.result
        if result is not None and result.think is not None and 1 in result.pass_at:
            when = "after" if stored.step else "before"
            curve = found.setdefault(result.suite, {}).setdefault(when, {})
            curve[result.think["max_tokens"]] = result
    return found


def _drawing(run: EvaluatedRun, suite: str, both: dict[str, Curve]) -> Drawing:
    lines = []
    for when, ink in (("before", "b"), ("after", "a")):
        if curve := both.get(when):
            lines.append(_line(when, [curve[limit] for limit in sorted(curve)], ink))
    title = f"{suite_name(suite)} against thinking tokens, 95 % intervals"
    printed = run.recipe.expected if run.recipe else ()
    stated = [(e.value / 100, "the paper, after") for e in printed if e.key == f"{suite}@1.final"]
    panel = plots.Panel(title, "tokens of thinking, mean", lines, percent=True, stated=stated)
    alt = "; ".join(f"{line.label}: {line.y[0]:.3f} to {line.y[-1]:.3f}" for line in lines)
    return Drawing(f"thinking_{suite}", panel, alt)


def _line(when: str, results: Sequence[EvalResult], ink: str) -> plots.Line:
    x = [float((one.think or {}).get("tokens_mean") or 0.0) for one in results]
    y = [one.pass_at[1] for one in results]
    intervals = [one.interval_95.get(1) or (one.pass_at[1],) * 2 for one in results]
    low, high = [i[0] for i in intervals], [i[1] for i in intervals]
    return plots.Line(when, x, y, low, high, points=True, ink=ink)


def _table(suite: str, both: dict[str, Curve]) -> Table:
    rows: list[Sequence[Cell | str]] = []
    for limit in sorted({limit for curve in both.values() for limit in curve}):
        for when in ("before", "after"):
            result = both.get(when, {}).get(limit)
            if result is None or result.think is None:
                continue
            right = result.pass_at[1]
            rows.append([
                f"{limit:,}" if when == "before" or "before" not in both else "",
                when,
                Cell(percent(right), note=interval_text(result.interval_95.get(1))),
                f"{result.think['tokens_mean'] or 0:,.0f}",
                percent(result.think["forced_share"]),
                f"{result.completion_tokens_mean / right:,.0f}" if right else "-",
                f"{result.think['appended_mean'] or 0:.1f}",
                f"{result.problems} x {result.samples}",
            ])  # fmt: skip
    head = ["at most", "", "pass@1", "thinking", "cut", "tokens per right answer", "appended"]
    caption = (
        f"{suite_name(suite)} with limits of thinking (budgetrl eval RUN --think): tokens of "
        "thinking on average, share that the limit ended, tokens that the model wrote for each "
        "right answer, and appended tokens, which are not among them."
    )
    return Table([*head, "samples"], rows, caption=caption, text_columns=2)
