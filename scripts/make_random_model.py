"""A model of a real shape with random weights and the tiny model's tokenizer: no download needed.

Speed and memory depend on the shape alone, so this is what `scripts/gpu_check.sh` measures with.
Random weights rarely end an answer: lengths are at the limit.

    python scripts/make_random_model.py Qwen/Qwen2.5-1.5B-Instruct OUT
    python scripts/make_random_model.py Qwen/Qwen3-0.6B OUT --tiny    # for rehearsals on a CPU
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from budgetrl.estimation.shapes import ModelShape, find_shape
from budgetrl.recipe.assets import local_path

TOKENIZER = Path(local_path("asset:tiny/quickstart"))
TOKENIZER_FILES = ("tokenizer_config.json", "chat_template.jinja")
TINY = {"layers": 2, "hidden": 64, "heads": 2, "kv_heads": 1, "head_dim": 32, "intermediate": 128}


def config_of(shape: ModelShape) -> transformers.PretrainedConfig:
    """The configuration of a shape, with the end tokens of the tiny tokenizer."""
    ends = json.loads((TOKENIZER / "generation_config.json").read_text(encoding="utf-8"))
    return transformers.AutoConfig.for_model(
        shape.model_type,
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.window,
        eos_token_id=ends["eos_token_id"],
        pad_token_id=ends.get("pad_token_id"),
        bos_token_id=None,
    )


def write_tokenizer(out: Path, vocab: int) -> None:
    """The tiny tokenizer, with a word for every id that the model may sample."""
    tokenizer = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))
    known = len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"])
    words = {f"t{number}": number for number in range(known, vocab)}
    tokenizer["model"]["vocab"] |= words
    (out / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    for name in TOKENIZER_FILES:
        shutil.copyfile(TOKENIZER / name, out / name)


def main() -> None:
    """Make one model folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", help="a hub id that budgetrl knows the shape of")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true", help="the same family with two thin layers")
    options = parser.parse_args()
    shape = find_shape(options.shape)
    if options.tiny:
        shape = replace(shape, vocab=512, window=4096, **TINY)
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() and not options.tiny else "cpu"
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config_of(shape), dtype=torch.bfloat16
        )
    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out)
    write_tokenizer(options.out, shape.vocab)


if __name__ == "__main__":
    main()
