"""The report of a sweep: the grid as a heat map, accuracy against money, the best and its worth.

sweep_document(study)  -> what `budgetrl sweep --json` prints
sweep_sections(study)  -> what comes before the arms, curves and bills of `study.report`
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budgetrl.report.best import FEW_SEEDS, Best, best_of, pareto, point_words, points_of
from budgetrl.report.document import Block, Figures, Section, Text
from budgetrl.study.asha import RISK, RULE
from budgetrl.study.rows import sweep_spent, trial_line, trial_row
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
    from budgetrl.report.grid import frontier, heat_maps  # loads matplotlib

    document = sweep_document(study)
    suite, rows = str(study.config["metric"]), document["trials"]
    points = points_of(rows, suite)
    blocks: list[Block] = []
    if document["best"] is not None:
        blocks.append(Text(_best_words(document["best"], suite), "good"))
    blocks += [Text(note, "muted") for note in document["notes"]]
    maps = (
        list(heat_maps(study.config["grid"], points, suite)) if study.config["comparable"] else []
    )
    found = [
        Section("The best point, by the rule fixed beforehand", blocks),
        Section(f"{suite} pass@1 over the grid", [Figures(maps)] if maps else [], "Mean of seeds."),
        Section(
            f"{suite} pass@1 against the bill",
            [Figures([frontier(rows, document["pareto"], suite)])] if document["pareto"] else [],
            "Every trial; the line joins those that nothing cheaper beats.",
        ),
    ]
    return [section for section in found if section.blocks]


def _best_words(best: Mapping[str, Any], suite: str) -> str:
    low, high = best["interval_95"] or (None, None)
    interval = "" if low is None else f" (95 % interval {percent(low)} to {percent(high)})"
    point = ", ".join(point_words(best["values"])) or "the recipe as it is"
    words = (
        f"Best by final {suite} pass@1, mean over seeds: {point}: "
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
