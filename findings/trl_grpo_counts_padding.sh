#!/usr/bin/env bash
# trl 1.14.2: GRPOTrainer trains GPT-2 and BioGPT at other positions than their completions are drawn at.
# The trainer pads prompts on the left and gives no `position_ids` to the forward pass that makes
# log-probabilities. Models with learned positions then count the padding too, while `generate` counts
# from the first real token. So a completion's log-probability depends on how long the other prompts
# of its batch are. No error, no warning; models with relative positions, such as Llama and Qwen, are
# not touched.
#
# Seen with trl 1.14.2, transformers 5.17.0, torch 2.13.0, on a CPU; the log-probability of one
# completion of 5 tokens, alone and behind 6 tokens of padding:
#   GPT-2 -42.7229 -36.8217, BioGPT -34.5951 -36.7308, Llama -38.1951 -38.1951
# Exits non-zero if that changes. Ours: a model for which padding counts is refused before anything
# is paid for (budgetrl/training/scoring.py, docs/own_model.md).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "torch==2.13.0" "transformers==5.17.0" "trl==1.14.2"
cd "$place"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - 2>/dev/null <<'PYTHON' | tail -4
import datasets
import torch
from tokenizers import Tokenizer, models
from torch.nn.functional import pad
from transformers import (
    AutoModelForCausalLM, BioGptConfig, GPT2Config, LlamaConfig, PreTrainedTokenizerFast,
)
from trl import GRPOConfig, GRPOTrainer

words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1")
prompts = datasets.Dataset.from_dict({"prompt": ["w2 w3 w4"] * 2})
shape = dict(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=2, initializer_range=0.5,
)
ends = dict(bos_token_id=0, eos_token_id=1)
configs = {
    "GPT-2": GPT2Config(**ends, vocab_size=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5),
    "BioGPT": BioGptConfig(**shape),
    "Llama": LlamaConfig(**shape, num_key_value_heads=2),
}
row = torch.arange(2, 12)[None]
changes = {}
for name, config in configs.items():
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    trainer = GRPOTrainer(
        model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(
            output_dir=".", use_cpu=True, bf16=False, report_to="none", num_generations=2,
            per_device_train_batch_size=2,
        ),
        train_dataset=prompts,
        processing_class=tokenizer,
    )
    model.eval()
    sums = []
    for gap in (0, 6):
        ids, mask = pad(row, (gap, 0)), pad(torch.ones_like(row), (gap, 0))
        with torch.no_grad():
            made = trainer._get_per_token_logps_and_entropies(model, ids, mask, 5)[0]
        sums.append(made.sum().item())
    changes[name] = abs(sums[1] - sums[0])
    print(f"{name} {sums[0]:.4f} {sums[1]:.4f}")
assert changes["GPT-2"] > 1 and changes["BioGPT"] > 1 and changes["Llama"] < 1e-3, changes
print("as stated")
PYTHON
