import json
from pathlib import Path

import peft
import pytest
import torch
import transformers

from budgetrl.errors import ModelError
from budgetrl.estimation.shapes import find_shape, known_models, shape_from_config

# As the hub's safetensors index counts them.
PARAMS = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-Math-1.5B": 1_543_714_304,
    "agentica-org/DeepScaleR-1.5B-Preview": 1_777_088_000,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "microsoft/phi-4": 14_659_507_200,
    "google/gemma-2-2b-it": 2_614_341_888,
    "google/gemma-3-1b-it": 999_885_952,
}

# Printed by Unsloth at the start of real runs.
LORA = {
    ("meta-llama/Llama-3.2-1B-Instruct", 32): 22_544_384,
    ("meta-llama/Llama-3.2-3B-Instruct", 64): 97_255_424,
    ("Qwen/Qwen3-4B", 32): 66_060_288,
    ("Qwen/Qwen3-8B", 32): 87_293_952,
    ("meta-llama/Llama-3.1-8B-Instruct", 32): 83_886_080,
}


@pytest.mark.parametrize(("model", "params"), PARAMS.items())
def test_parameters_are_counted_exactly(model: str, params: int) -> None:
    assert find_shape(model).params == params


@pytest.mark.parametrize(("case", "params"), LORA.items())
def test_lora_parameters_equal_those_of_real_logs(case: tuple[str, int], params: int) -> None:
    model, rank = case
    assert find_shape(model).lora_params(rank) == params


@pytest.mark.parametrize(
    ("model", "kv", "r8", "r256"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", 28_672, 9.23e6, 295.4e6),
        ("meta-llama/Llama-3.2-1B-Instruct", 32_768, 5.64e6, 180.4e6),
        ("Qwen/Qwen3-0.6B", 114_688, 5.05e6, 161.5e6),
    ],
)
def test_kv_and_adapter_sizes_are_those_of_the_published_table(
    model: str, kv: int, r8: float, r256: float
) -> None:
    shape = find_shape(model)
    assert shape.kv_bytes_per_token() == kv
    assert shape.lora_params(8) == pytest.approx(r8, rel=2e-3)
    assert shape.lora_params(256) == pytest.approx(r256, rel=2e-3)


def test_lora_counts_only_the_targets() -> None:
    shape = find_shape("Qwen/Qwen2.5-1.5B-Instruct")
    assert shape.lora_params(1, ["q_proj", "v_proj"]) == 28 * (1536 + 1536 + 1536 + 256)
    assert shape.lora_params(8, ["lm_head"]) == 8 * (1536 + 151936)
    with pytest.raises(ModelError, match="fc1"):
        shape.lora_params(8, ["fc1"])


def test_an_unknown_model_names_near_ones_and_the_way_by_config() -> None:
    with pytest.raises(ModelError) as caught:
        find_shape("Qwen/Qwen2.5-1.5B-Instuct")
    assert "Qwen/Qwen2.5-1.5B-Instruct" in caught.value.hint
    assert "config.json" in caught.value.hint


def test_quantised_copies_share_the_shape() -> None:
    copy = find_shape("unsloth/Qwen2.5-7B-Instruct-bnb-4bit")
    assert copy.params == find_shape("Qwen/Qwen2.5-7B-Instruct").params


def test_any_model_works_from_its_config_json(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen3",
        "num_hidden_layers": 28,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "max_position_embeddings": 40960,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for reference in (str(tmp_path), str(tmp_path / "config.json")):
        assert find_shape(reference).params == 596_049_920


CONFIG = (
    '{"num_hidden_layers": 2, "intermediate_size": 8, "vocab_size": 9, '
    '"max_position_embeddings": 99, "num_attention_heads": %s, "hidden_size": %s}'
)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[]", "not a model's config.json"),
        ("{", "not JSON"),
        ('{"num_attention_heads": 4}', "has no num_hidden_layers"),
        ('{"num_attention_heads": 4, "num_experts": 8}', "mixture of experts"),
        (CONFIG % ("0", "64"), "config.json"),
        (CONFIG % ("4", "-5"), "describes no model"),
        (CONFIG % ("4", "Infinity"), "config.json"),
        (CONFIG % ("4", f"1{'0' * 400}"), "describes no model"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_config_says_what_is_wrong(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=complaint):
        find_shape(str(tmp_path))


def test_the_small_bundled_model_has_a_shape_too() -> None:
    assert find_shape("asset:tiny/quickstart").params == 595_840


def test_windows_are_positive_and_the_math_model_is_short() -> None:
    assert all(shape.window > 0 for shape in known_models().values())
    assert find_shape("Qwen/Qwen2.5-Math-1.5B").window == 4096


SMALL = {
    "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64,
    "vocab_size": 288, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
GROUPED = (
    *("phi3", "glm", "glm4", "nemotron", "apertus", "starcoder2", "olmo2", "stablelm", "cohere"),
    *("granite", "smollm3", "exaone4", "ministral", "ernie4_5", "qwen3"),
)


@pytest.mark.parametrize("family", [*GROUPED, "phi", "gpt_neox"])
def test_adapters_of_other_families_are_counted_as_peft_makes_them(family: str) -> None:
    sizes = SMALL | {"num_key_value_heads": 2, "head_dim": 8} if family in GROUPED else SMALL
    config = transformers.AutoConfig.for_model(family, **sizes)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
        weights = sum(weight.numel() for weight in model.parameters())
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    shape = shape_from_config(config.to_dict(), family)
    assert shape.is_known
    assert shape.lora_params(4) == adapted.get_nb_trainable_parameters()[0]
    assert shape.params == pytest.approx(weights, rel=0.03)  # without biases


def test_layers_of_a_family_that_is_not_known_are_taken_for_a_llamas_and_that_is_told() -> None:
    config = transformers.AutoConfig.for_model("lfm2", **SMALL, num_key_value_heads=2)
    shape = shape_from_config(config.to_dict(), "lfm2")
    assert not shape.is_known
    assert shape.lora_params(4, ["w1"]) == 4 * 2 * (32 + 64)


def test_ends_of_paths_count_the_layers_that_they_name() -> None:
    shape = find_shape("Qwen/Qwen2.5-1.5B-Instruct")
    assert shape.lora_params(8, ["layers.3.self_attn.q_proj"]) == 8 * (1536 + 1536)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "ernie4_5_moe", "deepseek_v3"])
def test_a_mixture_of_experts_is_known_by_its_configuration(family: str) -> None:
    with pytest.raises(ModelError, match="mixture of experts"):
        shape_from_config(transformers.AutoConfig.for_model(family).to_dict(), family)
