"""The adapter of a run leaves it ready for others: base, revision, weights and an honest card."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from budgetrl.account.evaluated import read_run
from budgetrl.errors import ExitCode
from budgetrl.evaluation.target import find_target
from budgetrl.events import RunFinished
from budgetrl.report.card import model_card
from budgetrl.rundir import RunDir
from budgetrl.supervise.export import export_adapter
from budgetrl.types import StopReason

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "example_run"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A finished run."""
    return RunDir(Path(shutil.copytree(EXAMPLE, tmp_path / "run")))


def change(run: RunDir, file: str, table: str, /, **values: Any) -> None:
    document = run.read_json(file)
    inner = document["recipe"] if file == "recipe.resolved.json" else document
    inner[table] = (inner[table] or {}) | values
    run.write_json(file, document)


def metadata(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---")[1])
    return found


def test_base_and_revision_are_those_of_the_hub_wherever_the_engine_loaded_them_from(
    run: RunDir,
) -> None:
    change(run, "recipe.resolved.json", "model", id="Qwen/Qwen3-0.6B")
    change(run, "manifest.json", "engine", model_revision="c1899de289a04d12")
    folder = export_adapter(run)
    assert folder == run.path / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"], config["task_type"]) == (
        "Qwen/Qwen3-0.6B",
        "c1899de289a04d12",
        "CAUSAL_LM",
    )
    (checkpoint,) = run.checkpoints()
    weights = "adapter_model.safetensors"
    assert (folder / weights).samefile(checkpoint.path / weights), "it takes no room"
    assert {file.name for file in folder.iterdir()} == {weights, "adapter_config.json", "README.md"}


def test_the_card_says_what_came_out_and_how_to_load_it(run: RunDir) -> None:
    change(run, "recipe.resolved.json", "model", id="Qwen/Qwen3-0.6B", revision="abc123")
    change(run, "recipe.resolved.json", "data", id="knoveleng/open-rs", path=None)
    result = json.loads((EXAMPLE / "result.json").read_text())
    steps = result["steps"]
    card = model_card(read_run(run), steps)
    head = metadata(card)
    assert (head["base_model"], head["base_model_relation"]) == ("Qwen/Qwen3-0.6B", "adapter")
    assert (head["library_name"], head["datasets"]) == ("peft", ["knoveleng/open-rs"])
    assert "license" not in head
    recorded = result["difference"]["heldout"]
    gain = re.search(r"\| heldout \| 1 \| .* \| ([+-][\d.]+) \(", card)
    assert gain is not None
    assert float(gain[1]) == pytest.approx(100 * recorded["pass_at"]["1"], abs=0.05)
    assert f"the adapter after {steps} of {steps} updates" in card
    assert "vllm serve Qwen/Qwen3-0.6B --revision abc123 --enable-lora --max-lora-rank 64" in card
    assert 'FastLanguageModel.from_pretrained("adapter")' in card
    assert 'AutoPeftModelForCausalLM.from_pretrained("adapter")' in card


def test_a_run_without_a_final_evaluation_claims_no_gain(run: RunDir) -> None:
    stamp = {"elapsed_s": 1e6, "spent_usd": None, "attempt": 1}
    with run.writer(lambda: stamp) as events:
        end = StopReason.INTERRUPTED
        events.write(
            RunFinished(stop_reason=end, exit_code=ExitCode.INTERRUPTED, steps=41, train_s=1)
        )
    card = model_card(read_run(run), 41)
    assert "no gain is claimed" in card
    assert "| before |" not in card


def test_foreign_text_stays_text(run: RunDir) -> None:
    hostile = "x\n---\nlicense: mit\n<script>alert(1)</script> [a](http://b) \x1b[2J"
    change(run, "recipe.resolved.json", "recipe", name=hostile)
    change(run, "recipe.resolved.json", "model", id=hostile)
    change(run, "recipe.resolved.json", "prompt", system=hostile)
    card = model_card(read_run(run), 41)
    assert set(metadata(card)) == {"library_name", "pipeline_tag", "tags"}
    body = card.split("---", 2)[2]
    assert "\n---" not in body
    assert "<script>" not in body.replace("\\<script\\>", "")
    assert "](http" not in body.replace("\\](http", "")
    assert "\x1b" not in body


KILLED = """
import os, pathlib, signal, sys
from budgetrl.rundir import RunDir
from budgetrl.supervise.export import export_adapter
replace, files = pathlib.Path.replace, []

def killed(file, target):
    files.append(target)
    if len(files) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(file, target)

pathlib.Path.replace = killed
export_adapter(RunDir(pathlib.Path(sys.argv[1])))
"""
"""Exports, and is dead when it would put the so-many-th file in its place."""


@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_a_killed_export_left_half_written_goes_and_all_files_have_one_mode(
    run: RunDir, number: int
) -> None:
    command = [sys.executable, "-c", KILLED, str(run.path), str(number)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    left = [file.name for file in run.adapter.glob(".*.tmp")]
    assert len(left) == 1, "it was killed while it wrote"
    run.clear_temporary()  # as the next worker does as it starts
    assert not list(run.adapter.glob(".*"))
    export_adapter(run)
    files = list(run.adapter.iterdir())
    assert len(files) == 3
    assert len({file.stat().st_mode for file in files}) == 1


def test_a_run_without_a_checkpoint_leaves_no_folder(run: RunDir) -> None:
    shutil.rmtree(run.path / "checkpoints")
    assert export_adapter(run) is None
    assert not (run.path / "adapter").exists()


def test_an_evaluation_of_the_folder_is_one_of_the_run(run: RunDir) -> None:
    """With the run's own prompt, and filed in the run."""
    export_adapter(run)
    target = find_target(str(run.path / "adapter"))
    assert target.adapter == run.checkpoints()[-1].path
    assert target.run is not None and target.run.path == run.path
