"""The panels about the model: what it learns, how fast, how good it is, what it writes."""

from collections.abc import Callable, Sequence

from rich.text import Text

from budgetrl.account.series import Series
from budgetrl.account.text import points, score, scrub
from budgetrl.display import glyphs as g
from budgetrl.display.layout import Panel
from budgetrl.display.moment import Moment
from budgetrl.display.spark import chart
from budgetrl.display.typeset import Part, clip, fit, labelled, row, rule, wrap
from budgetrl.events import Evaluation, Step
from budgetrl.phases import UPDATE_PHASES
from budgetrl.types import RunStatus, Verdict
from budgetrl.units import duration, percent

LABEL_WIDTH = 25
RANGE_WIDTH = 18
CHART_ROWS = 8
END_CHART_ROWS = 3
PHASES = {name: name for name in UPDATE_PHASES} | {"logprob": "log-probs"}
PHASE_STYLE = {
    "rollout": g.TRAIN,
    "reward": g.WARN,
    "logprob": g.BASELINE,
    "update": g.SETUP,
    "other": g.LABEL,
}
UNITS: dict[str, Callable[[float], str]] = {
    "accuracy": percent,
    "reward": lambda value: f"{value:.3f}",
    "loss": lambda value: f"{value:.3f}",
    "token_accuracy": percent,
    "length": lambda value: f"{value:.0f} tokens",
    "entropy": lambda value: f"{value:.2f} nats",
    "kl_teacher": lambda value: f"{value:.3f} nats",
    "top1_agreement": percent,
    "signal": percent,
}
LABELS = {
    "signal": "with signal",
    "token_accuracy": "right tokens",
    "kl_teacher": "from teacher",
    "top1_agreement": "as teacher",
}
"""Of curves whose name says too little; at most twelve letters."""
OF_DEMONSTRATIONS = ("loss", "token_accuracy")
"""Curves that a stage without demonstrations has no use for."""
VERDICT_STYLE = {Verdict.CORRECT: g.GOOD, Verdict.WRONG: g.BAD}


def learning(moment: Moment) -> Panel | None:
    """Curves of accuracy, reward, response length, entropy, teacher, groups with signal.

    While a stage learns from demonstrations: their loss and the tokens that the model has right.
    """
    view = moment.view
    names = [name for name in UNITS if view.series[name].measured]
    names = [n for n in names if n not in OF_DEMONSTRATIONS or view.series[n].last is not None]
    if not names:
        return None

    def draw(width: int, rows: int) -> list[Text]:
        lines = [rule("learning", width, moment.glyphs, f"update {view.steps}")]
        shown = names[: rows - 1]
        height, more = divmod(rows - 1, len(shown))
        for index, name in enumerate(shown):
            # Sparklines stay alike; charts may differ by a row.
            taller = height > 1 and index < more
            lines += _curve(name, view.series[name], width, height + taller, moment.glyphs)
        return lines

    tallest = CHART_ROWS if moment.status is RunStatus.RUNNING else END_CHART_ROWS
    return Panel(3, 1 + len(names), 1 + tallest * len(names), draw)


def _curve(name: str, series: Series, width: int, height: int, glyphs: g.Glyphs) -> list[Text]:
    unit = UNITS[name]
    label = LABELS.get(name, name)
    beside = height == 1 and width >= 70
    room = width - LABEL_WIDTH - (RANGE_WIDTH if beside else 0)
    values = series.values(max(1, room))
    last = "-" if series.last is None else unit(series.last)
    spread = f"{unit(min(values)).split()[0]} to {unit(max(values)).split()[0]}"
    notes: list[Part] = [row((f"{label:<13}", g.LABEL), (last, g.STRONG)), (spread, g.LABEL)]
    lines = []
    for index, drawn in enumerate(chart(values, room, height, glyphs)):
        note = notes[index] if index < len(notes) else ""
        left = row(note)
        left.append(" " * max(1, LABEL_WIDTH - left.cell_len))
        line = row(left, (drawn, g.CURVES[name]))
        if beside:
            line.append(" " * max(1, width - RANGE_WIDTH + 2 - line.cell_len))
            line.append(spread, g.LABEL)
        lines.append(fit(line, width, glyphs))
    return lines


def speed(moment: Moment) -> Panel | None:
    """Seconds of an update by phase, and tokens per second: means of the newest updates."""
    steps = moment.view.history.steps
    if not steps or moment.view.history.finished is not None:
        return None
    phases = {name: seconds for name, seconds in _mean_phases(steps).items() if seconds}
    total = sum(phases.values())
    tokens = sum(step.tokens_per_s for step in steps) / len(steps)
    note = f"{duration(total)} per update, {tokens:,.0f} tokens/s"

    def draw(width: int, rows: int) -> list[Text]:
        lines = [rule("speed", width, moment.glyphs, note)]
        if rows > len(phases):
            lines += [_phase(name, phases[name], total, width, moment.glyphs) for name in phases]
        else:
            parts = [
                ((f"{PHASES[name]} ", g.LABEL), f"{duration(phases[name])}  ") for name in phases
            ]
            lines.append(row(*(part for pair in parts for part in pair)))
        return [fit(line, width, moment.glyphs) for line in lines[:rows]]

    return Panel(5, 2, 1 + len(phases), draw)


def _phase(name: str, seconds: float, total: float, width: int, glyphs: g.Glyphs) -> Text:
    share = seconds / total if total > 0 else 0.0
    strip = glyphs.train * round(share * max(0, width - 28))
    label = labelled(PHASES[name], f"{duration(seconds):>9} {percent(share, 0):>5} ", 10)
    return row(label, (strip, PHASE_STYLE[name]))


def _mean_phases(steps: Sequence[Step]) -> dict[str, float]:
    return {
        name: sum(step.phase_s.get(name, 0.0) for step in steps) / len(steps) for name in PHASES
    }


def evaluations(moment: Moment) -> Panel | None:
    """The newest evaluation of each suite beside its baseline, and the best checkpoint."""
    history = moment.view.history
    suites = history.suites()
    saved = _checkpoints(moment)
    if not suites:
        return None

    def draw(width: int, rows: int) -> list[Text]:
        lines = [rule("evaluation", width, moment.glyphs, "95 % intervals")]
        full = [line for suite in suites for line in _suite(moment, suite)]
        room = rows - 1 - len(saved)
        lines += full if len(full) <= room else [_suite_line(moment, suite) for suite in suites]
        lines = lines[: max(2, rows - len(saved))] + saved
        return [fit(line, width, moment.glyphs) for line in lines[:rows]]

    rows = sum(len(_suite(moment, suite)) for suite in suites)
    return Panel(4, 2 + len(saved), 1 + len(saved) + rows, draw)


def _ends(moment: Moment, suite: str) -> tuple[Evaluation | None, Evaluation]:
    """The baseline and the newest evaluation of a suite; they may be the same."""
    found = [event for event in moment.view.history.evaluations if event.suite == suite]
    before = next((event for event in reversed(found) if event.when == "baseline"), None)
    return before, found[-1]


def _suite(moment: Moment, suite: str) -> list[Text]:
    """A suite in full: what it is, its baseline, its newest result."""
    before, newest = _ends(moment, suite)
    k = min(newest.pass_at, default=1)
    name = (scrub(f"{suite} pass@{k}"), g.STRONG)
    lines = [row(name, (_rounds(newest), g.LABEL))]
    if before is not None and before is not newest:
        lines.append(labelled(f"  {_when(before)}", _score(before, k), 15))
    lines.append(labelled(f"  {_when(newest)}", row((_score(newest, k), g.STRONG)), 15))
    lines[-1].append_text(_change(before, newest, k))
    return lines


def _suite_line(moment: Moment, suite: str) -> Text:
    before, newest = _ends(moment, suite)
    k = min(newest.pass_at, default=1)
    score = row((_score(newest, k), g.STRONG), (f"  {_when(newest)}", g.LABEL))
    return row(labelled(scrub(f"{suite} pass@{k}"), score, 15), _change(before, newest, k))


def _change(before: Evaluation | None, newest: Evaluation, k: int) -> Text:
    if before is None or before is newest:
        return row("")
    change = newest.pass_at.get(k, 0.0) - before.pass_at.get(k, 0.0)
    style = g.GOOD if change > 0 else g.BAD if change < 0 else ""
    return row((f"  {points(change)} points", style))


def _score(event: Evaluation, k: int) -> str:
    return score(event.pass_at.get(k), event.interval_95.get(k))


def _when(event: Evaluation) -> str:
    return event.when if event.when != "step" else f"update {event.step}"


def _rounds(event: Evaluation) -> str:
    return f"  {event.problems} problems x {event.samples}"


def _checkpoints(moment: Moment) -> list[Text]:
    saved = moment.view.history.checkpoints
    if not saved or moment.view.history.finished is not None:
        return []
    newest = saved[-1]
    best = next((checkpoint for checkpoint in reversed(saved) if checkpoint.best), None)
    if best is None:
        return [labelled("last save", f"update {newest.step}  {scrub(newest.path)}", 15)]
    told = f"update {best.step}  {scrub(best.path)}"
    if newest is not best:
        told += f"  (last save: update {newest.step})"
    return [labelled("best so far", told, 15)]


def completion(moment: Moment, width: int) -> Panel | None:
    """One completion: problem, what the model wrote, gold answer, verdict.

    Args:
        moment: what to draw.
        width: columns it will get, for the rows it can use.
    """
    sample = moment.sample
    if sample is None or moment.status is not RunStatus.RUNNING:
        return None
    step, fields = sample
    problem, wrote, answer, verdict = (
        _text(fields.get(name), moment) for name in ("problem", "completion", "answer", "verdict")
    )

    demonstrated = verdict == "shown"  # nobody grades a demonstration
    title, wrote_by = ("demonstration", "shown") if demonstrated else ("completion", "wrote")

    def draw(width: int, rows: int) -> list[Text]:
        room = max(1, width - 9)
        asked = clip(wrap(problem, room), max(1, (rows - 2) // 3), moment.glyphs)
        lines = [rule(title, width, moment.glyphs, f"update {step}")]
        lines += [labelled("problem" if not i else "", t, 8) for i, t in enumerate(asked)]
        text = clip(wrap(wrote, room), rows - 1 - len(lines), moment.glyphs)
        lines += [labelled(wrote_by if not i else "", t, 8) for i, t in enumerate(text)]
        if demonstrated:
            return [fit(line, width, moment.glyphs) for line in lines[:rows]]
        style = next((s for v, s in VERDICT_STYLE.items() if v.value == verdict), g.WARN)
        graded = row((verdict, style), ("   the answer is ", g.LABEL), answer)
        lines.append(labelled("graded", graded, 8))
        return [fit(line, width, moment.glyphs) for line in lines[:rows]]

    room = max(1, width - 9)
    return Panel(6, 4, 2 + len(wrap(problem, room)) + len(wrap(wrote, room)), draw)


def _text(value: object, moment: Moment) -> str:
    """A sample's text, printable; in the ASCII look other characters become "?"."""
    text = scrub("" if value is None else str(value))
    return text if moment.glyphs is not g.ASCII else text.encode("ascii", "replace").decode()
