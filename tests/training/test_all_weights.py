"""lora.rank = "full": all weights are trained; a run of it is killed, resumed and exported."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from budgetrl.cli import main
from budgetrl.engine.merging import drawing_in
from budgetrl.engine.plain import PlainEngine
from budgetrl.errors import RecipeError
from budgetrl.estimation.estimate import estimate
from budgetrl.evaluation.target import find_target
from budgetrl.hardware import find_gpu
from budgetrl.history import read_history
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.base import AlphaPolicy, rank_order
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import RunDir, list_runs
from budgetrl.study.arms import arms_of, family_of
from budgetrl.training.checkpoints import load_trained, save_trained
from budgetrl.training.preflight import try_saving

STEPS = 4
SETTINGS = {
    "lora.rank": "full",
    "schedule.learning_rate": 1e-4,
    "schedule.stop_after_steps": STEPS,
    "grpo.beta": 0.01,  # the reference is the base, after a resume too
    "signal.skip": "off",
    "batch.prompts_per_step": 4,
    "batch.micro_batch": 8,
    "checkpoint.every_steps": 1,
    "eval.heldout.samples": 1,
    "eval.heldout.k": "[1]",
    "entropy.prompts": 0,
}
SAME = ("reward_mean", "loss", "grad_norm", "kl", "tokens")
BASE = Path(local_path("asset:tiny/quickstart"))


def start(out: Path) -> "subprocess.Popen[str]":
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "budgetrl", "run", "quickstart", "--hours", "20m", *sets]
    command += ["--out", str(out), "--display", "none", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunDir]:
    """An uninterrupted run, and one whose processes were killed in the third update."""
    straight, broken = tmp_path_factory.mktemp("straight"), tmp_path_factory.mktemp("broken")
    whole = start(straight)
    _, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    killed = start(broken)
    for _ in range(3000):
        found = list_runs(broken)
        if found and found[0].completions_file(3).exists():
            break
        time.sleep(0.05)
    run = found[0]
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    for process in (killed.pid, *map(int, children)):
        os.kill(process, signal.SIGKILL)
    killed.wait()
    resume = [sys.executable, "-m", "budgetrl", "resume", str(run.path), "--display", "none"]
    done = subprocess.run([*resume, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list_runs(straight)[0], run


def test_killed_and_resumed_it_makes_the_same_updates(runs: tuple[RunDir, RunDir]) -> None:
    straight, resumed = (read_history(run).steps for run in runs)
    assert [step.step for step in resumed] == list(range(1, STEPS + 1))
    for a, b in zip(straight, resumed, strict=True):
        assert [getattr(a, name) for name in SAME] == [getattr(b, name) for name in SAME]
    assert all(step.kl for step in straight[1:])  # against the base, not against itself
    weights = [load_file(run.checkpoint_path(STEPS) / "model.safetensors") for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_every_weight_has_moved_and_is_there_as_float32(runs: tuple[RunDir, RunDir]) -> None:
    trained = load_file(runs[0].checkpoint_path(STEPS) / "model.safetensors")
    base = load_file(BASE / "model.safetensors")
    assert trained.keys() == base.keys()
    moved = [name for name in base if not torch.equal(base[name].float(), trained[name])]
    assert len(moved) == len(base)
    assert {weight.dtype for weight in trained.values()} == {torch.float32}


def test_it_is_evaluated_reported_and_exported_as_a_model(
    runs: tuple[RunDir, RunDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[0]
    target = find_target(str(run.path))
    assert (target.step, target.recipe.lora.is_full) == (STEPS, True)
    assert not (run.path / "adapter").exists()
    assert "all weights" in (run.path / "report" / "report.md").read_text()
    assert main(["export", str(run.path), "--to", "adapter", "--out", str(tmp_path / "a")]) == 2
    capsys.readouterr()
    out = tmp_path / "model"
    assert main(["export", str(run.path), "--to", "merged", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dtype"] == "float32"
    assert found["projection"] == pytest.approx(1.0, abs=1e-4)
    card = (out / "README.md").read_text()
    assert "adapter" not in card.split("## Use")[1]
    again = find_target(str(out))
    engine = PlainEngine.open(again.recipe, None)
    held = dict(engine.model.get_base_model().named_parameters())
    trained = load_file(run.checkpoint_path(STEPS) / "model.safetensors")
    name = "model.embed_tokens.weight"
    assert torch.allclose(held[name], trained[name], atol=1e-7)


def test_what_it_needs_is_in_the_estimate() -> None:
    sets = ("lora.rank=full", "engine.name=plain", "optimizer.name=adamw_8bit")
    full = load_recipe("deepscaler_r64", (*sets, "grpo.beta=0.0")).recipe
    lora = load_recipe("deepscaler_r64", ("engine.name=plain",)).recipe
    card = find_gpu("H100")
    one, two = estimate(full, card), estimate(lora, card)
    params = one.scenario.shape.params
    memory = one.memory
    assert memory.adapter == 0
    assert memory.weights == (4 + 2) * params  # float32, and as the passes take them
    assert memory.gradients == 4 * params
    assert memory.optimizer == 2 * params
    with_reference = estimate(load_recipe("deepscaler_r64", sets).recipe, card)
    assert with_reference.memory.weights == memory.weights + 4 * params
    assert one.disk.checkpoints > 7 * 4 * params > 5 * two.disk.checkpoints


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (("lora.alpha=8",), "lora.alpha says"),
        (("lora.dropout=0.1", "lora.alpha=8"), "lora.alpha and lora.dropout say"),
        (("model.load_in_4bit=true",), "4 bits"),
        (("engine.name=unsloth", "engine.device=cuda"), "Unsloth refuses"),
    ],
)
def test_what_contradicts_it_is_refused(sets: tuple[str, ...], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe("quickstart", ("lora.rank=full", *sets))


def test_what_was_said_of_an_adapter_goes_with_it_and_that_is_told() -> None:
    loaded = load_recipe("quickstart", ("lora.rank=full",))
    assert loaded.recipe.lora.alpha is None
    assert any("dropped with the adapter: lora.alpha" in note for note in loaded.notes)
    back = load_recipe("quickstart", ("lora.rank=full", "lora.alpha=unset"))
    assert back.recipe.lora.scale is None


def test_a_study_has_an_arm_of_all_weights_that_says_what_else_it_sets() -> None:
    lora, full = arms_of(family_of("deepscaler"), (64, "full"), 1, (AlphaPolicy.FIXED,))
    one, other = lora.load().recipe, full.load().recipe
    assert other.lora.is_full
    assert other.schedule.learning_rate == pytest.approx(one.schedule.learning_rate / 10)
    assert (other.engine.name, other.batch.micro_batch) == ("plain", 1)
    assert "rank full" in full.label and "learning_rate" in full.label
    several = arms_of(family_of("quickstart"), (8, "full"), 1, list(AlphaPolicy))
    assert sum(arm.values["lora.rank"] == "full" for arm in several) == 1  # it has no alpha
    assert rank_order("full") > rank_order(512) > rank_order(None)


def test_it_draws_in_the_type_of_its_passes_and_has_the_same_bits_afterwards() -> None:
    model = PlainEngine.open(load_recipe("quickstart", ("lora.rank=full",)).recipe).model
    before = {name: (weight, weight.data.clone()) for name, weight in model.named_parameters()}
    with drawing_in(model, torch.bfloat16), torch.no_grad():
        assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.dtype is torch.bfloat16
    for name, weight in model.named_parameters():
        held, bits = before[name]
        assert weight is held
        assert torch.equal(weight.data, bits)


@pytest.mark.parametrize("family", ["gpt_neox", "qwen3_moe"])
def test_weights_that_have_other_names_in_files_are_read_back(family: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(
        family, vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    for name, names in (("num_experts", 2), ("moe_intermediate_size", 8)):
        if hasattr(config, name):
            setattr(config, name, names)
    model, other = (transformers.AutoModelForCausalLM.from_config(config) for _ in range(2))
    try_saving(model, tmp_path)
    save_trained(model, tmp_path)
    load_trained(other, tmp_path)
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))
    state = torch.get_rng_state()
    load_trained(other, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
