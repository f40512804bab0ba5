"""A model's generation_config.json decides nothing but its end tokens, whatever it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from budgetrl.engine.base import SamplingSpec
from budgetrl.engine.decoding import Drawn
from budgetrl.engine.plain import PlainEngine, load_base
from budgetrl.engine.vllm_loop import NEUTRAL, sampling_arguments
from budgetrl.errors import ModelError
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[2]
ASSET = "asset:tiny/quickstart"
SETTINGS = ["lora.rank=4", "lora.alpha=8", "engine.threads=1"]
PROMPTS = [[1, 50, 60, 70], [1, 50, 61, 70, 71], [1, 52, 60]]
DIGIT = 20

HOSTILE: dict[str, Any] = {
    # lengths and ends
    "max_length": 5, "max_new_tokens": 3, "min_length": 40, "min_new_tokens": 16,
    "early_stopping": True, "max_time": 1e-6, "stop_strings": ["1", "2", "3"],
    # strategy
    "do_sample": True, "num_beams": 3, "use_mtp": True, "num_return_sequences": 3,
    "prompt_lookup_num_tokens": 3, "penalty_alpha": 0.6, "dola_layers": "low",
    "num_beam_groups": 3, "diversity_penalty": 5.0, "constraints": [1],
    "force_words_ids": [[DIGIT]], "low_memory": True,
    # cache and speed
    "use_cache": False, "cache_implementation": "static", "cache_config": {"nbits": 2},
    "max_cache_len": 4, "compile_config": {"backend": "eager"}, "disable_compile": False,
    "prefill_chunk_size": 1, "continuous_batching_config": {},
    # logits
    "temperature": 9.0, "top_k": 1, "top_p": 0.01, "min_p": 0.99, "top_h": 0.01,
    "typical_p": 0.01, "epsilon_cutoff": 0.9, "eta_cutoff": 0.9, "repetition_penalty": 2.0,
    "encoder_repetition_penalty": 2.0, "length_penalty": -9.0, "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1, "bad_words_ids": [[i] for i in range(DIGIT, 90)],
    "renormalize_logits": True, "forced_bos_token_id": 7, "forced_eos_token_id": 7,
    "remove_invalid_values": True, "exponential_decay_length_penalty": [1, 9.0],
    "suppress_tokens": list(range(DIGIT, 90)), "begin_suppress_tokens": list(range(DIGIT, 90)),
    "sequence_bias": [[[DIGIT], 50.0]], "token_healing": True, "guidance_scale": 5.0,
    "watermarking_config": {"greenlist_ratio": 0.1, "bias": 50.0},
    # outputs
    "output_attentions": True, "output_hidden_states": True, "output_scores": True,
    "output_logits": True, "return_dict_in_generate": True,
    # tokens
    "pad_token_id": 3, "bos_token_id": 9, "decoder_start_token_id": 9,
    # assistants
    "is_assistant": True, "num_assistant_tokens": 2, "num_assistant_tokens_schedule": "heuristic",
    "assistant_confidence_threshold": 0.99, "max_matching_ngram_size": 1,
    "assistant_early_exit": 2, "assistant_lookbehind": 1, "target_lookbehind": 1,
    "assistant_ensemble_weight": 0.5, "speculation_type": "lookahead",
    # no fields: what transformers would refuse or take over as they are
    "logits_processor": [1], "custom_generate": "nobody/nothing", "trust_remote_code": True,
}  # fmt: skip
"""Values that would change, end or break completions if anybody read them."""
NOT_SAMPLING = {"eos_token_id", "transformers_version", "_commit_hash", "_from_model_config"}


def folder_with(folder: Path, generation: dict[str, Any]) -> Recipe:
    """A recipe for the shipped model with another generation_config.json."""
    folder.mkdir(exist_ok=True)
    for file in Path(local_path(ASSET)).iterdir():
        if file.name != "generation_config.json" and not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return load_recipe("quickstart", [*SETTINGS, f"model.id={folder}"]).recipe


def drawn(engine: PlainEngine) -> Drawn:
    return engine.draw(PROMPTS, [1, 2, 3], SamplingSpec(1.0, 1.0, 12), lambda: False)


def check_same(made: Drawn, wanted: Drawn) -> None:
    assert (made.ids, made.finished) == (wanted.ids, wanted.finished)
    assert made.entropy_sum == pytest.approx(wanted.entropy_sum, rel=1e-5)


@pytest.fixture(scope="module")
def engine() -> PlainEngine:
    return PlainEngine.open(load_recipe("quickstart", SETTINGS).recipe)


@pytest.fixture(scope="module")
def plain(engine: PlainEngine) -> Drawn:
    return drawn(engine)


def test_the_table_knows_every_field_of_transformers() -> None:
    assert set(vars(transformers.GenerationConfig())) - NOT_SAMPLING <= set(HOSTILE)


@pytest.mark.parametrize("field", HOSTILE)
def test_no_field_changes_a_completion_or_its_entropy(
    field: str, engine: PlainEngine, plain: Drawn, tmp_path: Path
) -> None:
    recipe = folder_with(tmp_path / "model", {field: HOSTILE[field]})
    model = load_base(recipe.model.id, recipe)
    check_same(drawn(PlainEngine(model, engine.tokenizer, recipe)), plain)


def test_all_fields_together_change_nothing(plain: Drawn, tmp_path: Path) -> None:
    check_same(drawn(PlainEngine.open(folder_with(tmp_path / "model", HOSTILE))), plain)


def test_end_tokens_come_from_the_file_else_from_the_models_configuration(
    engine: PlainEngine, tmp_path: Path
) -> None:
    def ends(**generation: Any) -> frozenset[int]:
        return PlainEngine.open(folder_with(tmp_path / "model", generation)).end_ids

    assert ends(eos_token_id=[7, 9]) == engine.end_ids | {7, 9}
    assert ends(eos_token_id=7) == engine.end_ids | {7}
    assert ends(top_p=0.5) == engine.end_ids


@pytest.mark.parametrize("ends", ["</s>", [1, None], True, -1])
def test_end_tokens_that_are_none_are_named(ends: Any, tmp_path: Path) -> None:
    recipe = folder_with(tmp_path / "model", {"eos_token_id": ends})
    with pytest.raises(ModelError, match=r"eos_token_id = .* no token ids"):
        load_base(recipe.model.id, recipe)


def test_a_sampler_that_is_not_the_trainer_shows_in_the_gap(engine: PlainEngine) -> None:
    """Whatever makes them differ: here weights that change after the completions are drawn."""
    sampling = SamplingSpec(0.8, 0.9, 12, top_k=20)
    rollout = engine.rollout(PROMPTS, [1, 2, 3], sampling, lambda: False)
    assert rollout is not None

    def gap() -> float:
        measured = engine.logp_gap(PROMPTS, rollout, sampling.temperature)
        assert measured is not None
        return measured

    assert gap() < 1e-5
    norm = engine.model.get_base_model().model.norm.weight
    norm.data *= 1.5
    try:
        assert gap() > 0.05
    finally:
        norm.data /= 1.5


@pytest.mark.parametrize("family", ["gpt2", "opt", "phi"])
def test_a_models_own_dropout_is_no_part_of_the_training(family: str, tmp_path: Path) -> None:
    """GPT-2 and OPT have 0.1 in their config.json, Phi where its makers trained it so."""
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16} if family == "gpt2" else {
        "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "ffn_dim": 16,
        "intermediate_size": 16, "word_embed_proj_dim": 16, "resid_pdrop": 0.3,
        "attention_dropout": 0.3,
    }  # fmt: skip
    config = transformers.AutoConfig.for_model(family, vocab_size=64, **sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    recipe = load_recipe("quickstart", [*SETTINGS, f"model.id={tmp_path}"]).recipe
    tokens = torch.arange(8)[None] + 3
    with torch.no_grad():
        model = load_base(str(tmp_path), recipe).train()
        assert torch.equal(model(tokens).logits, model(tokens).logits)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).train()
        assert not torch.equal(theirs(tokens).logits, theirs(tokens).logits)


# --- vLLM

ASKED = {"temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "stop_token_ids"}
NO_EFFECT = {
    "prompt_logprobs": "scores of the prompt, which nobody reads",
    "logprob_token_ids": "scores of other tokens, which nobody reads",
    "spaces_between_special_tokens": "text; completions are decoded from ids here",
    "include_stop_str_in_output": "text",
    "output_text_buffer_length": "text",
    "output_kind": "how often unfinished requests are told of; only finished ones are read",
    "stream_interval": "the same",
    "skip_clone": "memory",
    "skip_reading_prefix_cache": "speed",
    "routed_experts_prompt_start": "routing data, which nobody asks for",
    "_eos_token_id": "set by the engine from the tokenizer",
    "_all_stop_token_ids": "set from stop_token_ids",
    "_bad_words_token_ids": "set from bad_words",
}  # fmt: skip


def test_every_field_of_vllm_is_the_recipes_or_neutral_or_without_effect() -> None:
    """vLLM 0.30.0's fields as its wheel has them (docs/arguments.json)."""
    known = json.loads((ROOT / "docs/arguments.json").read_text())["vllm 0.30.0"]
    assert ASKED | set(NEUTRAL) | set(NO_EFFECT) == set(known["SamplingParams"])
    spec = SamplingSpec(0.7, 0.9, 4, top_k=5, min_p=0.1)
    assert set(sampling_arguments(spec, 1, [9])) == ASKED | set(NEUTRAL)
