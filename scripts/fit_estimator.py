"""Fit the estimator's constants to measured runs, and say how well they predict runs left out.

    python scripts/fit_estimator.py FILE.jsonl... [--write] [--record]

A few constants only (PRIORS), each with a prior: the loss is the absolute log error of every
covered row, rows of one source sharing one vote, plus the squared distance from the prior. Then
every source is left out once and predicted by constants fitted without it. --write puts the
constants into budgetrl/assets/estimator.json. No row has constants of its own. --record puts the
errors of rows left out into docs/measurements/estimate.json, beside those of check_estimator.py for
the first two files.
"""

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from calibration_rows import Case, decode_case, read_rows, step_case
from check_estimator import check, summary

from budgetrl.estimation.terms import load_constants, read_constants
from budgetrl.files import write_json

ROOT = Path(__file__).resolve().parent.parent
ASSET = ROOT / "budgetrl/assets/estimator.json"
RECORD = ROOT / "docs/measurements/estimate.json"


class Prior(NamedTuple):
    """What a constant is before any row is seen."""

    value: float
    factor: float
    """One standard deviation is times or over this."""


PRIORS = {
    "decode_step_s": Prior(1.0e-3, 1.5),
    "decode_sequence_s": Prior(2.0e-5, 1.8),
    "decode_v0_factor": Prior(2.5, 1.6),
    "decode_mfu": Prior(0.9, 1.3),
    # Two kernels of about 10 us for each of four fused linears (vLLM pull request 32425: expand 14
    # before, 10 after it).
    "decode_lora_layer_s": Prior(8.0e-5, 1.5),
    "transformers_layer_s": Prior(1.0e-3, 1.3),
    "dequant_bytes": Prior(2.5, 1.6),
    "dequant_bytes_old": Prior(5.0, 1.6),
    "trl_micro_step_s": Prior(0.37, 1.5),
}
KINDS = ("decode", "LoRA", "step")
"""Of rows; "LoRA" are the decode rows with an adapter."""
PRIOR_WEIGHT = 0.2
PASSES = 3
SEARCH_STEPS = 9
_GOLDEN = (math.sqrt(5) - 1) / 2


def cases(rows: Sequence[dict[str, Any]]) -> list[Case]:
    """Covered rows, at the constants of the package."""
    constants = load_constants()
    found = [
        step_case(row, constants) if row.get("kind") == "rl_step" else decode_case(row, constants)
        for row in rows
        if row.get("kind") in (None, "rl_step")
    ]
    return [case for case in found if case.terms is not None and case.measured]


def log_error(case: Case, values: Mapping[str, float]) -> float:
    """log(predicted / measured) of seconds; of decode rows the seconds that its rate means."""
    assert case.terms is not None and case.measured is not None
    held = load_constants()
    factors = {name: value / held[name] for name, value in values.items()}
    predicted = sum(
        term.amount
        * math.prod(factors.get(name, 1.0) ** power for name, power in term.powers.items())
        for term in case.terms
    )
    measured_s = case.tokens / case.measured if case.tokens else case.measured
    return math.log(predicted / measured_s)


def loss(covered: Sequence[Case], values: Mapping[str, float]) -> float:
    """Weighted absolute log errors and the distance from the priors."""
    by_source: dict[str, list[float]] = defaultdict(list)
    for case in covered:
        by_source[case.source].append(abs(log_error(case, values)))
    data = sum(statistics.fmean(errors) * math.sqrt(len(errors)) for errors in by_source.values())
    prior = sum(
        (math.log(values[name] / p.value) / math.log(p.factor)) ** 2 for name, p in PRIORS.items()
    )
    return data + PRIOR_WEIGHT * prior


def fit(covered: Sequence[Case]) -> dict[str, float]:
    """Coordinate-wise golden-section search in the logarithms."""
    values = {name: prior.value for name, prior in PRIORS.items()}
    for _ in range(PASSES):
        for name, prior in PRIORS.items():
            low, high = -2 * math.log(prior.factor), 2 * math.log(prior.factor)
            for _ in range(SEARCH_STEPS):
                left = high - _GOLDEN * (high - low)
                right = low + _GOLDEN * (high - low)
                at = [
                    loss(covered, {**values, name: prior.value * math.exp(x)})
                    for x in (left, right)
                ]
                low, high = (low, right) if at[0] < at[1] else (left, high)
            values[name] = prior.value * math.exp((low + high) / 2)
    return values


def leave_one_source_out(
    covered: Sequence[Case],
) -> list[tuple[Case, float, dict[str, float]]]:
    """Every covered row, predicted by constants that its source had no part in."""
    results = []
    for source in sorted({case.source for case in covered}):
        values = fit([case for case in covered if case.source != source])
        results += [
            (case, log_error(case, values), values) for case in covered if case.source == source
        ]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="update the constants of the package")
    parser.add_argument("--record", action="store_true", help="keep the errors for the docs")
    arguments = parser.parse_args()
    covered = cases([row for file in arguments.files for row in read_rows(file)])
    values = fit(covered)
    held_out = leave_one_source_out(covered)
    print(_summary(covered, values, held_out))
    if arguments.record:
        date = datetime.now(UTC).date().isoformat()
        found = summary(check(arguments.files[:2], load_constants()))
        write_json(RECORD, {"date": date, "summary": found, "left_out": _left_out(held_out)})
    if arguments.write:
        data = read_constants()
        for name, value in values.items():
            data["constants"][name]["value"] = float(f"{value:.3g}")
        ASSET.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _summary(
    covered: Sequence[Case],
    values: dict[str, float],
    held_out: list[tuple[Case, float, dict[str, float]]],
) -> str:
    lines = [
        "| constant | prior | fitted | spread when one source is left out |",
        "|---|---|---|---|",
    ]
    for name, value in values.items():
        without = [fitted[name] for _, _, fitted in held_out]
        spread = f"{min(without):.3g} - {max(without):.3g}"
        lines.append(f"| {name} | {PRIORS[name].value:.3g} | {value:.3g} | {spread} |")
    lines += [
        "",
        "| rows | n | median error, fitted | median error, source left out |",
        "|---|---|---|---|",
    ]
    for kind in KINDS:
        inside = [_off(c, log_error(c, values)) for c in covered if _is(c, kind)]
        outside = [_off(c, error) for c, error, _ in held_out if _is(c, kind)]
        if inside:
            lines.append(
                f"| {kind} | {len(inside)} | {statistics.median(inside):.1%} "
                f"| {statistics.median(outside):.1%} |"
            )
    return "\n".join(lines)


def _left_out(held_out: Sequence[tuple[Case, float, Any]]) -> dict[str, dict[str, float]]:
    """By kind of row: how many of how many sources, and their errors."""
    found = {}
    for kind in KINDS:
        rows = [(case.source, _off(case, error)) for case, error, _ in held_out if _is(case, kind)]
        errors = [error for _, error in rows]
        found[kind] = {
            "n": len(rows),
            "sources": len({source for source, _ in rows}),
            "median_abs_rel_error": statistics.median(errors),
            "largest_abs_rel_error": max(errors),
        }
    return found


def _is(case: Case, kind: str) -> bool:
    """Whether a row is of a kind."""
    return case.kind == kind or ((kind, case.kind) == ("LoRA", "decode") and "LoRA" in case.label)


def _off(case: Case, error: float) -> float:
    """Relative error of what the row states: tokens per second of decode rows, else seconds."""
    return abs(math.expm1(-error if case.tokens else error))


if __name__ == "__main__":
    main()
