"""A new adapter on architectures that read some weights past their layers."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, FalconH1Config, JambaConfig, Qwen2Config

from budgetrl.engine.fresh import fresh_adapter, unreached
from budgetrl.errors import RecipeError
from budgetrl.recipe.load import load_recipe

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
JAMBA = JambaConfig(
    num_experts=1, mamba_d_state=8, use_mamba_kernels=False, attn_layer_period=2,
    attn_layer_offset=1, **SIZES,
)  # fmt: skip
FALCON = FalconH1Config(mamba_d_ssm=64, mamba_d_state=8, mamba_n_heads=4, **SIZES)


def on(config: Any, *sets: str) -> Any:
    torch.manual_seed(3)
    recipe = load_recipe("quickstart", ("lora.rank=4", "lora.alpha=8", *sets)).recipe
    return fresh_adapter(AutoModelForCausalLM.from_config(config), recipe, "base")


@pytest.mark.parametrize(
    ("config", "left_out"),
    [(Qwen2Config(**SIZES), ()), (JAMBA, ("dt_proj",)), (FALCON, ("out_proj",))],
)
def test_all_linear_is_every_layer_that_an_adapter_works_on(
    config: Any, left_out: tuple[str, ...]
) -> None:
    fresh = on(config)
    assert fresh.left_out == left_out
    assert not unreached(fresh.model)
    adapted = {
        name.split(".lora_")[0] for name, _ in fresh.model.named_parameters() if ".lora_" in name
    }
    assert not [name for name in adapted if name.endswith(left_out or ("none",))]
    assert [name for name in adapted if name.endswith("in_proj" if left_out else "o_proj")]


@pytest.mark.parametrize(("config", "name"), [(JAMBA, "dt_proj"), (FALCON, "out_proj")])
def test_a_layer_that_is_named_and_would_not_be_trained_is_refused(config: Any, name: str) -> None:
    with pytest.raises(RecipeError, match=f"would not use an adapter of {name}"):
        on(config, f'lora.targets=["q_proj", "{name}"]')
