"""The task of the tiny model, chains such as `Compute 7+5-8+2.`, and its data files.

Pure Python, all from a seed. The split is a property of the expression (sha256 mod 5), so that no
seed, file or demonstration can put a held-out problem on the training side.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Level:
    """One kind of expression; the running total stays in 0..ceiling."""

    num_terms: tuple[int, ...]
    numbers: range
    ceiling: int


IN_REACH = (3, 4, 5, 6)
LEVELS = {n: Level((n,), range(1, 10), 20) for n in IN_REACH} | {
    7: Level((3, 4), range(100, 1000), 9999),
    8: Level((8, 9, 10), range(10, 100), 9999),
}
"""Levels 3-6 are what the model is taught, named by their number of terms.

It never sees a total above 20, so 7 (three-digit numbers) and 8 (long, two-digit) are out of reach.
"""

HARD_MIX = {7: 720, 8: 720} | dict.fromkeys(IN_REACH, 140)
"""Rows per level of train_hard: 72 % out of reach. The dead groups are measured: figures.json."""


NUM_WORKED = 200
"""Demonstrations for a warm-up; s1 and LIMO have 800 to 1,000 of real ones."""


@dataclass(frozen=True)
class Row:
    """One line of a data file."""

    id: str
    problem: str
    answer: str
    level: int


@dataclass(frozen=True)
class Worked(Row):
    """A problem with a demonstration of how it is worked out."""

    solution: str


def expression_of(problem: str) -> str:
    """Return the expression inside `Compute 7+5-8+2.`."""
    return problem.removeprefix("Compute ").removesuffix(".")


def is_heldout(expression: str) -> bool:
    """Say on which side of the split an expression lies: one fifth of all are held out."""
    return int(hashlib.sha256(expression.encode()).hexdigest(), 16) % 5 == 0


def working_lines(expression: str) -> list[str]:
    """Return one line per operation: `7+5-8` gives `7+5=12` and `12-8=4`."""
    first, *rest = re.findall(r"[+-]?\d+", expression)
    total, lines = int(first), []
    for term in rest:
        lines.append(f"{total}{term}={total + int(term)}")
        total += int(term)
    return lines


def answer_of(expression: str) -> str:
    return working_lines(expression)[-1].partition("=")[2]


def worked_out(row: Row) -> Worked:
    """A row with its working in the think block, as the `steps` habit writes it."""
    lines = working_lines(expression_of(row.problem))
    return Worked(
        **asdict(row),
        solution="\n".join(["<think>", *lines, "</think>", f"\\boxed{{{row.answer}}}"]),
    )


def draw_expression(rng: random.Random, level: Level) -> str:
    """Draw distinct numbers and random signs; a sign that would leave 0..ceiling is flipped."""
    first, *rest = rng.sample(level.numbers, rng.choice(level.num_terms))
    total, text = first, str(first)
    for number in rest:
        sign = rng.choice((1, -1))
        if not 0 <= total + sign * number <= level.ceiling:
            sign = -sign
        total += sign * number
        text += f"{'+' if sign > 0 else '-'}{number}"
    return text


def draw_rows(
    prefix: str, counts: dict[int, int], seed: int, *, heldout: bool, avoid: Set[str] = frozenset()
) -> list[Row]:
    """Draw `counts[level]` different problems of one side, in shuffled order, none of `avoid`."""
    rng = random.Random(f"{prefix}-{seed}")
    chosen: list[tuple[str, int]] = []
    seen = set(avoid)
    for level, count in counts.items():
        while count > 0:
            expression = draw_expression(rng, LEVELS[level])
            if expression not in seen and is_heldout(expression) == heldout:
                seen.add(expression)
                chosen.append((expression, level))
                count -= 1
    rng.shuffle(chosen)
    return [
        Row(f"{prefix}-{i:05d}", f"Compute {expression}.", answer_of(expression), level)
        for i, (expression, level) in enumerate(chosen)
    ]


def make_data(seed: int) -> dict[str, Sequence[Row]]:
    """Draw the data files by name; no expression is on both sides of the split."""
    per_level = dict.fromkeys(IN_REACH, 64)
    heldout = draw_rows("heldout", per_level, seed, heldout=True)
    used = {expression_of(row.problem) for row in heldout}
    train: dict[str, Sequence[Row]] = {
        "train_easy": draw_rows("train", dict.fromkeys(IN_REACH, 500), seed, heldout=False),
        "train_hard": draw_rows("hard", HARD_MIX, seed, heldout=False),
    }
    held = {
        "heldout": heldout,
        "heldout_hard": draw_rows("heldout-hard", per_level, seed, heldout=True, avoid=used),
    }
    shown = draw_rows("worked", dict.fromkeys(IN_REACH, NUM_WORKED // 4), seed, heldout=False)
    train["worked"] = [worked_out(row) for row in shown]
    assert not problems(train) & problems(held)
    return train | held


def problems(files: Mapping[str, Sequence[Row]]) -> set[str]:
    return {row.problem for rows in files.values() for row in rows}


def write_data(data: Mapping[str, Sequence[Row]], folder: Path) -> None:
    """Write one JSON Lines file per name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in data.items():
        text = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
