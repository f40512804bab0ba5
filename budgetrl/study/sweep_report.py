"""The report of a sweep: the grid as a heat map, accuracy against money, the best and its worth.

sweep_document(study)  -> what `budgetrl sweep --json` prints
sweep_sections(study)  -> what comes before the arms, curves and bills of `study.report`
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from budgetrl.report.document import Block, Figure, Figures, Section, Text
from budgetrl.study.asha import RISK, RULE
from budgetrl.study.best import FEW_SEEDS, Best, Point, best_of, pareto, points_of
from budgetrl.study.rows import sweep_spent, trial_line, trial_row
from budgetrl.study.specs import point_words, value_word
from budgetrl.study.state import StudyDir
from budgetrl.units import duration, percent, usd


def sweep_document(study: StudyDir) -> dict[str, Any]:
    """The JSON document of a sweep (CLI.md)."""
    rows = [trial_row(study, index) for index in range(len(study.trials))]
    suite, bill = str(study.config["metric"]), sweep_spent(study)
    points = points_of(rows, suite)
    best = best_of(points) if study.config["comparable"] else None
    return {
        "schema_version": 1,
        "sweep_dir": str(study.path),
        "config": dict(study.config),
        "on": study.on,
        "rungs": list(study.rungs),
        "trials": rows,
        "budget": {"wall_s": bill["wall_s"], "usd": bill["usd"]},
        "spent": {"wall_s": bill["spent_s"], "usd": bill["spent_usd"]},
        "points": [point.to_json() for point in points],
        "best": None if best is None else best.to_json(),
        "pareto": pareto(rows, suite),
        "smallest_detectable_difference": study.detectable.get(suite),
        "smallest_detectable_over_seeds": study.detectable_over_seeds,
        "notes": _notes(study, best),
    }


def print_sweep(document: Mapping[str, Any]) -> None:
    """The same for people, at the end of the command."""
    from budgetrl.study.state import open_study

    study = open_study(Path(document["sweep_dir"]))
    lines = [trial_line(study, index) for index in range(len(study.trials))]
    best = document["best"]
    if best is not None:
        lines.append(_best_words(best, str(document["config"]["metric"])))
    lines += document["notes"]
    budget, spent = document["budget"], document["spent"]
    lines.append(
        f"{duration(spent['wall_s'])} of {duration(budget['wall_s'])} were used"
        + ("." if spent["usd"] is None else f" ({usd(spent['usd'])}).")
    )
    page = study.path / "report" / "report.html"
    lines.append(str(page) if page.exists() else f"budgetrl report {study.path}")
    sys.stdout.write("\n".join(lines) + "\n")


def sweep_sections(study: StudyDir) -> list[Section]:
    """Best point, heat maps, accuracy against the bill."""
    document = sweep_document(study)
    suite, rows = str(study.config["metric"]), document["trials"]
    points = points_of(rows, suite)
    blocks: list[Block] = []
    if document["best"] is not None:
        blocks.append(Text(_best_words(document["best"], suite), "good"))
    blocks += [Text(note, "muted") for note in document["notes"]]
    maps = list(_heat_maps(study, points, suite)) if study.config["comparable"] else []
    found = [
        Section("The best point, by the rule fixed beforehand", blocks),
        Section(f"{suite} pass@1 over the grid", [Figures(maps)] if maps else [], "Mean of seeds."),
        Section(
            f"{suite} pass@1 against the bill",
            [Figures([_frontier(rows, document["pareto"], suite)])] if document["pareto"] else [],
            "Every trial; the line joins those that nothing cheaper beats.",
        ),
    ]
    return [section for section in found if section.blocks]


def _best_words(best: Mapping[str, Any], suite: str) -> str:
    low, high = best["interval_95"] or (None, None)
    interval = "" if low is None else f" (95 % interval {percent(low)} to {percent(high)})"
    words = (
        f"Best by final {suite} pass@1, mean over seeds: {', '.join(point_words(best['values']))}: "
        f"{percent(best['metric'])}{interval}, {best['seeds']} seed{'s' * (best['seeds'] > 1)}."
    )
    if best["points"] > 1:
        words += (
            f" It is the highest of {best['points']}, so expect less: {percent(best['shrunken'])} "
            f"is the estimate shrunk towards all points, and of as many equal points the highest "
            f"would stand {100 * best['by_chance']:.1f} points above their mean by chance."
        )
    return words


def _notes(study: StudyDir, best: Best | None) -> list[str]:
    notes = []
    if not study.config["comparable"]:
        notes.append("The trials evaluate under different protocols: nothing is compared.")
    if study.rungs:
        rungs = ", ".join(map(str, study.rungs))
        notes.append(f"Judged after {rungs} updates. {RULE} {RISK}")
    seeds = int(study.config["seeds"])
    if seeds < FEW_SEEDS:
        notes.append(
            f"Seeds of each point: {seeds}, which is too few: "
            "seeds alone spread by 5 to 15 points on AIME24 at 1.5B (arXiv 2504.07086). Give "
            f"--seeds {FEW_SEEDS} or more."
        )
    if best is not None and (least := study.detectable.get(str(study.config["metric"]))):
        notes.append(
            f"Differences between points below {100 * least:.1f} points are sampling noise."
        )
    return notes


def _heat_maps(study: StudyDir, points: Sequence[Point], suite: str) -> Iterator[Figure]:
    """The two keys with most values as rows and columns; one map for each point of the others."""
    from budgetrl.report.plots import heat_map  # loads matplotlib

    grid: Mapping[str, Sequence[Any]] = study.config["grid"]
    if not grid or not points:
        return
    keys = sorted(grid, key=lambda key: -len(grid[key]))
    across, down, others = keys[0], keys[1] if len(keys) > 1 else None, keys[2:]
    for number, rest in enumerate(itertools.product(*(grid[key] for key in others))):
        fixed = dict(zip(others, rest, strict=True))
        downs = grid[down] if down is not None else [None]
        cells = [
            [
                _score_at(points, fixed | {across: x} | ({down: y} if down else {}))
                for x in grid[across]
            ]
            for y in downs
        ]
        title = ", ".join([f"{suite} pass@1", *point_words(fixed)])
        words = [value_word(x) for x in grid[across]], [value_word(y) for y in downs if down]
        svg = heat_map(title, (across, words[0]), (down or "", words[1]), cells)
        told = [f"{value:.3f}" for row in cells for value in row if value is not None]
        yield Figure(f"grid_{number}", title, svg, f"{title}: {', '.join(told)}")


def _score_at(points: Sequence[Point], values: Mapping[str, Any]) -> float | None:
    return next((point.score for point in points if dict(point.values) == values), None)


def _frontier(rows: Sequence[Mapping[str, Any]], front: Sequence[int], suite: str) -> Figure:
    from budgetrl.report import plots

    priced = all(row["spent"]["usd"] is not None for row in rows)

    def cost(row: Mapping[str, Any]) -> float:
        return float(row["spent"]["usd"] if priced else row["spent"]["wall_s"] / 60)

    def line(label: str, chosen: Sequence[Mapping[str, Any]], ink: str, joined: bool) -> plots.Line:
        y = [row["final"][suite]["pass_at"]["1"] for row in chosen]
        return plots.Line(label, list(map(cost, chosen)), y, points=True, joined=joined, ink=ink)

    judged = [row for row in rows if suite in (row["final"] or {})]
    early = [row for row in judged if row["stopped_early"]]
    whole = [row for row in judged if not row["stopped_early"]]
    drawn = [("whole", whole, "a", False), ("ended early", early, "muted", False)]
    drawn.append(("nothing cheaper is better", [rows[index] for index in front], "b", True))
    lines = [line(*one) for one in drawn if one[1]]
    panel = plots.Panel(
        f"{suite} pass@1", "dollars" if priced else "minutes", lines, percent=True, size=plots.WIDE
    )
    told = "; ".join(f"trial {i + 1}: {rows[i]['final'][suite]['pass_at']['1']:.3f}" for i in front)
    return Figure(
        "frontier", panel.title, plots.draw(panel), f"Not beaten by a cheaper one: {told}"
    )
