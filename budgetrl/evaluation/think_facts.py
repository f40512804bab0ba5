"""What became of thinking that had a limit: numbers of an evaluation's completions."""

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from budgetrl.evaluation.rows import EvalRow


def think_facts(protocol: str | None, rows: Sequence[EvalRow]) -> dict[str, Any] | None:
    """Limits, and what became of thinking; None without a budget.

    Args:
        protocol: of `protocol_text`.
        rows: those that count.
    """
    if protocol is None:
        return None
    said = json.loads(protocol)
    thought = [row.thinking for row in rows if row.thinking is not None]
    return {
        "max_tokens": said["max_tokens"],
        "answer_tokens": said["answer_tokens"],
        "min_tokens": said.get("min_tokens", 0),
        "tokens_mean": fmean(one.tokens for one in thought) if thought else None,
        "appended_mean": fmean(one.appended for one in thought) if thought else None,
        "nudges_mean": fmean(one.nudges for one in thought) if thought else None,
        "forced_share": fmean(one.forced for one in thought) if thought else None,
    }
