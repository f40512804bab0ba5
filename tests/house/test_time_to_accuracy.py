"""The clock of scripts/time_to_accuracy.py, and its table where a side never arrives."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from speed_tables import time_ratio
from time_to_accuracy import Watch


def trained(accuracies: list[float], limit_s: float = 100.0) -> Watch:
    """One update of a second each, evaluated every second one."""
    rest = iter(accuracies)
    watch = Watch(lambda _: next(rest), goal=0.85, limit_s=limit_s, clock=lambda: 0.0)
    for step in range(1, 200):
        if watch.is_over(None, SimpleNamespace(cpu_s=float(step), steps=step)):
            break
    return watch


def test_the_first_of_two_in_a_row_counts() -> None:
    watch = trained([0.5, 0.9, 0.8, 0.86, 0.85, 0.9])
    assert watch.reached == pytest.approx(8)
    assert len(watch.curve) == 5


def test_a_side_that_never_gets_there_ends_at_its_limit() -> None:
    watch = trained([0.9, 0.5] * 50, limit_s=20.0)
    assert watch.reached is None
    assert watch.seconds == pytest.approx(20)


def row(seed: int, side: str, seconds: float | None) -> dict[str, Any]:
    return {"mix": "hard", "seed": seed, "side": side, "seconds": seconds, "trained_s": 200.0}


def test_where_the_other_side_never_arrives_the_ratio_is_a_bound() -> None:
    rows = [row(1, "most", 20.0), row(1, "old", 50.0), row(2, "most", 30.0), row(2, "old", 50.0)]
    assert time_ratio({"rows": rows}, "hard", "most", "old") == (pytest.approx(0.5), False)
    rows += [row(1, "trl", None)]
    assert time_ratio({"rows": rows}, "hard", "most", "trl") == (pytest.approx(0.1), True)
