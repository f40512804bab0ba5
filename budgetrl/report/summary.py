"""The numbers of a report as one JSON document, for programs."""

from collections.abc import Mapping
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun

SCHEMA_VERSION = 1


def summary(facts: EvaluatedRun) -> dict[str, Any]:
    """What the tables of a run's report say."""
    lora = facts.recipe.lora if facts.recipe else None
    return {
        "run": facts.run.name,
        "recipe": facts.name,
        "status": facts.status.value,
        "model": facts.model,
        "rank": lora.rank if lora else None,
        "lora_scale": lora.scale if lora else None,
        "seed": facts.seed,
        "steps": facts.steps,
        "spent": {"wall_s": facts.paid_s, "usd": facts.paid_usd},
        "budget_s": facts.budget_s,
        "suites": {suite: _suite(facts, suite) for suite in facts.suites},
        "bill": [row._asdict() for row in facts.bill],
        "warnings": [warning.message for warning in facts.history.warnings.values()],
        "notes": [*facts.notes, *facts.cut.values()],
    }


def _suite(facts: EvaluatedRun, suite: str) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for when in ("baseline", "final"):
        evaluation = facts.evaluation(when, suite)
        keys = {"problems", "samples", "pass_at", "interval_95", "truncated_share", "step"}
        found[when] = None if evaluation is None else evaluation.model_dump(include=keys)
    by_k = facts.differences.get(suite, {})
    found["difference"] = {k: part.to_json() for k, part in by_k.items()}
    return found
