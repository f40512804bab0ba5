"""The report of several runs: seeds averaged, ranks side by side, models as rows."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.outcome import judgement
from budgetrl.account.text import counted, interval_text, points, suite_name
from budgetrl.recipe.base import rank_order
from budgetrl.report import plots
from budgetrl.report.arms import Arm, arms_of, mean_curve
from budgetrl.report.cells import NOTHING, gain_cell
from budgetrl.report.document import Block, Cell, Document, Figures, Section, Table, Text
from budgetrl.report.figures import Drawing, costs, draw_all, measured, money_label
from budgetrl.report.ink import SERIES
from budgetrl.report.paper import merged, paper_numbers
from budgetrl.report.paper_tables import ModelRows, table_1, table_2
from budgetrl.types import RunStatus
from budgetrl.units import duration, percent, usd

Points = Sequence[tuple[float, float]]


def several_document(runs: Sequence[EvaluatedRun]) -> Document:
    """One report over several runs."""
    arms = arms_of(runs)
    models = models_of(arms)
    tables = [t for t in (table_1(models), table_2(models)) if t is not None]
    seconds = sum(run.paid_s for run in runs)
    known = [run.paid_usd for run in runs if run.paid_usd is not None]
    bill = duration(seconds) + (f" and {usd(sum(known))}" if len(known) == len(runs) else "")
    unfinished = [run for run in runs if run.status is not RunStatus.FINISHED]
    sections = [
        Section("Arms", [_overview(arms)]),
        Section("Pass@k before and after", tables[:1]),
        Section("Entropy by rank", tables[1:]),
        *_figure_sections(models, runs),
        Section("Runs", [_runs(runs)]),
    ]
    return Document(
        title=f"{len(runs)} runs, {counted(len(models), 'model')}",
        status="",
        status_tone="",
        subtitle=", ".join(model.name for model in models),
        headline=[*_headline(arms), Text(f"All of it took {bill}.", "muted")],
        notices=[
            f"{run.run.name} {'is' if run.status is RunStatus.RUNNING else 'has'} "
            f"{run.status.value}: shown as far as it came."
            for run in unfinished
        ]
        + [f"{run.run.name}: {note}" for run in runs for note in (*run.notes, *run.cut.values())],
        sections=[section for section in sections if section.blocks],
        footer="Made from the files of these run directories alone.",
    )


def beside_paper(run: EvaluatedRun) -> Iterator[Block]:
    """One run under its paper's rows and figures; nothing for a recipe without [paper]."""
    models = models_of(arms_of([run]))
    paper = run.recipe.paper if run.recipe else None
    numbers = models[0].numbers
    if paper is None or numbers is None:
        return
    where = f"{paper.title} (arXiv {paper.arxiv})" if paper.arxiv else paper.title
    yield Text(f"What {where} prints for {models[0].name}, above what this run measured.", "muted")
    yield from (table for table in (table_1(models), table_2(models)) if table is not None)
    drawings = [
        drawing
        for name, title, points_of, shares in _paper_figures([run])
        if (drawing := _panel(f"paper_{name}", models[0], {}, points_of, shares, title)) is not None
    ]
    if drawings:
        yield Figures(draw_all(drawings))
    if numbers.stated:
        rows = [[one.key, f"{one.value:g}", one.metric, one.where] for one in numbers.stated]
        yield Table(["Stated in the paper", "value", "metric", "where"], rows)


def models_of(arms: Sequence[Arm]) -> list[ModelRows]:
    """The arms by model, with what the paper prints of each."""
    names = list(dict.fromkeys(arm.model for arm in arms))
    found = []
    for name in names:
        mine = [arm for arm in arms if arm.model == name]
        printed = [n for arm in mine for run in arm.runs if (n := paper_numbers(run.recipe))]
        found.append(ModelRows(name, mine, merged(printed)))
    return found


def _headline(arms: Sequence[Arm]) -> Iterator[Text]:
    """The largest gain that is no noise, and how many there are."""
    gains = [
        (arm, suite, gain)
        for arm in arms
        for suite in _suites(arm)
        if (gain := arm.gain(suite, 1)) is not None
    ]
    if not gains:
        yield Text("No run has both a baseline and a final evaluation yet.", "muted")
        return
    better = [g for g in gains if judgement(g[2].interval_95) == "better"]
    worse = [g for g in gains if judgement(g[2].interval_95) == "worse"]
    if len(gains) > 1 or not better:
        yield Text(
            f"Differences in pass@1: {len(gains)}; {len(better)} better than before, "
            f"{len(worse)} worse, and {len(gains) - len(better) - len(worse)} "
            "not distinguishable from noise."
        )
    if better:
        arm, suite, gain = max(better, key=lambda g: g[2].value)
        yield Text(
            f"Largest: {arm.model}, {arm.label}: {points(gain.value)} points on "
            f"{suite_name(suite)}, 95 % interval {interval_text(gain.interval_95, signed=True)}.",
            "good",
        )


def _suites(arm: Arm) -> list[str]:
    return list(dict.fromkeys(suite for run in arm.runs for suite in run.suites))


def _overview(arms: Sequence[Arm]) -> Table:
    suites = list(dict.fromkeys(suite for arm in arms for suite in _suites(arm)))
    head = ["Model", "rank", "alpha/r", "seeds", "updates", "bill"]
    head += [f"{suite_name(suite)} gain" for suite in suites]
    rows: list[Sequence[Cell | str]] = []
    above = ""
    for arm in arms:
        seconds, dollars = arm.bill()
        row: list[Cell | str] = [
            "" if arm.model == above else arm.model,
            Cell(str(arm.rank), note=arm.apart),
            "-" if arm.scale is None else f"{arm.scale:.4g}",
            ", ".join(str(run.seed) for run in arm.runs),
            ", ".join(f"{run.steps:,}" for run in arm.runs),
            duration(seconds) if dollars is None else usd(dollars),
        ]
        rows.append([*row, *(_gain(arm, suite) for suite in suites)])
        above = arm.model
    caption = (
        "Gain in pass@1, final minus baseline over the same problems and rounds, in points: mean "
        "over seeds with Student's t over seeds, or the one run with t over problems. Ranks are "
        "comparable only where alpha/r is the same."
    )
    return Table(head, rows, caption=caption)


def _gain(arm: Arm, suite: str) -> Cell:
    gain = arm.gain(suite, 1)
    if gain is None:
        return NOTHING
    seeds = f"; {gain.seeds} of {len(arm.runs)} seeds" if gain.seeds < len(arm.runs) else ""
    return gain_cell(gain.value, gain.interval_95, seeds)


def _figure_sections(
    models: Sequence[ModelRows], runs: Sequence[EvaluatedRun]
) -> Iterator[Section]:
    validation = _validation_suite(runs)
    labels = sorted({(rank_order(arm.rank), arm.label) for model in models for arm in model.arms})
    inks = {label: SERIES[i % len(SERIES)] for i, (_, label) in enumerate(labels)}
    for name, title, points_of, shares in _paper_figures(runs):
        drawings = [
            drawing
            for number, model in enumerate(models)
            if (drawing := _panel(f"{name}_{number}", model, inks, points_of, shares)) is not None
        ]
        if drawings:
            blocks: list[Block] = [Figures(draw_all(drawings))]
            yield Section(title, blocks, "One panel per model, one line per arm, seeds averaged.")
    yield from _frontier_section(models, validation, inks)


def _paper_figures(
    runs: Sequence[EvaluatedRun],
) -> list[tuple[str, str, Callable[[EvaluatedRun], Points], bool]]:
    """The paper's Figures 2 to 4: name, title, what is drawn, whether it is a share."""
    suite = _validation_suite(runs)
    return [
        ("reward", "Mean reward by update", lambda r: measured(r, "reward"), False),
        (
            "validation",
            f"{suite_name(suite)} pass@1 by update",
            lambda r: [(float(e.step), e.pass_at[1]) for e in r.scored(suite)],
            True,
        ),
        ("length", "Response length by update, tokens", lambda r: measured(r, "length"), False),
    ]


def _frontier_section(
    models: Sequence[ModelRows], validation: str, inks: Mapping[str, str]
) -> Iterator[Section]:
    """One panel per model on the validation suite; every suite where there is one model."""
    if len(models) == 1:
        suites = list(dict.fromkeys(suite for arm in models[0].arms for suite in _suites(arm)))
        planned = [_frontier(models[0], suite, suite_name(suite), inks) for suite in suites]
    else:
        planned = [_frontier(model, validation, model.name, inks) for model in models]
    drawings = [drawing for drawing in planned if drawing is not None]
    if drawings:
        title = "Held-out pass@1 against the bill"
        if len(models) > 1:
            title = f"{suite_name(validation)} pass@1 against the bill"
        yield Section(title, [Figures(draw_all(drawings))], "The first seed of each arm.")


def _panel(
    name: str,
    model: ModelRows,
    inks: Mapping[str, str],
    points_of: Callable[[EvaluatedRun], Points],
    shares: bool,
    title: str = "",
) -> Drawing | None:
    lines = []
    for arm in model.arms:
        ink = inks.get(arm.label, "a")
        curve = mean_curve(arm.runs, points_of)
        if len(curve) > 1:
            x, y = zip(*curve, strict=True)
            lines.append(plots.Line(arm.label, x, y, points=shares, ink=ink))
    if not lines:
        return None
    stated = _stated_lengths(model) if name.endswith("length") else []
    panel = plots.Panel(title or model.name, "update", lines, percent=shares, stated=stated)
    alt = f"{model.name}: " + "; ".join(
        f"{li.label} {li.y[0]:.3g} to {li.y[-1]:.3g}" for li in lines
    )
    return Drawing(name, panel, alt)


def _stated_lengths(model: ModelRows) -> list[tuple[float, str]]:
    """Response lengths that the paper's text states."""
    stated = model.numbers.stated if model.numbers else ()
    return [(one.value, f"paper: {one.metric}") for one in stated if "tokens" in one.metric]


def _frontier(model: ModelRows, suite: str, title: str, inks: Mapping[str, str]) -> Drawing | None:
    lines = []
    for arm in model.arms:
        run = arm.runs[0]
        mine = run.scored(suite)
        if len(mine) > 1:
            x = costs(run, mine)
            y = [e.pass_at[1] for e in mine]
            lines.append(plots.Line(arm.label, x, y, points=True, ink=inks[arm.label]))
    if not lines:
        return None
    panel = plots.Panel(title, money_label(model.arms[0].runs[0]), lines, percent=True)
    spans = [f"{line.label} {line.y[0]:.3f} to {line.y[-1]:.3f}" for line in lines]
    name = re.sub(r"[^A-Za-z0-9]+", "_", f"frontier_{suite}_{model.name}")
    return Drawing(name, panel, f"{title}: {'; '.join(spans)}")


def _validation_suite(runs: Sequence[EvaluatedRun]) -> str:
    """The suite that is evaluated most often on the way."""
    counts: dict[str, int] = {}
    for run in runs:
        for evaluation in run.history.evaluations:
            counts[evaluation.suite] = counts.get(evaluation.suite, 0) + 1
    return max(counts, key=lambda suite: counts[suite]) if counts else ""


def _runs(runs: Sequence[EvaluatedRun]) -> Table:
    rows = [
        [
            run.run.name,
            run.model,
            run.status.value,
            f"{run.steps:,}",
            duration(run.paid_s),
            usd(run.paid_usd),
            percent(run.paid_s / run.budget_s if run.budget_s else None, 0),
        ]
        for run in runs
    ]
    head = ["Run", "model", "status", "updates", "time", "bill", "of budget"]
    return Table(head, rows, text_columns=3)
