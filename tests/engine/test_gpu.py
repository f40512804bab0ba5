"""What only a GPU can show. Skipped without one; a failure where BUDGETRL_REQUIRE_GPU=1.

Asserts on events, never on the text of a log. `scripts/gpu_check.sh` runs these first.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from budgetrl.events import Step
from budgetrl.hardware import detect_gpu
from budgetrl.rundir import RunDir, list_runs

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "scripts" / "gpu_check.toml")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2.5-0.5B's shape with random weights."""
    folder = tmp_path_factory.mktemp("model")
    script = ROOT / "scripts" / "make_random_model.py"
    subprocess.run([sys.executable, script, "Qwen/Qwen2.5-0.5B-Instruct", folder], check=True)
    return folder


def budgetrl(*arguments: str, exit_code: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "budgetrl", *arguments, "--display", "none", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == exit_code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module", params=["plain", "unsloth"])
def run(request: pytest.FixtureRequest, model: Path, tmp_path_factory: Any) -> RunDir:
    """Two updates of each engine."""
    engine = request.param
    if engine == "unsloth" and importlib.util.find_spec("unsloth") is None:
        pytest.skip("unsloth is not installed: bash scripts/install.sh gpu")
    values = (f"model.id={model}", f"engine.name={engine}", "sampling.max_tokens=128")
    flags = [part for value in values for part in ("--set", value)]
    out = tmp_path_factory.mktemp(engine)
    budgetrl("run", RECIPE, "--hours", "9m", "--out", str(out), *flags)
    return list_runs(out)[-1]


def steps(run: RunDir) -> list[Step]:
    return [event for event in run.events() if isinstance(event, Step)]


def test_torch_and_nvml_see_the_same_card() -> None:
    code = "import torch; p = torch.cuda.get_device_properties(0); print(p.name, p.total_memory)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, _, memory = done.stdout.strip().rpartition(" ")
    found = detect_gpu()
    assert found is not None
    assert found.name == name
    assert int(memory) / 2**30 == pytest.approx(found.total_gib, rel=0.03)


def test_a_run_makes_its_updates_and_says_what_memory_it_took(run: RunDir) -> None:
    found, made = detect_gpu(), steps(run)
    assert found is not None
    assert [step.step for step in made] == [1, 2]
    assert all(0 < (step.gpu_peak_gib or 0) <= found.total_gib for step in made)
    assert all(step.completions == 32 and step.tokens > 0 for step in made)
    assert run.read_json("manifest.json")["gpu"]["name"]


def test_sampler_and_trainer_agree(run: RunDir) -> None:
    """A stale adapter or a wrong template shows here first; plain has one model for both."""
    if run.read_json("recipe.resolved.json")["recipe"]["engine"]["name"] == "unsloth":
        gaps = [step.sampling_logp_diff_mean for step in steps(run)]
        assert all(gap is not None and gap < 0.1 for gap in gaps)


def test_a_resumed_run_goes_on_from_its_checkpoint(run: RunDir) -> None:
    finished = budgetrl("resume", str(run.path), "--hours", "9m")
    assert (finished["attempts"], finished["steps"]) == (2, 2)


def test_a_second_run_on_the_card_is_refused(model: Path, tmp_path: Path) -> None:
    from budgetrl.supervise.gpu_lock import hold_gpu

    found = detect_gpu()
    assert found is not None
    with hold_gpu(found.uuid, Path("/runs/first"), ends_at=0.0):
        refused = budgetrl(
            "run",
            RECIPE,
            *("--hours", "9m", "--out", str(tmp_path), "--set", "engine.name=plain"),
            exit_code=3,
        )
    assert "/runs/first" in refused["error"]["message"]


def test_the_quickstart_gains_on_the_gpu_what_it_gains_on_a_cpu(tmp_path: Path) -> None:
    """The intervals of both gains overlap."""
    flags = ["--set", "engine.device=cuda", "--set", "model.dtype=float32"]
    result = budgetrl("run", "quickstart", "--hours", "8m", "--out", str(tmp_path), *flags)
    low, high = result["difference"]["heldout"]["interval_95"]["1"]
    measured = json.loads((ROOT / "docs" / "measurements" / "quickstart.json").read_text())
    on_cpu = [row["difference"]["interval_95"]["1"] for row in measured["seeds"]]
    assert any(low <= cpu_high and high >= cpu_low for cpu_low, cpu_high in on_cpu)
