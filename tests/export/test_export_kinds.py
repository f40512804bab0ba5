"""Adapters of other kinds and architectures: drawn, judged and merged as PEFT itself means them."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from budgetrl.cli import main
from budgetrl.engine.applied import prove_applied
from budgetrl.engine.merging import merged
from budgetrl.engine.plain import PlainEngine
from budgetrl.evaluation.target import find_target
from budgetrl.recipe.assets import local_path

BASE = Path(local_path("asset:tiny/quickstart"))
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dora": ("qwen2", {"use_dora": True}),
    "bias": ("gpt_neox", {"lora_bias": True}),
    "tied head": ("qwen2", {"target_modules": ["q_proj", "lm_head"]}),
    "tied embedding": ("qwen2", {"target_modules": ["q_proj", "embed_tokens"]}),
    "trained head": ("qwen2", {"modules_to_save": ["lm_head"]}),
    "transposed": ("gpt2", {}),
    "experts": ("mixtral", {}),
}
SIZES: dict[str, Any] = {
    "vocab_size": 288, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 256, "initializer_range": 0.2,
    "bos_token_id": None, "eos_token_id": 283, "pad_token_id": 284,
}  # fmt: skip
MORE = {
    "mixtral": {"num_local_experts": 2, "num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
}


def base_of(family: str, folder: Path) -> Path:
    """A random model of an architecture, tied unless it is GPT-NeoX, with the shipped tokenizer."""
    torch.manual_seed(1)
    sizes = {**SIZES, "tie_word_embeddings": family != "gpt_neox", **MORE.get(family, {})}
    config = transformers.AutoConfig.for_model(family, **sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(BASE / name, folder / name)
    return folder


def pefts_own(base: Path, folder: Path, **kind: Any) -> Any:
    """A model with an adapter that moves everything it trains, which is saved in the folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    wanted = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "target_modules": "all-linear"}
    model = peft.get_peft_model(model, peft.LoraConfig(**{**wanted, **kind}))
    torch.manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_is_drawn_and_merged_as_peft_means_it(
    kind: str, tmp_path: Path
) -> None:
    family, more = KINDS[kind]
    base = base_of(family, tmp_path / "base")
    model, row = pefts_own(base, tmp_path / "adapter", **more), torch.tensor([[1, 50, 60, 70, 71]])
    found = find_target(str(tmp_path / "adapter"))
    engine = PlainEngine.open(found.recipe, found.adapter)
    assert prove_applied(engine, [[1, 50, 60]])
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "adapter"), "--to", "merged", "--out", str(out)]) == 0
    alone = transformers.AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        wanted = model(row).logits
        with merged(engine.model):
            drawn = engine.model.get_base_model()(row).logits
        assert torch.allclose(drawn, wanted, atol=1e-4)
        assert torch.equal(engine.model.eval()(row).logits, wanted)
        assert torch.allclose(alone(row).logits, wanted, atol=1e-4)
    config = json.loads((out / "config.json").read_text())
    untied = kind in ("tied head", "tied embedding", "trained head")
    assert config["tie_word_embeddings"] is (family != "gpt_neox" and not untied)


@pytest.mark.parametrize(
    ("kind", "told"),
    [({"lora_bias": True}, "base layer has no bias"),
     ({"trainable_token_indices": [3]}, "TrainableTokensLayer")],
)  # fmt: skip
def test_what_has_no_place_in_the_weights_is_refused(
    kind: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = base_of("qwen2", tmp_path / "base")
    pefts_own(base, tmp_path / "adapter", target_modules=["o_proj"], **kind)
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "adapter"), "--to", "merged", "--out", str(out)]) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_what_lora_leaves_at_zero_may_have_learnt_all_the_same(tmp_path: Path) -> None:
    base = base_of("qwen2", tmp_path / "base")
    model = pefts_own(base, tmp_path / "adapter", modules_to_save=["norm"])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.zero_()
    model.save_pretrained(tmp_path / "adapter")
    found = find_target(str(tmp_path / "adapter"))
    engine = PlainEngine.open(found.recipe, found.adapter)
    assert engine.adapter_is_zero()
    assert prove_applied(engine, [[1, 50, 60]])
