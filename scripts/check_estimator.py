"""Hold the estimator against measured runs of others, row by row.

    python scripts/check_estimator.py calibration.jsonl calibration_decode.jsonl \
        calibration_sft.jsonl [--json]

Decode and SFT rows compare tokens per second, step rows seconds per update on one GPU, memory rows
the parts that have a closed formula (weights, KV bytes per token, optimiser states) and, apart from
them, totals. Rows that the model does not cover are listed with the reason and counted in n.
"""

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from calibration_rows import Case, decode_case, read_rows, step_case, train_case
from memory_rows import memory_cases

from budgetrl.estimation.terms import (
    Band,
    Constants,
    draws,
    length_draws,
    load_constants,
    quantiles,
    total,
)

KINDS = ("decode", "step", "memory")


class Result(NamedTuple):
    """One row beside its prediction."""

    kind: str
    label: str
    source: str
    measured: float | None
    predicted: float | None
    low: float | None
    high: float | None
    reason: str

    @property
    def covered(self) -> bool:
        """Whether the row has a prediction to compare."""
        return self.predicted is not None and self.measured is not None

    @property
    def error(self) -> float | None:
        """(predicted - measured) / measured."""
        if self.predicted is None or self.measured is None:
            return None
        return self.predicted / self.measured - 1

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the printed 80 % band."""
        if self.low is None or self.high is None or self.measured is None:
            return False
        return self.low <= self.measured <= self.high


def check(paths: Iterable[Path], constants: Constants) -> list[Result]:
    """All rows of all files."""
    results = []
    for path in paths:
        for row in read_rows(path):
            results += [_result(case, constants) for case in _cases(row, constants)]
    return results


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Counts and errors by kind; shares are null where nothing is covered."""
    return {kind: _summary([r for r in results if r.kind == kind]) for kind in _kinds(results)}


def _kinds(results: Sequence[Result]) -> list[str]:
    more = sorted({result.kind for result in results} - set(KINDS))
    return [*KINDS, *more]


def _summary(rows: Sequence[Result]) -> dict[str, Any]:
    errors = [abs(row.error) for row in rows if row.covered and row.error is not None]
    bands = [row for row in rows if row.covered and row.low is not None]
    widths = [row.high / row.low for row in bands if row.low and row.high]
    return {
        "n": len(rows),
        "covered": len(errors),
        "median_abs_rel_error": statistics.median(errors) if errors else None,
        "p90_abs_rel_error": _quantile(errors, 0.9),
        "inside_band_share": sum(row.inside for row in bands) / len(bands) if bands else None,
        "band_width": statistics.median(widths) if widths else None,
    }


def _quantile(values: Sequence[float], share: float) -> float | None:
    """Linear between order statistics."""
    if not values:
        return None
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def _cases(row: dict[str, Any], constants: Constants) -> list[Case]:
    kind = row.get("kind")
    if kind is None:
        return [decode_case(row, constants)]
    if kind == "rl_step":
        case = step_case(row, constants)
        one = row["n_gpus"] == 1
        cases = [case if one else Case("other", *_head(case), None, case.reason)]
        return cases + (memory_cases(row) if one else [])
    if kind == "train_tokens":
        return [train_case(row, constants)]
    if kind == "memory":
        return memory_cases(row)
    return [Case("other", f"{row['model']}: {kind}", row["source"], None, None, f"kind {kind}")]


def _head(case: Case) -> tuple[str, str, float | None]:
    return case.label, case.source, case.measured


def _result(case: Case, constants: Constants) -> Result:
    head = (case.kind, case.label, case.source, case.measured)
    if case.terms is None:
        return Result(*head, None, None, None, case.reason)
    value, ends = total(case.terms), _band(case, constants)
    if case.tokens is not None:
        value, ends = case.tokens / value, Band(case.tokens / ends.high, case.tokens / ends.low)
    return Result(*head, value, ends.low, ends.high, case.reason)


def _band(case: Case, constants: Constants) -> Band:
    """The band of the constants and, where a length was assumed, of that length."""
    assert case.terms is not None
    pairs = zip(draws(case.terms, constants), length_draws(*case.length_ratio), strict=True)
    return quantiles([seconds * factor for seconds, factor in pairs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--table", action="store_true", help="only the summary, as Markdown")
    arguments = parser.parse_args()
    results = check(arguments.files, load_constants())
    if arguments.json:
        rows = [{**r._asdict(), "covered": r.covered, "error": r.error} for r in results]
        print(json.dumps({"rows": rows, "summary": summary(results)}))
        return
    print(_table(summary(results)) if arguments.table else _text(results))


def _text(results: Sequence[Result]) -> str:
    lines = []
    for kind in _kinds(results):
        lines.append(f"{kind} rows")
        for row in (r for r in results if r.kind == kind and r.covered):
            mark = "" if row.inside else "  outside the band"
            lines.append(
                f"  {row.measured:>10.4g} measured {row.predicted:>10.4g} predicted "
                f"({row.low:.4g} - {row.high:.4g}) {row.error:+.0%}{mark}  {row.label[:70]}"
            )
        reasons = Counter(r.reason for r in results if r.kind == kind and not r.covered)
        lines += [f"  not covered, {count}: {reason}" for reason, count in reasons.items()]
    lines += ["", _table(summary(results))]
    return "\n".join(lines)


def _table(found: dict[str, Any]) -> str:
    """The summary as Markdown, for README and LOG."""
    lines = [
        "| rows | n | covered | median error | 90 % | inside the 80 % band | high / low |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, values in found.items():
        numbers = [
            _percent(values[name])
            for name in ("median_abs_rel_error", "p90_abs_rel_error", "inside_band_share")
        ]
        width = f"{values['band_width']:.2f}" if values["band_width"] else "-"
        head = f"| {kind} | {values['n']} | {values['covered']} |"
        lines.append(f"{head} {' | '.join(numbers)} | {width} |")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


if __name__ == "__main__":
    main()
