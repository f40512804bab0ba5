"""The report of a sweep or study: what it concludes, then arms, curves and bill.

write_study_report(open_study(path)) -> files in the folder's report/
study_document(study)                -> what `budgetrl sweep --json` and `replicate --json` print
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun, read_run
from budgetrl.errors import RunDirError
from budgetrl.masking import masked_tree
from budgetrl.report.document import Document, Section, Table
from budgetrl.report.several import several_document
from budgetrl.report.write import FORMATS, write_document
from budgetrl.study.best_report import best_json, best_sections
from budgetrl.study.claims_report import claims_json, claims_section
from budgetrl.study.state import StudyDir
from budgetrl.study.watch import bill_words, trial_rows
from budgetrl.units import duration


def write_study_report(
    study: StudyDir, out: Path | None = None, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write a study's report from its files alone, however far it came.

    Raises:
        RunDirError: no arm has begun, or the folder cannot be written.
    """
    runs = [read_run(run) for run in study.runs()]
    if not runs:
        raise RunDirError(
            f"{study.path}: no arm has begun.", hint=f"`budgetrl resume {study.path}` goes on."
        )
    return write_document(_document(study, runs), runs, out or study.path / "report", formats)


def study_document(study: StudyDir) -> dict[str, Any]:
    """The JSON document of a sweep or study (CLI.md)."""
    asked, budget, paid_s = study.config, study.sweep.budget, study.paid_s()
    rows, paid_usd = trial_rows(study), budget.usd_of(paid_s)
    limit = {"wall_s": budget.wall_s, "usd": budget.usd}
    return {
        "schema_version": 1,
        f"{asked.kind}_dir": str(study.path),
        "config": masked_tree(asdict(asked)),
        "on": study.sweep.on,
        "rungs": list(study.sweep.rungs),
        asked.trials: rows,
        "budget": {**limit, "spent_s": paid_s, "spent_usd": paid_usd},
        "spent": {"wall_s": paid_s, "usd": paid_usd},
        "detectable": dict(study.sweep.detectable),
        **(best_json(study, rows) if asked.is_sweep else claims_json(study)),
    }


def _document(study: StudyDir, runs: Sequence[EvaluatedRun]) -> Document:
    made, asked = several_document(runs), study.config
    concluded = best_sections(study) if asked.is_sweep else [claims_section(study, runs)]
    failures = [f"{arm.spec.label} did not run: {arm.error}" for arm in study.trials if arm.error]
    return replace(
        made,
        title=f"{asked.kind.capitalize()} {asked.family}: {len(study.trials)} {asked.trials}",
        sections=[*concluded, *made.sections, Section("Plan and bill by trial", [_bill(study)])],
        notices=[*failures, *made.notices],
    )


def _bill(study: StudyDir) -> Table:
    rows = [
        [
            trial.spec.label,
            row["status"],
            "-" if row["lora_scale"] is None else f"{row['lora_scale']:.4g}",
            f"{row['planned_steps']:,}",
            f"{row['steps']:,}",
            duration(row["expected_s"]),
            duration(row["spent"]["wall_s"]),
        ]
        for trial, row in zip(study.trials, trial_rows(study), strict=True)
    ]
    caption = f"In all {bill_words(study)}. What is left over stays unspent."
    head = ["Trial", "status", "alpha/r", "planned updates", "updates", "planned", "bill"]
    return Table(head, rows, caption=caption, text_columns=2)
