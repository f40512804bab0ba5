"""Doctor says what can run here, what cannot and why: GPU, versions, disk, the hub."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import MEMBER, STRANGER, Hub
from hub_sets import model_files, put_sets

from budgetrl.doctor import Check, _engine_checks, can_run, machine, why_not
from budgetrl.doctor.gpu import gpu_checks
from budgetrl.doctor.hub import hub_checks
from budgetrl.errors import ExitCode
from budgetrl.hardware import DetectedGpu, detect_gpu, find_gpu
from budgetrl.recipe.load import load_recipe

RECIPE = load_recipe("deepscaler_r256").recipe
A40 = DetectedGpu(
    name="NVIDIA A40",
    uuid="GPU-1",
    total_gib=44.99,
    driver="580.95.05",
    gpu=find_gpu("A40"),
    used_gib=0.0,
    other_processes=0,
    compute_capability=(8, 6),
    cuda="13.0",
)


def failed(gpu: DetectedGpu | None) -> list[Check]:
    return [check for check in gpu_checks(gpu, RECIPE) if not check.ok]


def test_a_good_card_passes() -> None:
    assert failed(A40) == []
    assert failed(replace(A40, compute_capability=None, cuda=None, other_processes=None)) == []


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"driver": "550.54.15", "cuda": "12.4"}, "driver", "550.54.15 (CUDA 12.4 at most)"),
        ({"mig": True}, "mig", "on"),
        ({"used_gib": 9.0, "other_processes": 2}, "gpu in use", "9.0 GiB used, 2 processes listed"),
        ({"used_gib": 9.0}, "gpu in use", "0 processes listed (a container hides others)"),
        ({"compute_capability": (7, 5)}, "compute capability", "7.5"),
        ({"gpu": find_gpu("T4")}, "memory for deepscaler_r256", "14.7 GiB usable"),
    ],
)
def test_what_stands_in_the_way_is_found_and_has_a_way_out(
    changes: dict[str, Any], name: str, said: str
) -> None:
    (check,) = failed(replace(A40, **changes))
    assert (check.name, check.level) == (name, "gpu")
    assert said in check.found
    assert check.fix


def test_a_screen_on_the_card_is_no_hindrance() -> None:
    assert failed(replace(A40, used_gib=0.6, other_processes=1)) == []


def test_a_card_that_the_table_lacks_is_no_hindrance() -> None:
    (check,) = failed(replace(A40, gpu=None))
    assert (check.level, "estimate --gpu FILE" in check.fix) == ("note", True)


def test_what_triton_builds_with_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first kernel is compiled minutes into a run, when the model is loaded."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda *_: str(tmp_path))
    compiler, headers = machine.compiler_checks()
    assert (compiler.ok, compiler.level, compiler.found) == (False, "gpu", "none")
    assert not headers.ok and f"no {tmp_path / 'Python.h'}" in headers.found
    assert "apt install gcc" in compiler.fix and "-dev" in headers.fix
    for name in ("gcc", "Python.h"):
        (tmp_path / name).touch(mode=0o755)
    assert all(check.ok for check in machine.compiler_checks())
    monkeypatch.setenv("CC", "nvc")
    compiler, _ = machine.compiler_checks()
    assert not compiler.ok and "nvc" in compiler.found


def test_reasons_with_one_way_out_are_one_line() -> None:
    checks = [Check(n, False, "gpu", "not installed", "1", "Run: it") for n in ("a", "b")]
    checks += [Check("c", False, "note", "none", "one", "Get one.")]
    assert not can_run(checks, "gpu")
    assert can_run(checks, "quickstart")
    assert why_not(checks) == ["a: not installed, b: not installed. Run: it"]
    assert why_not(checks, "note") == ["c: none. Get one."]


# --- the hub, asked over a real connection


def access(recipe: str) -> dict[str, Check]:
    checks = hub_checks(load_recipe(recipe).recipe)
    return {check.name.rpartition("/")[2]: check for check in checks}


def filled(hub: Hub) -> None:
    """All that two recipes name, Llama as on the hub: gated."""
    put_sets(hub)
    for recipe in ("llama3.2_r8", "deepscaler_r256"):
        hub.put("model", load_recipe(recipe).recipe.model.id, model_files())
    hub.access("model", load_recipe("llama3.2_r8").recipe.model.id, "gated")


@pytest.mark.parametrize(
    ("token", "found", "said"),
    [
        (None, "is gated: its licence has to be accepted", "none"),
        (STRANGER, "is gated, and the account of your token has no access", "set"),
        ("hf_old", "the hub refuses the token", "set, and the hub refuses it"),
        (MEMBER, "granted", "set"),
    ],
)
def test_access_to_the_gated_model_is_tried(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None, found: str, said: str
) -> None:
    filled(hub)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    checks = access("llama3.2_r8")
    assert checks["network"].ok
    assert (checks["hub token"].found, checks["hub token"].ok) == (
        said,
        token in (STRANGER, MEMBER),
    )
    llama = checks["Llama-3.2-1B-Instruct"]
    assert (llama.ok, llama.level) == (token == MEMBER, "gpu")
    assert found in llama.found
    assert hub.asked("GET /api/datasets/math-ai/amc23")


def test_models_and_data_sets_are_looked_for_without_a_download(hub: Hub) -> None:
    filled(hub)
    (hub.root / "datasets/math-ai/amc23/main/test-00000-of-00001.parquet").unlink()
    checks = access("deepscaler_r256")
    assert checks["DeepScaleR-1.5B-Preview"].ok
    assert "to download" in checks["MATH-500"].found
    assert checks["Llama-3.2-1B-Instruct"].level == "note", "only Llama's recipes need it"
    amc = checks["amc23"]
    assert (amc.ok, amc.level) == (False, "gpu")
    assert "accept" not in amc.fix.lower()
    assert not [line for line in hub.asked("safetensors") if "resolve" in line]


def test_offline_is_no_broken_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checks = access("deepscaler_r256")
    assert checks["network"].ok
    assert "not in the hub's cache" in checks["DeepScaleR-1.5B-Preview"].found
    assert "hf download agentica-org/DeepScaleR" in checks["DeepScaleR-1.5B-Preview"].fix


def test_no_network_is_said_and_never_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    check = access("deepscaler_r256")["network"]
    assert (check.ok, check.level) == (False, "gpu")
    assert "refused" in check.found
    assert access("quickstart")["network"].level == "note", "its model is here"


# --- the command


def doctor(*arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "budgetrl", "doctor", *arguments, "--json"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_cache_folder_that_may_not_be_looked_at_is_no_traceback(tmp_path: Path) -> None:
    """A name that is too long raises as a folder without permission does, for root too."""
    code, found = doctor(HF_HOME=str(tmp_path / ("a" * 300)))
    assert (code, found["ok"]) == (0, True)
    assert machine._existing(tmp_path / ("a" * 300) / "hub") == tmp_path


@pytest.mark.skipif(detect_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_the_quickstart_can_run_and_the_gpu_path_says_why_not() -> None:
    code, found = doctor()
    assert (code, found["ok"], found["gpu_ok"]) == (0, True, False)
    assert any("no NVIDIA GPU" in why for why in found["gpu_why"])
    assert any("scripts/install.sh gpu" in why for why in found["gpu_why"])
    assert all(
        set(check) == {"name", "ok", "level", "found", "wanted", "fix"}
        and bool(check["fix"]) is not check["ok"]
        for check in found["checks"]
    )


def test_a_named_recipe_is_what_the_answer_and_the_exit_code_are_for(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    text = '[recipe]\nextends = ["quickstart"]\nname = "mine"\n'
    mine.write_text(text)
    code, found = doctor(str(mine))
    assert (code, found["recipe"]) == (0, {"name": "mine", "ok": True, "why": []})
    by_name = {check["name"]: check for check in found["checks"]}
    assert by_name["memory for mine"]["ok"] and by_name["files of mine"]["level"] == "recipe"
    mine.write_text(f'{text}[model]\nid = "{tmp_path}/absent"\n[lora]\ntargets = ["q_prj"]\n')
    code, found = doctor(str(mine))
    assert (code, found["ok"], found["recipe"]["ok"]) == (1, True, False)
    assert "absent: no such model folder" in found["recipe"]["why"][0]


@pytest.mark.skipif(detect_gpu() is not None, reason="this machine has a GPU")
def test_a_named_gpu_recipe_needs_the_gpu() -> None:
    code, found = doctor("qwen3_r8")
    assert (code, found["ok"]) == (1, True)
    assert found["recipe"]["why"] == found["gpu_why"]
    plain = load_recipe("qwen3_r8", ["engine.name=plain"]).recipe
    assert [check.name for check in _engine_checks(plain.engine.name)] == ["torch build"]


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a driver library that tells of an A40."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler for the stand-in of NVIDIA's library")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).resolve().parents[1] / "stand_in_nvml.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library.parent


def test_what_nvml_tells_is_understood(nvml: Path) -> None:
    here = {"LD_LIBRARY_PATH": str(nvml), "NVML_MIG": "1", "NVML_PROCESSES": "2"}
    _, found = doctor(**here, NVML_USED_MIB="9216", NVML_DRIVER="575.57.08")
    by_name = {check["name"]: check["found"] for check in found["checks"]}
    assert by_name["gpu"] == "NVIDIA A40, 45 GiB"
    assert by_name["driver"] == "575.57.08 (CUDA 13.0 at most)"
    assert by_name["compute capability"] == "8.6"
    assert by_name["mig"] == "on"
    assert by_name["gpu in use"] == "9.0 GiB used, 2 processes listed"


def test_a_run_wants_the_whole_gpu_to_itself(nvml: Path, tmp_path: Path) -> None:
    """A second run on the GPU is refused before it writes anything."""
    from budgetrl.supervise.gpu_lock import hold_gpu

    own = {"XDG_RUNTIME_DIR": str(tmp_path), "LD_LIBRARY_PATH": str(nvml)}
    command = [sys.executable, "-m", "budgetrl", "run", "quickstart", "--hours", "20m"]
    command += ["--set", "engine.device=cuda", "--force", "versions"]
    command += ["--out", str(tmp_path / "runs"), "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        with hold_gpu("GPU-stand-in", Path("/runs/first"), ends_at=0.0):
            done = subprocess.run(
                command, env=os.environ | own, capture_output=True, text=True, check=False
            )
    assert done.returncode == ExitCode.REFUSED
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "HardwareError"
    assert "GPU-stand-in is taken by /runs/first" in error["message"]
    assert list((tmp_path / "runs").iterdir()) == []
