"""The numbers of a report as one JSON document, for programs."""

from collections.abc import Mapping
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun

SCHEMA_VERSION = 1


def summary(run: EvaluatedRun) -> dict[str, Any]:
    """What the tables of a run's report say."""
    lora = run.recipe.lora if run.recipe else None
    return {
        "run": run.run.name,
        "recipe": run.name,
        "status": run.status.value,
        "model": run.model,
        "rank": lora.rank if lora else None,
        "lora_scale": lora.scale if lora else None,
        "seed": run.seed,
        "steps": run.steps,
        "spent": {"wall_s": run.paid_s, "usd": run.paid_usd},
        "budget_s": run.budget_s,
        "suites": {suite: _suite(run, suite) for suite in run.suites},
        "bill": [row._asdict() for row in run.bill],
        "warnings": [warning.message for warning in run.history.warnings.values()],
        "notes": [*run.notes, *run.cut.values()],
    }


def _suite(run: EvaluatedRun, suite: str) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for when in ("baseline", "final"):
        evaluation = run.evaluation(when, suite)
        keys = {"problems", "samples", "pass_at", "interval_95", "truncated_share", "step"}
        found[when] = None if evaluation is None else evaluation.model_dump(include=keys)
    by_k = run.differences.get(suite, {})
    found["difference"] = {k: part.to_json() for k, part in by_k.items()}
    return found
