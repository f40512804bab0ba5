import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from budgetrl.errors import UsageError
from budgetrl.hardware import _all_gpus, _plain, detect_gpu, find_gpu, gpu_table, load_gpu

NVML_NAMES = {
    "NVIDIA A40": "A40",
    "Tesla T4": "T4",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "NVIDIA A100-SXM4-80GB": "A100-80GB SXM",
    "NVIDIA A100 80GB PCIe": "A100-80GB PCIe",
    "NVIDIA H100 80GB HBM3": "H100 SXM",
    "NVIDIA RTX 6000 Ada Generation": "RTX 6000 Ada",
    "NVIDIA H200": "H200",
    "a40": "A40",
    "4090": "RTX 4090",
}


@pytest.mark.parametrize(("spelling", "name"), NVML_NAMES.items())
def test_a_gpu_is_found_as_nvml_or_people_spell_it(spelling: str, name: str) -> None:
    assert find_gpu(spelling).name == name


def test_no_two_gpus_share_a_spelling() -> None:
    owners = [
        spelling
        for gpu in _all_gpus().values()
        for spelling in {_plain(name) for name in (gpu.name, *gpu.aliases)}
    ]
    assert [spelling for spelling, count in Counter(owners).items() if count > 1] == []


def test_the_table_has_26_gpus_with_positive_numbers() -> None:
    table = gpu_table()
    assert len(table) == 26
    for gpu in table.values():
        assert gpu.dense_tflops > 0 < gpu.bandwidth_gb_s
        assert 0.9 * gpu.memory_gb < gpu.usable_gib <= gpu.memory_gb
    assert [gpu.name for gpu in table.values() if not gpu.bf16] == ["T4", "V100-16GB", "V100-32GB"]


def test_cards_that_are_not_for_rent_are_found_by_name_only() -> None:
    assert find_gpu("NVIDIA GeForce RTX 4070 Laptop GPU".removesuffix(" GPU")).memory_gb == 8
    assert "RTX 4070 Laptop" not in gpu_table()


@pytest.mark.parametrize(
    ("wrong", "meant"), [("A400", "A40"), ("A100", "A100-80GB PCIe"), ("rtx4095", "RTX 4090")]
)
def test_an_unknown_gpu_names_near_ones(wrong: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_gpu(wrong)
    assert meant in caught.value.hint


def test_the_newest_dated_price_is_the_default() -> None:
    a40 = find_gpu("A40").price()
    assert a40 is not None
    assert (a40.usd_per_hour, a40.date) == (0.44, "2025 and 2026-06")
    h100 = find_gpu("H100 SXM").price()
    assert h100 is not None
    assert (h100.usd_per_hour, h100.date) == (2.69, "2026-11-09")
    assert find_gpu("RTX A5000").price() is None


def test_a_gpu_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    row = {"name": "X1", "memory_gb": 20, "bandwidth_gb_s": 500, "bf16_dense_tflops": 90}
    file.write_text(json.dumps(row))
    gpu = find_gpu(str(file))
    assert (gpu.name, gpu.dense_tflops, gpu.bf16, gpu.price()) == ("X1", 90, True, None)


ROW = '{"name": "X", "memory_gb": 48, "bandwidth_gb_s": 700, "bf16_dense_tflops": 150, %s}'


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("not json", "not JSON"),
        ("[1]", "one JSON object"),
        ('{"name": "X"}', "memory_gb is missing; bandwidth_gb_s is missing"),
        ('{"name":"X","memory_gb":-1,"bandwidth_gb_s":1,"bf16_dense_tflops":1}', "above zero"),
        ('{"name":"X","memory_gb":NaN,"bandwidth_gb_s":1,"bf16_dense_tflops":1}', "above zero"),
        ('{"memory_gb":1,"bandwidth_gb_s":1,"bf16_dense_tflops":1}', "name is missing"),
        (ROW % '"aliases": 5', "aliases = 5 is no list"),
        (ROW % '"bf16": "false"', "bf16 = 'false' is no bool"),
        (ROW % '"usable_memory_gib_reported": 100', "more than memory_gb"),
        (ROW % f'"memory_gb": 1{"0" * 400}', "at most a million"),
        (ROW % '"name": "a\\u001b[31m"', "control characters"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_gpu_file_says_what_is_wrong(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=complaint):
        load_gpu(file)


def test_detection_finds_no_gpu_where_none_is_visible(monkeypatch: Any) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert detect_gpu() is None


def test_importing_the_table_does_not_load_nvml() -> None:
    code = "import sys, budgetrl.hardware; sys.exit('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
