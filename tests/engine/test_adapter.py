"""A saved adapter is a PEFT adapter that others can load, and the trained one to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import torch

from budgetrl.engine.plain import PlainEngine
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.training.checkpoints import load_trained, save_trained

RECIPE = load_recipe("quickstart", ["lora.rank=4", "lora.alpha=8", "engine.threads=1"]).recipe
TOKENS = torch.arange(60).reshape(2, 30) + 48


def trained(seed: int = 1) -> PlainEngine:
    """An engine whose adapter is not zero."""
    engine = PlainEngine.open(RECIPE)
    noise = torch.Generator().manual_seed(seed)
    for name, weight in engine.model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(0.02 * torch.randn(weight.shape, generator=noise))
    return engine


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(TOKENS).logits
    return found


def test_peft_alone_loads_a_saved_adapter_bit_for_bit(tmp_path: Path) -> None:
    engine = trained()
    save_trained(engine.model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == local_path(RECIPE.model.id)
    assert (config["task_type"], config["r"], config["lora_alpha"]) == ("CAUSAL_LM", 4, 8)
    assert config["inference_mode"] is True
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(str(tmp_path))
    assert torch.equal(logits(loaded), logits(engine.model))
    with loaded.disable_adapter():
        assert not torch.equal(logits(loaded), logits(engine.model))


def test_an_engine_opens_on_a_saved_adapter_and_can_go_on_training(tmp_path: Path) -> None:
    engine = trained()
    save_trained(engine.model, tmp_path)
    opened = PlainEngine.open(RECIPE, adapter=tmp_path)
    assert torch.equal(logits(opened.model), logits(engine.model))
    assert opened.describe()["trainable_parameters"] == engine.describe()["trainable_parameters"]


def test_weights_of_an_earlier_step_replace_those_of_the_model(tmp_path: Path) -> None:
    earlier, later = trained(1), trained(2)
    save_trained(earlier.model, tmp_path)
    assert not torch.equal(logits(later.model), logits(earlier.model))
    load_trained(later.model, tmp_path)
    assert torch.equal(logits(later.model), logits(earlier.model))


def test_the_reference_adapter_of_a_kl_term_is_not_saved(tmp_path: Path) -> None:
    engine = trained()
    engine.model.add_adapter("ref", engine.model.peft_config["default"])  # as TRL does
    save_trained(engine.model, tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
