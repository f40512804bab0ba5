"""The probe: verdicts on what was seen, and one of a real model."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from budgetrl.data.difficulty import solve_rates
from budgetrl.errors import DataError
from budgetrl.probe.feasibility import ProbeVerdict, Seen, judge
from budgetrl.recipe.load import load_recipe


def seen(correct: list[int], agreement: list[float], **changed: Any) -> Seen:
    rows = len(correct) * 8
    made = Seen(8, correct, agreement, [1.0] * rows, [False] * rows)
    return replace(made, **changed)


@pytest.mark.parametrize(
    ("what", "steps", "verdict", "word"),
    [
        (seen([3] * 64, [0.3, 0.2] * 32), 60, ProbeVerdict.GO, "100.0 % of 64 groups"),
        (seen([1] * 64, [0.3, -0.2] * 32), 60, ProbeVerdict.NO_GO, "luck"),
        (seen([0] * 126 + [3] * 2, [0.3, 0.2]), 60, ProbeVerdict.NO_GO, "hardly any"),
        (seen([8] * 63 + [7], []), 60, ProbeVerdict.NO_GO, "solved already"),
        (seen([3] * 64, [0.3, 0.2] * 32), 3, ProbeVerdict.NO_GO, "3 updates"),
        (seen([3] * 23 + [8], [0.3, 0.2] * 12), 60, ProbeVerdict.GO, "95.8 % of 24 groups"),
        (seen([3] * 3, [0.5, 0.0, 0.2]), 60, ProbeVerdict.DOUBTFUL, "may be luck"),
        (seen([3] + [0] * 9, [0.3]), 60, ProbeVerdict.DOUBTFUL, "perhaps too few"),
        (seen([8] * 3, []), 60, ProbeVerdict.DOUBTFUL, "solved already; 0.0 % of 3 groups"),
        (seen([3] * 64, [0.3, 0.2] * 32, truncated=[True]), 60, ProbeVerdict.DOUBTFUL, "limit"),
        (seen([], []), 60, ProbeVerdict.DOUBTFUL, "no groups"),
    ],
)
def test_a_probes_verdict_and_its_first_reason(
    what: Seen, steps: int, verdict: ProbeVerdict, word: str
) -> None:
    found, why = judge(what, steps)
    assert (found, word in why[0]) == (verdict, True), why


def test_a_probe_of_a_real_model_leaves_a_table_that_a_run_takes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "budgetrl", "probe", "quickstart", "--json", "--hours", "5m"]
    command += ["--set", "eval.heldout.samples=1", "--set", "eval.heldout.k=[1]"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["verdict"] in ("go", "no_go"), "no_go: a busy machine's budget buys too little"
    assert found["groups_with_signal_share"] > 0.8
    assert 0.3 < found["heldout"]["pass_at"]["1"] < 0.45
    signal = load_recipe(
        "quickstart",
        ['signal.order="difficulty"', f"signal.solve_rates={found['solve_rates_file']}"],
    ).recipe.signal
    rates = solve_rates(signal)
    assert rates is not None and len(rates.to_json()["problems"]) > 200
    broken = signal.model_copy(update={"solve_rates": str(tmp_path / "absent.json")})
    with pytest.raises(DataError, match="no table of solve rates"):
        solve_rates(broken)
