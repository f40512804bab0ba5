"""What a study concludes: the paper's claims as checks with intervals, its tables as numbers."""

from collections.abc import Sequence
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun, read_run
from budgetrl.account.text import interval_text, points, suite_name
from budgetrl.report.arms import arms_of
from budgetrl.report.claims import Claim, ClaimVerdict, claims_of
from budgetrl.report.document import Cell, Section, Table, Text, Tone
from budgetrl.report.paper_tables import ModelRows, table_1, table_2
from budgetrl.report.several import models_of
from budgetrl.study.state import StudyDir

_TONES: dict[ClaimVerdict, Tone] = {
    ClaimVerdict.SUPPORTED: "good",
    ClaimVerdict.CONTRADICTED: "bad",
    ClaimVerdict.NOT_DISTINGUISHABLE: "noise",
    ClaimVerdict.TOO_SHORT: "muted",
}


def claims_json(study: StudyDir) -> dict[str, Any]:
    """For the JSON document (CLI.md)."""
    models = models_of(arms_of(map(read_run, study.runs())))
    tables = {"table1": table_1(models), "table2": table_2(models)}
    return {
        "baseline": _baselines(models),
        **{name: None if made is None else made.to_json() for name, made in tables.items()},
        "claims": [
            {"model": model.name} | claim.to_json()
            for model, claims in _claims(study, models)
            for claim in claims
        ],
    }


def claims_section(study: StudyDir, runs: Sequence[EvaluatedRun]) -> Section:
    """Every claim and its verdict."""
    paper = any(one.recipe is not None and one.recipe.paper is not None for one in runs)
    asks = "What the study asks of the paper" if paper else "What the study asks"
    return Section(asks, _claim_blocks(study, models_of(arms_of(runs))))


def _claims(study: StudyDir, models: Sequence[ModelRows]) -> list[tuple[ModelRows, list[Claim]]]:
    return [(model, claims_of(model.arms, _whole_run(study, model))) for model in models]


def _whole_run(study: StudyDir, model: ModelRows) -> int | None:
    """Updates of a whole run: None for the paper's; else what the recipe asks, or the plan gave."""
    recipe = model.arms[0].runs[0].recipe
    if recipe is None or recipe.paper is not None:
        return None
    planned = max(arm.row.planned_steps for arm in study.trials)
    return recipe.schedule.stop_after_steps or planned


def _claim_blocks(study: StudyDir, models: Sequence[ModelRows]) -> list[Text | Table]:
    many = len(models) > 1
    rows: list[list[Cell | str]] = [
        [
            *([model.name] if many else []),
            claim.claim,
            Cell(claim.verdict.value, _TONES[claim.verdict], note=claim.why),
            Cell(
                "-" if claim.effect is None else points(claim.effect),
                note=interval_text(claim.interval_95, signed=True) if claim.interval_95 else "",
            ),
            str(claim.n or "-"),
            str(claim.seeds or "-"),
        ]
        for model, claims in _claims(study, models)
        for claim in claims
    ]
    least = ", ".join(
        f"{100 * value:.1f} points on {suite_name(suite)}"
        for suite, value in study.sweep.detectable.items()
    )
    text = (
        "Effects in points, with 95 % intervals over the same problems (one seed) or over seeds. "
        "Differences between arms of one seed of up to five points are called noise: seeds alone "
        "move AIME24 by 5 to 15 points (arXiv 2504.07086)."
    )
    if least:
        text += f" At best this evaluation tells a difference of {least} from sampling noise."
    head = ["Model"] * many + ["claim", "verdict", "effect", "problems", "seeds"]
    return [Text(text, "muted"), Table(head, rows, text_columns=2 + many)]


def _baselines(models: Sequence[ModelRows]) -> dict[str, Any]:
    """By suite; by model and suite where there are several models."""
    found = {}
    for model in models:
        runs = [run for arm in model.arms for run in arm.runs]
        found[model.name] = {
            suite: evaluation.model_dump(include={"pass_at", "interval_95", "samples"})
            for suite in runs[0].suites
            if (evaluation := runs[0].evaluation("baseline", suite)) is not None
        }
    return found if len(found) > 1 else next(iter(found.values()), {})
