"""The report of a sweep or study: with the paper's claims for `replicate`; arms, curves and bill.

write_study_report(open_study(path)) -> files in the folder's report/
study_document(study)                -> what `budgetrl replicate --json` prints
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun, read_run
from budgetrl.account.text import interval_text, points, suite_name
from budgetrl.errors import RunDirError
from budgetrl.report.arms import arms_of
from budgetrl.report.document import Cell, Document, Section, Table, Text, Tone
from budgetrl.report.paper_tables import ModelRows, table_1, table_2
from budgetrl.report.several import models_of, several_document
from budgetrl.report.write import FORMATS, write_document
from budgetrl.study.claims import Claim, ClaimVerdict, claims_of
from budgetrl.study.rows import is_sweep, sweep_spent, trial_row
from budgetrl.study.state import StudyDir
from budgetrl.units import duration, usd

_TONES: dict[ClaimVerdict, Tone] = {
    ClaimVerdict.SUPPORTED: "good",
    ClaimVerdict.CONTRADICTED: "bad",
    ClaimVerdict.NOT_DISTINGUISHABLE: "noise",
    ClaimVerdict.TOO_SHORT: "muted",
}


def write_study_report(
    study: StudyDir, out: Path | None = None, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write a study's report from its files alone, however far it came.

    Raises:
        RunDirError: no arm has begun, or the folder cannot be written.
    """
    facts = [read_run(run) for run in study.runs()]
    if not facts:
        raise RunDirError(
            f"{study.path}: no arm has begun.", hint=f"`budgetrl resume {study.path}` goes on."
        )
    folder = out or study.path / "report"
    try:
        return write_document(_document(study, facts), facts, folder, formats)
    except OSError as error:
        raise RunDirError(
            f"{folder}: the report cannot be written: {error.strerror}.",
            hint="Give another folder with --out.",
        ) from None


def study_document(study: StudyDir) -> dict[str, Any]:
    """The JSON document of a study (CLI.md)."""
    facts = [read_run(run) for run in study.runs()]
    models = models_of(arms_of(facts))
    return {
        "schema_version": 1,
        "study_dir": str(study.path),
        "config": dict(study.config),
        "arms": [trial_row(study, index) for index in range(len(study.trials))],
        "budget": sweep_spent(study),
        "baseline": _baselines(models),
        "detectable": dict(study.detectable),
        "table1": _table_json(table_1(models)),
        "table2": _table_json(table_2(models)),
        "claims": [
            {"model": model.name} | claim.to_json()
            for model, claims in _claims(study, models)
            for claim in claims
        ],
    }


def _document(study: StudyDir, facts: Sequence[EvaluatedRun]) -> Document:
    made = several_document(facts)
    name = study.config["family"]
    if is_sweep(study):
        from budgetrl.study.sweep_report import sweep_sections

        asked, title = sweep_sections(study), f"Sweep {name}: {len(study.trials)} trials"
    else:
        asked, title = [_claim_section(study, facts)], f"Study {name}: {len(study.trials)} arms"
    sections = [*asked, *made.sections, Section("Plan and bill by trial", [_bill(study)])]
    notices = [*_failures(study), *made.notices]
    return replace(made, title=title, sections=sections, notices=notices)


def _claim_section(study: StudyDir, facts: Sequence[EvaluatedRun]) -> Section:
    paper = any(one.recipe is not None and one.recipe.paper is not None for one in facts)
    asks = "What the study asks of the paper" if paper else "What the study asks"
    return Section(asks, _claim_blocks(study, models_of(arms_of(facts))))


def _claims(study: StudyDir, models: Sequence[ModelRows]) -> list[tuple[ModelRows, list[Claim]]]:
    return [(model, claims_of(model.arms, _whole_run(study, model))) for model in models]


def _whole_run(study: StudyDir, model: ModelRows) -> int | None:
    """Updates of a whole run: None for the paper's; else what the recipe asks, or the plan gave."""
    recipe = model.arms[0].runs[0].recipe
    if recipe is None or recipe.paper is not None:
        return None
    planned = max(arm.row["planned_steps"] for arm in study.trials)
    return recipe.schedule.stop_after_steps or planned


def _claim_blocks(study: StudyDir, models: Sequence[ModelRows]) -> list[Text | Table]:
    rows: list[Sequence[Cell | str]] = []
    for model, claims in _claims(study, models):
        for claim in claims:
            interval = claim.interval_95
            rows.append(
                [
                    model.name if len(models) > 1 else "",
                    claim.claim,
                    Cell(claim.verdict.value, _TONES[claim.verdict], note=claim.why),
                    Cell(
                        "-" if claim.effect is None else points(claim.effect),
                        note=interval_text(interval, signed=True) if interval else "",
                    ),
                    str(claim.n or "-"),
                    str(claim.seeds or "-"),
                ]
            )
    least = ", ".join(
        f"{100 * value:.1f} points on {suite_name(suite)}"
        for suite, value in study.detectable.items()
    )
    text = (
        "Effects in points, with 95 % intervals over the same problems (one seed) or over seeds. "
        "Differences between arms of one seed of up to five points are called noise: seeds alone "
        "move AIME24 by 5 to 15 points (arXiv 2504.07086)."
    )
    if least:
        text += f" At best this evaluation tells a difference of {least} from sampling noise."
    head = ["Model", "claim", "verdict", "effect", "problems", "seeds"]
    if len(models) == 1:
        head, rows = head[1:], [row[1:] for row in rows]
    return [Text(text, "muted"), Table(head, rows, text_columns=3 if len(models) > 1 else 2)]


def _bill(study: StudyDir) -> Table:
    rows = []
    for arm in study.trials:
        account = study.account(arm)
        rows.append(
            [
                arm.spec.label,
                study.status(arm),
                "-" if arm.row["lora_scale"] is None else f"{arm.row['lora_scale']:.4g}",
                f"{arm.row['planned_steps']:,}",
                f"{account.steps if account else 0:,}",
                duration(arm.row["expected_s"]),
                duration(account.paid_s if account else 0.0),
            ]
        )
    total = sweep_spent(study)
    caption = (
        f"In all {duration(total['spent_s'])} of {duration(total['wall_s'])} "
        f"({usd(total['spent_usd'])}). What is left over stays unspent."
    )
    head = ["Trial", "status", "alpha/r", "planned updates", "updates", "planned", "bill"]
    return Table(head, rows, caption=caption, text_columns=2)


def _failures(study: StudyDir) -> list[str]:
    return [f"{arm.spec.label} did not run: {arm.error}" for arm in study.trials if arm.error]


def _baselines(models: Sequence[ModelRows]) -> dict[str, Any]:
    """By suite; by model and suite where there are several models."""
    found = {}
    for model in models:
        runs = [run for arm in model.arms for run in arm.runs]
        found[model.name] = {
            suite: {
                "pass_at": evaluation.pass_at,
                "interval_95": evaluation.interval_95,
                "samples": evaluation.samples,
            }
            for suite in runs[0].suites
            if (evaluation := runs[0].evaluation("baseline", suite)) is not None
        }
    return found if len(found) > 1 else next(iter(found.values()), {})


def _table_json(table: Table | None) -> dict[str, Any] | None:
    """Texts of the first columns, then numbers: shares with intervals; null where there is none."""
    if table is None:
        return None
    return {
        "head": list(table.head),
        "groups": [list(group) for group in table.super_head],
        "rows": [
            [_label(c) for c in row[: table.text_columns]]
            + [_number(c) for c in row[table.text_columns :]]
            for row in table.rows
        ],
        "footnotes": list(table.footnotes),
    }


def _label(cell: Cell | str) -> str:
    return cell if isinstance(cell, str) else cell.text


def _number(cell: Cell | str) -> dict[str, Any] | None:
    if isinstance(cell, str) or cell.number is None:
        return None
    return {**cell.number, "mark": cell.marks or None}
