"""LoRA on any layer that exists: tied heads and embeddings too, and no name that is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from budgetrl.engine.applied import prove_applied
from budgetrl.engine.base import SamplingSpec
from budgetrl.engine.fresh import layer_paths
from budgetrl.engine.merging import lora_layers, merged
from budgetrl.engine.plain import PlainEngine
from budgetrl.engine.unsloth_settings import refuse_unkept
from budgetrl.errors import RecipeError
from budgetrl.estimation.shapes import shape_from_config
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.targets import check_targets

TIED = ('["lm_head", "q_proj"]', '["embed_tokens"]', '["embed_tokens", "lm_head", "v_proj"]')
PROMPTS = [[1, 50, 60, 70], [1, 52, 60]]
TOKENS = torch.tensor([[1, 50, 60, 70, 71, 30]])


def recipe(targets: str) -> Recipe:
    settings = ["lora.rank=4", "lora.alpha=8", "engine.threads=1", f"lora.targets={targets}"]
    return load_recipe("quickstart", settings).recipe


def trained(targets: str) -> PlainEngine:
    engine = PlainEngine.open(recipe(targets))
    noise = torch.Generator().manual_seed(1)
    for layer in lora_layers(engine.model):
        for name, weight in layer.named_parameters():
            if "lora_" in name:
                weight.data += 0.05 * torch.randn(weight.shape, generator=noise)
    return engine


@pytest.mark.parametrize("targets", TIED)
def test_a_tied_head_or_embedding_is_sampled_as_it_is_trained(targets: str, tmp_path: Path) -> None:
    engine = trained(targets)
    base = engine.model.get_base_model()
    tie = [m.get_base_layer() if hasattr(m, "get_base_layer") else m
           for m in (base.get_input_embeddings(), base.get_output_embeddings())]  # fmt: skip
    assert tie[0].weight is tie[1].weight, "the shipped model is tied"
    before = tie[0].weight.clone()
    with torch.no_grad():
        unmerged = engine.model(TOKENS).logits
        with merged(engine.model):
            inside = engine.model(TOKENS).logits
        outside = engine.model(TOKENS).logits
    assert torch.allclose(inside, unmerged, atol=1e-4)
    assert torch.equal(outside, unmerged)
    assert tie[0].weight is tie[1].weight and torch.equal(tie[0].weight, before)
    # The same for an adapter that PEFT saved somewhere else.
    engine.model.save_pretrained(str(tmp_path))
    again = PlainEngine.open(recipe(targets), tmp_path)
    assert prove_applied(again, PROMPTS)
    sampling = SamplingSpec(1.0, 1.0, 8)
    rollout = again.rollout(PROMPTS, [1, 2], sampling, lambda: False)
    assert rollout is not None
    gap = again.logp_gap(PROMPTS, rollout, 1.0)
    assert gap is not None and gap < 1e-4


def test_a_fresh_adapter_of_an_embedding_is_zero_and_a_changed_one_is_not() -> None:
    """PEFT starts an embedding's A at zero, and every other layer's B."""
    engine = PlainEngine.open(recipe('["embed_tokens", "v_proj"]'))
    assert engine.adapter_is_zero()
    assert not prove_applied(engine, PROMPTS)
    engine.model.get_input_embeddings().lora_embedding_A["default"].data[0, 0] = 1e-3
    assert not engine.adapter_is_zero()


def test_targets_that_do_not_exist_are_refused_before_anything_is_paid(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "budgetrl", "run", "quickstart", "--out", str(tmp_path)]
    command += ["--set", 'lora.targets=["q_proj", "v_prj"]', "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has no layer v_prj. Did you mean v_proj? It has q_proj, " in done.stderr
    assert "down_proj, embed_tokens, lm_head." in done.stderr


@pytest.mark.parametrize(
    ("targets", "missing"),
    [
        (["q_proj", "lm_head"], None),
        (["layers.0.self_attn.q_proj"], None),
        (["model.layers.3.mlp.up_proj"], None),
        (["model.layers.4.mlp.up_proj"], "model.layers.4.mlp.up_proj"),
        (["query_key_value", "q_proj", "fc1"], "query_key_value and no fc1"),
        (["proj"], "proj"),
        (["norm"], "norm"),
    ],
)
def test_the_loaded_model_is_asked_whatever_its_architecture(
    targets: list[str], missing: str | None
) -> None:
    wanted = recipe("all-linear")
    wanted = wanted.model_copy(
        update={"lora": wanted.lora.model_copy(update={"targets": tuple(targets)})}
    )
    if missing is None:
        PlainEngine.open(wanted)
        return
    with pytest.raises(RecipeError, match=f"has no layer {missing}\\."):
        PlainEngine.open(wanted)


@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"]
)
def test_the_layers_that_a_configuration_tells_of_are_those_of_the_model(family: str) -> None:
    config = transformers.AutoConfig.for_model(
        family, num_hidden_layers=2, hidden_size=16, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, intermediate_size=32, vocab_size=64, max_position_embeddings=64,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    told = shape_from_config(config.to_dict(), family).layer_paths
    assert told is not None
    assert set(told) == set(layer_paths(model))


def test_unsloth_is_not_asked_for_layers_that_it_would_train_whole() -> None:
    with pytest.raises(RecipeError, match=r"lora.targets = lm_head cannot be kept"):
        refuse_unkept(load_recipe("deepscaler_r64", ['lora.targets=["q_proj", "lm_head"]']).recipe)
    refuse_unkept(load_recipe("deepscaler_r64", ['lora.targets=["q_proj", "v_proj"]']).recipe)


def test_all_linear_names_nothing_that_could_be_missing() -> None:
    check_targets(recipe("all-linear"), [])
