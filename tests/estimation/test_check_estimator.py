import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
FILES = Path(__file__).resolve().parents[3] / "shared/estimator"

DECODE = {
    "source": "somebody",
    "model": "Llama-3.2-1B-Instruct",
    "gpu": "A40",
    "engine": "vLLM 0.10",
    "concurrency": 64,
    "input_tokens": 150,
    "output_tokens": 1000,
    "output_tok_s": 4000,
    "tpot_ms": None,
    "notes": "",
}
STEP: dict[str, Any] = {
    **{"source": "somebody", "model": "Qwen2.5-1.5B-Instruct", "gpu": "A40", "n_gpus": 1},
    **{"lora_rank": 32, "prompts_per_step": 4, "group_size": 8, "max_prompt": 512},
    **{"max_completion": 1024, "mean_completion": 500, "engine": "Unsloth + vLLM 0.11 standby"},
    **{"seconds_per_step": 30.0, "peak_gb": None, "notes": "", "kind": "rl_step"},
    **{"completions_per_step": 32},
}
MEMORY = {
    **STEP,
    **{"kind": "memory", "model": "Llama-3.1-8B-Instruct 4-bit", "seconds_per_step": None},
    **{"notes": "weights 5.60, act 0.74, KV 2.39, graphs 0.59 GiB"},
}


def check(*files: Path) -> Any:
    command = [sys.executable, str(SCRIPTS / "check_estimator.py"), *map(str, files), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def written(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_published_rows_with_an_adapter_lie_in_their_bands() -> None:
    """With the guess that stood for its kernels before, they were 15 to 37 % off."""
    rows = check(SCRIPTS / "published_lora.jsonl")["rows"]
    adapters = [row for row in rows if "LoRA" in row["label"]]
    covered = [row for row in adapters if row["covered"]]
    assert len(covered) == 5 and all(
        row["low"] <= row["measured"] <= row["high"] for row in covered
    )
    assert max(abs(row["error"]) for row in covered) < 0.32
    (left_out,) = [row for row in adapters if not row["covered"]]
    assert "vLLM V0" in left_out["reason"]


def test_a_row_from_before_vllm_0_8_is_v0_and_pays_nothing_for_v1s_adapter_kernels(
    tmp_path: Path,
) -> None:
    lora = {**STEP, "engine": "Unsloth + vLLM, LoRA"}
    old = {**lora, "source": "an issue (2025-02)"}
    new = {**lora, "source": "an issue (2025-03)"}
    named = {**lora, "source": "an issue (2025-04)", "engine": "Unsloth + vLLM (V0), LoRA"}
    rows = check(written(tmp_path, old, new, named))["rows"]
    before, after, told = (row["predicted"] for row in rows)
    assert before == told != after


@pytest.mark.skipif(not FILES.is_dir(), reason="the published rows lie beside the project")
def test_updates_of_published_runs_are_predicted_no_worse_than_before() -> None:
    """Before the decode constants were fitted to adapters: 14.4 % in the median, 55.3 % at 90 %."""
    steps = check(FILES / "calibration.jsonl")["summary"]["step"]
    assert steps["covered"] == 16
    assert steps["median_abs_rel_error"] < 0.142
    assert steps["p90_abs_rel_error"] < 0.553
    assert steps["inside_band_share"] > 0.81


def test_the_summary_is_the_contracts(tmp_path: Path) -> None:
    found = check(written(tmp_path, DECODE, STEP, MEMORY))
    for kind in ("decode", "step", "memory"):
        summary = found["summary"][kind]
        assert (summary["n"], summary["covered"]) == (1, 1), kind
        assert 0 <= summary["median_abs_rel_error"] <= summary["p90_abs_rel_error"]
        assert 0 <= summary["inside_band_share"] <= 1
        assert summary["band_width"] > 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n_gpus": 4}, "4 GPUs"),
        ({"model": "Nobody-3B"}, "shape unknown"),
        ({"gpu": "Abacus"}, "not in the table"),
        ({"mean_completion": None, "max_completion": None}, "no completion length"),
        ({"completions_per_step": None, "group_size": None}, "completions per step"),
        ({"engine": "own code"}, "engine that generated"),
        ({"model": "Qwen2.5-VL-3B-Instruct"}, "images"),
    ],
)
def test_a_row_that_is_not_covered_is_listed_with_its_reason(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    rows = check(written(tmp_path, {**STEP, **change}))["rows"]
    assert len(rows) == 1
    assert rows[0]["covered"] is False
    assert reason in rows[0]["reason"]


def test_a_source_or_engine_same_is_that_of_the_row_before(tmp_path: Path) -> None:
    rows = check(written(tmp_path, STEP, {**STEP, "source": "same", "engine": "same run"}))["rows"]
    assert rows[1]["source"] == "somebody"
    assert rows[1]["covered"] is True


def test_published_speeds_of_supervised_training_are_predicted_within_half() -> None:
    """Sequence lengths, ranks and batches of most of these rows were never published."""
    file = FILES / "calibration_sft.jsonl"
    if not file.is_file():
        pytest.skip("the calibration files are not part of the project: not beside this checkout")
    found = check(file)["summary"]["sft"]
    assert found["covered"] >= 28
    assert found["median_abs_rel_error"] <= 0.5
    assert found["inside_band_share"] >= 0.8


def test_published_runs_are_predicted_as_well_as_is_claimed() -> None:
    files = [FILES / "calibration.jsonl", FILES / "calibration_decode.jsonl"]
    if not all(file.is_file() for file in files):
        pytest.skip("the calibration files are not part of the project: not beside this checkout")
    found = check(*files)["summary"]
    assert found["decode"]["median_abs_rel_error"] <= 0.15
    assert found["step"]["covered"] >= 0.5 * found["step"]["n"]
    assert found["step"]["median_abs_rel_error"] <= 0.30
    assert found["memory"]["p90_abs_rel_error"] <= 0.05
    inside = [
        found[kind]["inside_band_share"] * found[kind]["covered"] for kind in ("decode", "step")
    ]
    assert sum(inside) >= 0.8 * (found["decode"]["covered"] + found["step"]["covered"])
