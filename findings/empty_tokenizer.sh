#!/usr/bin/env bash
# transformers makes up an empty tokenizer where a model's folder has no tokenizer.json.
#
# Seen on 2026-11-30 with transformers 5.17.0, tokenizers as it resolves: a folder that holds a Qwen2
# config.json and tokenizer_config.json, and no vocabulary (tokenizer.json, vocab.json, merges.txt),
# is loaded by AutoTokenizer.from_pretrained without an error. The tokenizer has a handful of special
# tokens, and ordinary text becomes no tokens at all. One would expect an OSError that names the file.
# A training on it runs: every prompt is empty. Exits 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "transformers==5.17.0" jinja2
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder/model" <<'PY'
import json
import sys
from pathlib import Path

import transformers

model = Path(sys.argv[1])
model.mkdir()
config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 151936}
(model / "config.json").write_text(json.dumps(config))
about = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
(model / "tokenizer_config.json").write_text(json.dumps(about))
tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
ids = tokenizer("How many primes are below 100?")["input_ids"]
print(f"transformers {transformers.__version__}: {len(tokenizer)} entries, {len(ids)} tokens: {ids}")
sys.exit(0 if len(tokenizer) < 10 and not set(ids) - set(tokenizer.all_special_ids) else 1)
PY
