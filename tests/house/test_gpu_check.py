"""The check of a card: what it prints, and that it keeps to its minutes; rehearsed on a CPU."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from gpu_check import table  # noqa: E402

MEASURED: dict[str, Any] = {
    "recipe": "deepscaler_r256",
    "steps": 3,
    "phase_s": {"rollout": 41.25, "reward": 0.1, "logprob": 12.0, "update": 60.0, "other": 2.0},
    "rollout_tokens_per_s": 5561.4,
    "peak_gib": 26.5,
}
ESTIMATED: dict[str, Any] = {
    "predicted_phase_s": {
        "rollout": 38.0, "reward": 0.4, "logprob": 15.0, "update": 65.0, "other": 1.9,
    },
    "predicted_tokens_per_s": 6036.2,
    "predicted_peak_gib": 28.9,
}  # fmt: skip


def check(*arguments: str, out: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", str(ROOT / "scripts/gpu_check.sh"), *arguments],
        env=os.environ | {"GPU_CHECK_OUT": str(out)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_figure_stands_beside_its_estimate() -> None:
    with_gpu, without = table([MEASURED | ESTIMATED, MEASURED]).splitlines()[2:]
    assert with_gpu.startswith("| deepscaler_r256 | 3 | 41.25 / 38.00 | 0.10 / 0.40 | 12.00 / 15")
    assert with_gpu.endswith("| 5561 / 6036 | 26.50 / 28.90 |")
    assert without.endswith("| 5561 / - | 26.50 / - |")


@pytest.mark.parametrize("arguments", [("--minutes", "x", "all"), ("r9",), ("--fast", "all"), ()])
def test_what_it_cannot_do_is_said_before_anything_runs(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    assert check(*arguments, out=tmp_path / "out").returncode == 2
    assert not (tmp_path / "out").exists()


def test_a_rehearsal_on_a_cpu_ends_with_the_table(tmp_path: Path) -> None:
    done = check("--rehearse", "--minutes", "5", "smoke", out=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("| smoke | 1 | ") and last.endswith("| - / - |")
