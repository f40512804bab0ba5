"""Grading against math-verify itself: verdicts, throughput and hostile rows; prints JSON.

    python scripts/bench_grading.py [--data ../shared/data] [--workers 2]

Both sides grade the same rows in one run: ours in killable processes, math-verify called in this
process on one core, as its documentation shows it (gold wrapped in dollars, gold first).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from math_verify import parse, verify

from budgetrl.processor import cpu_model
from budgetrl.rewards.pool import GradingPool
from budgetrl.rewards.shaping import think_format
from budgetrl.types import Verdict

OTHER_READINGS = frozenset(
    [
        "g0127",
        "g0140",
        "g0471",
        "g0567",
        "g0572",
        "g0573",
        "g0598",
        "g0605",
        "g0413",
        "g0435",
        "g0457",
        "g0543",
        "g0545",
    ]
)
"""Cases made under other readings than ours: rounded decimals, units, text after a box."""
OTHER_FORMATS = frozenset({"f036", "f037"})
FRACTION, DISPLAY = r"\frac", r"\dfrac"
HOSTILE = tuple(
    rf"\boxed{{{text}}}"
    for text in (
        "SLEEP",
        "COMPUTE",
        "COMPUTE IN C",
        "SLEEP AND FAIL",
        *(f"SLEEP {i}" for i in range(6)),
    )
)
"""Completions on which tests/slow_grader.py spends a minute of harmless work."""
DRESSES = (
    *("**%s**", "*%s*", "__%s__", "`%s`", "**$%s$**", r"\textcolor{blue}{%s}", r"{\color{red} %s}"),
    *(r"\underline{%s}", r"\large %s", r"\Huge{%s}", r"\small %s", r"\normalsize{%s}", r"\pmb{%s}"),
    *(r"\colorbox{yellow}{%s}", r"\framebox{%s}", r"\bbox[red]{%s}", r"\smash{%s}", r"%s\ "),
    *(r"\ensuremath{%s}", r"%s\hfill", r"%s \checkmark", r"\begin{aligned}%s\end{aligned}"),
    *("%s。", r"%s\ \ ", r"\displaystyle{%s}", r"\textcolor{red}{\underline{%s}}"),
)
"""Ways to set an answer that say nothing about it."""
Pair = tuple[str, str]


def read(file: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def agreement(pool: GradingPool, folder: Path) -> dict[str, Any]:
    """Verdicts on the cases that other projects published, ours and math-verify's."""
    rows = [
        row
        for row in read(folder / "grader_cases.jsonl") + read(folder / "real_output_cases.jsonl")
        if not row.get("disagreement_group") and row["case_id"] not in OTHER_READINGS
    ]
    cases = []
    for row in rows:
        response = row["response"]
        if row["kind"] == "answer_pair" and "boxed" not in response:
            response = rf"\boxed{{{response}}}"
        without_box = "boxed" not in response and "fbox" not in response
        if not (without_box and row["expected"]):
            cases.append((row["case_id"], (response, row["gold"]), row["expected"]))
    graded = pool.grade([pair for _, pair, _ in cases])
    theirs = [math_verify_says(*pair) for _, pair, _ in cases]
    return {
        "rows": len(cases),
        "as_expected": sum(
            (one.verdict is Verdict.CORRECT) == expected
            for one, (_, _, expected) in zip(graded, cases, strict=True)
        ),
        "false_correct": [
            name
            for one, (name, _, expected) in zip(graded, cases, strict=True)
            if one.verdict is Verdict.CORRECT and not expected
        ],
        "missed": [
            name
            for one, (name, _, expected) in zip(graded, cases, strict=True)
            if one.verdict is not Verdict.CORRECT and expected
        ],
        "math_verify_as_expected": sum(
            said == expected for said, (_, _, expected) in zip(theirs, cases, strict=True)
        ),
        "math_verify_false_correct": sum(
            said and not expected for said, (_, _, expected) in zip(theirs, cases, strict=True)
        ),
    }


def math_verify_says(completion: str, gold: str) -> bool:
    """math-verify's verdict with its own five-second alarms."""
    wrapped = gold if "$" in gold or "boxed" in gold else f"${gold}$"
    try:
        return bool(verify(parse(wrapped), parse(completion)))
    except Exception as error:  # it raises what sympy raises; the bench counts that as "no"
        print(f"math-verify: {type(error).__name__}", file=sys.stderr)
        return False


def self_consistency(pool: GradingPool, folder: Path) -> dict[str, int]:
    """Every gold of the evaluation suites against itself, in four spellings."""
    golds = [str(row["answer"]) for file in sorted(folder.glob("*.jsonl")) for row in read(file)]
    spellings = [r"\boxed{%s}", r"so \boxed{%s}.", r"\boxed{%s.}", r"\boxed{$%s$}"]
    pairs = [(spelling % gold, gold) for gold in golds for spelling in spellings]
    pairs += [(rf"\boxed{{{gold.replace(FRACTION, DISPLAY)}}}", gold) for gold in golds]
    graded = pool.grade(pairs)
    return {"pairs": len(pairs), "correct": sum(r.verdict is Verdict.CORRECT for r in graded)}


def typography(pool: GradingPool, folder: Path, number: int = 1000) -> dict[str, Any]:
    """Suite golds in other dress against themselves, and against the gold of another row."""
    golds = list(
        dict.fromkeys(
            str(row["answer"]) for file in sorted(folder.glob("*.jsonl")) for row in read(file)
        )
    )
    own, foreign = [], []
    for i in range(number):
        rule = DRESSES[i % len(DRESSES)]
        gold, other = golds[i * 7 % len(golds)], golds[(i * 7 + 3 + i // len(golds)) % len(golds)]
        own.append((rf"\boxed{{{rule % gold}}}", gold))
        foreign.append((rf"\boxed{{{rule % gold}}}", other))
    right, wrong = pool.grade(own), pool.grade(foreign)
    plain = pool.grade(
        [(rf"\boxed{{{g}}}", o) for (_, g), (_, o) in zip(own, foreign, strict=True)]
    )
    return {
        "variants": number,
        "correct": sum(row.verdict is Verdict.CORRECT for row in right),
        "of_other_golds": sum(p.verdict is not Verdict.CORRECT for p in plain),
        "called_correct": sum(
            row.verdict is Verdict.CORRECT and p.verdict is not Verdict.CORRECT
            for row, p in zip(wrong, plain, strict=True)
        ),
        "missed": [
            pair for pair, row in zip(own, right, strict=True) if row.verdict is not Verdict.CORRECT
        ],
    }


def formats(folder: Path) -> dict[str, int]:
    """Published cases, judged as think formats (some were made for tag counts)."""
    rows = [r for r in read(folder / "format_cases.jsonl") if r["case_id"] not in OTHER_FORMATS]
    right = sum(
        think_format(row["completion"], prefilled=False) == row["computed"]["trl_think_format"]
        for row in rows
    )
    return {"rows": len(rows), "as_expected": right}


def throughput(pool: GradingPool, pairs: Sequence[Pair], rounds: int = 3) -> dict[str, float]:
    """Rows per second on real outputs; the two sides take turns, the medians are compared."""
    ours, theirs = [], []
    pool.grade(list(pairs[:4]))
    for number in range(rounds):
        # Equal pairs are graded once, so every round has golds of its own.
        fresh = [(text, f"{gold} " + " " * number) for text, gold in pairs]
        start = time.perf_counter()
        pool.grade(fresh)
        ours.append(len(pairs) / (time.perf_counter() - start))
        start = time.perf_counter()
        for pair in fresh:
            math_verify_says(*pair)
        theirs.append(len(pairs) / (time.perf_counter() - start))
    mine, other = sorted(ours)[rounds // 2], sorted(theirs)[rounds // 2]
    return {
        "rows_per_s": round(mine, 1),
        "math_verify_rows_per_s": round(other, 1),
        "ratio": round(mine / other, 2),
    }


def hostile_rows(workers: int, timeout_s: float = 3.0) -> dict[str, Any]:
    """1 % of hostile rows among 1,000 good ones."""
    good = [(rf"\boxed{{\frac{{{i}}}{{7}}}}", rf"{i}/7" if i % 3 else "5") for i in range(990)]
    mixed = list(good)
    for position, text in enumerate(HOSTILE):
        mixed.insert(position * 97, (text, "12345"))
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    with GradingPool(workers=workers, timeout_s=timeout_s, grader="slow_grader") as pool:
        pool.grade(good[:4])
        start = time.monotonic()
        clean = pool.grade(good)
        clean_s = time.monotonic() - start
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.monotonic()
        graded = pool.grade(mixed)
        mixed_s = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = [row for row, pair in zip(graded, mixed, strict=True) if pair[0] not in HOSTILE]
    hostile = [row for row, pair in zip(graded, mixed, strict=True) if pair[0] in HOSTILE]
    limit_s = clean_s + timeout_s * len(HOSTILE) / workers + 1.0
    return {
        "good_rows_unchanged": [r.verdict for r in kept] == [r.verdict for r in clean],
        "hostile": [row.verdict.value for row in hostile],
        "clean_s": round(clean_s, 2),
        "mixed_s": round(mixed_s, 2),
        "limit_s": round(limit_s, 2),
        "within_limit": mixed_s <= limit_s,
        "processes_left": processes_left(),
        "memory_growth_mib": round((after - before) / 1024, 1),
    }


def processes_left() -> int:
    """Children of this process that are still there, zombies included."""
    time.sleep(0.5)
    found = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "comm="], capture_output=True, text=True
    )
    return sum("ps" not in line for line in found.stdout.splitlines())


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    data: Path = options.data
    real = read(data / "grader" / "real_output_cases.jsonl")
    pairs = [(row["response"], row["gold"]) for row in real]
    with GradingPool(workers=options.workers) as pool:
        found = {
            "date": datetime.now(UTC).date().isoformat(),
            "cpu": cpu_model(),
            "workers": options.workers,
            "agreement": agreement(pool, data / "grader"),
            "self_consistency": self_consistency(pool, data / "eval"),
            "typography": typography(pool, data / "eval"),
            "formats": formats(data / "format"),
            "throughput": throughput(pool, pairs),
        }
    found["hostile"] = hostile_rows(options.workers)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
