"""What a sweep concludes: the best point and its worth, the grid as heat maps, gain and bill."""

from collections.abc import Mapping, Sequence
from typing import Any

from budgetrl.report.best import FEW_SEEDS, Best, best_of, pareto, point_words, points_of
from budgetrl.report.document import Block, Figures, Section, Text
from budgetrl.study.asha import rule_words
from budgetrl.study.state import StudyDir
from budgetrl.study.watch import trial_rows
from budgetrl.units import percent


def best_json(study: StudyDir, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For the JSON document.

    Args:
        study: a sweep.
        rows: of its trials.
    """
    sweep, suite = study.sweep, str(study.config.metric)
    points = points_of(rows, suite)
    best = best_of(points) if study.config.comparable else None
    return {
        "points": [point.to_json() for point in points],
        "best": None if best is None else best.to_json(),
        "pareto": pareto(rows, suite),
        "smallest_detectable_difference": sweep.detectable.get(suite),
        "smallest_detectable_over_seeds": sweep.detectable_over_seeds,
        "notes": _notes(study, best),
    }


def best_sections(study: StudyDir) -> list[Section]:
    """Best point, heat maps, accuracy against the bill."""
    from budgetrl.report.grid import frontier, heat_maps  # loads matplotlib

    suite, rows = str(study.config.metric), trial_rows(study)
    found, points = best_json(study, rows), points_of(rows, suite)
    blocks: list[Block] = []
    if found["best"] is not None:
        blocks.append(Text(best_words(found["best"], suite), "good"))
    blocks += [Text(note, "muted") for note in found["notes"]]
    maps = list(heat_maps(study.config.grid, points, suite)) if study.config.comparable else []
    sections = [
        Section("The best point, by the rule fixed beforehand", blocks),
        Section(f"{suite} pass@1 over the grid", [Figures(maps)] if maps else [], "Mean of seeds."),
        Section(
            f"{suite} pass@1 against the bill",
            [Figures([frontier(rows, found["pareto"], suite)])] if found["pareto"] else [],
            "Every trial; the line joins those that nothing cheaper beats.",
        ),
    ]
    return [section for section in sections if section.blocks]


def best_words(best: Mapping[str, Any], suite: str) -> str:
    """The best point for people, and what is to be expected of it."""
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
    if not study.config.comparable:
        notes.append("The trials evaluate under different protocols: nothing is compared.")
    if study.sweep.rungs:
        notes.append(rule_words(study.sweep.rungs))
    seeds = study.config.seeds
    if seeds < FEW_SEEDS:
        notes.append(
            f"Seeds of each point: {seeds}, which is too few: "
            "seeds alone spread by 5 to 15 points on AIME24 at 1.5B (arXiv 2504.07086). Give "
            f"--seeds {FEW_SEEDS} or more."
        )
    if best is not None and (least := study.sweep.detectable.get(str(study.config.metric))):
        notes.append(
            f"Differences between points below {100 * least:.1f} points are sampling noise."
        )
    return notes
