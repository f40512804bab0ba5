"""Runs and evaluations with a model, data and a suite of a hub on 127.0.0.1, as users type them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hub_server import Hub
from hub_sets import model_files, put_open_rs, put_sets
from huggingface_hub import constants

from budgetrl.errors import ExitCode
from budgetrl.evaluation.judge import evaluate_target
from budgetrl.evaluation.specs import suite_specs
from budgetrl.evaluation.target import find_target
from budgetrl.rundir import RunDir, list_runs

MODEL = "tiny/quick"
RECIPE = """
[recipe]
name = "of_the_hub"

[model]
id = "tiny/quick"
dtype = "float32"

[lora]
rank = 4
alpha = 4

[data]
id = "knoveleng/open-rs"
columns = { level = "level" }

[prompt]
max_tokens = 64

[[rewards]]
name = "accuracy"

[grpo]
num_generations = 8

[batch]
prompts_per_step = 2
micro_batch = 16

[schedule]
learning_rate = 1e-3
stop_after_steps = 3

[sampling]
max_tokens = 48

[entropy]
prompts = 0

[engine]
name = "plain"
device = "cpu"
threads = 1
gradient_checkpointing = false

[[eval]]
suite = "aime24"
samples = 1
max_tokens = 8

[budget]
hours = 0.2
"""


class World(NamedTuple):
    """A hub, and commands that know no other."""

    hub: Hub
    folder: Path

    def start(self, *words: str, **more: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "HF_ENDPOINT": self.hub.url, "HF_HUB_OFFLINE": "0"}
        environment |= {"HF_HOME": str(self.folder / "hf"), "HF_HUB_DOWNLOAD_TIMEOUT": "1", **more}
        environment.pop("HF_TOKEN", None)
        command = [sys.executable, "-m", "budgetrl", *words]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            cwd=self.folder,
        )  # fmt: skip

    def call(self, *words: str, **more: str) -> tuple[int, str, str]:
        process = self.start(*words, **more)
        out, errors = process.communicate(timeout=300)
        return process.returncode, out, errors


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with Hub(folder / "hub") as hub:
        hub.put("model", MODEL, model_files())
        put_sets(hub)
        (folder / "r.toml").write_text(RECIPE)
        yield World(hub, folder)


class Went(NamedTuple):
    """A run that was interrupted after its first update, and went on after the branch had moved."""

    run: RunDir
    first: dict[str, Any]
    """Its manifest when it was interrupted."""
    resumed: str
    """What `resume` said."""
    result: dict[str, Any]


@pytest.fixture(scope="module")
def went(world: World) -> Went:
    begun = world.start("run", "r.toml", "--display", "plain", "--out", "runs")
    assert begun.stdout is not None
    assert any("update 1 of 3" in line for line in begun.stdout)
    begun.send_signal(signal.SIGINT)
    begun.communicate(timeout=120)
    assert begun.returncode == ExitCode.INTERRUPTED
    (run,) = list_runs(world.folder / "runs")
    first = run.read_json("manifest.json")
    world.hub.put("model", MODEL, model_files("strong"))
    put_open_rs(world.hub, 50)
    code, out, said = world.call("resume", str(run.path), "--json")
    assert code == 0, said
    return Went(run, first, said, json.loads(out))


def test_a_run_goes_on_with_the_commits_that_it_began_with(world: World, went: Went) -> None:
    assert went.result["stop_reason"] == "completed"
    assert went.result["steps"] == 3
    manifest = went.run.read_json("manifest.json")
    assert manifest["hub"] == went.first["hub"]
    assert set(manifest["hub"]) == {"model", "data", "eval.aime24"}
    commit = manifest["hub"]["model"]["commit"]
    assert manifest["engine"]["model_revision"] == commit
    assert manifest["data"]["fingerprint"] == went.first["data"]["fingerprint"]
    for name in ("model 'tiny/quick'", "data set 'knoveleng/open-rs'"):
        assert f"{name} has moved on the hub from" in went.resumed
    config = json.loads((went.run.path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (MODEL, commit)
    card = (went.run.path / "adapter" / "README.md").read_text()
    assert f"tiny/quick, revision {commit}" in card
    assert f"knoveleng/open-rs, revision {manifest['hub']['data']['commit']}" in card


def test_the_download_is_a_phase_of_its_own(went: Went) -> None:
    events = [json.loads(line) for line in (went.run.path / "events.jsonl").open()]
    phases = [event["name"] for event in events if event["kind"] == "phase"]
    assert phases.count("download") == 2
    assert phases.index("download") < phases.index("model")
    last = {event["repo"]: event for event in events if event["kind"] == "download"}
    assert set(last) == {MODEL, "knoveleng/open-rs", "HuggingFaceH4/aime_2024"}
    assert all(event["bytes"] == event["total_bytes"] > 0 for event in last.values())
    report = (went.run.path / "report" / "report.md").read_text()
    assert "| Download |" in report


def test_eval_of_a_run_has_its_base_and_asks_nothing(
    world: World, went: Went, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", world.hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(world.folder / "hf" / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    world.hub.log.clear()
    target = find_target(str(went.run.path))
    assert target.recipe.model.revision == went.first["hub"]["model"]["commit"]
    (one,) = evaluate_target(target, suite_specs(target.recipe, [], samples=1), world.folder)
    assert one.result is not None
    assert one.result.problems == 30
    assert world.hub.log == []
