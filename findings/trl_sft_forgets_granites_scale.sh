#!/usr/bin/env bash
# trl 1.14.2: SFTTrainer with its defaults trains IBM's Granite on another loss than the model's own.
# Its default loss, `chunked_nll`, makes logits of the last hidden states itself. It heeds Cohere's
# `logit_scale` and Gemma's `final_logit_softcapping`, but not Granite's `logits_scaling`, by which the
# model divides its logits, nor Falcon-H1's `lm_head_multiplier`. There is no error and no warning;
# `loss_type="nll"` is right. GRPOTrainer with use_liger_kernel=True makes logits in the same way.
#
# Seen with trl 1.14.2, transformers 5.17.0, torch 2.13.0, on a CPU:
#   the model's own loss 4.4982, chunked_nll (the default) 13.8942, nll 4.4982
# Exits non-zero if that changes. Ours: each way is tried on a few tokens, and where it is not the
# model's own the model makes its logits (budgetrl/engine/logits.py).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "torch==2.13.0" "transformers==5.17.0" "trl==1.14.2"
cd "$place"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - 2>/dev/null <<'PYTHON' | tail -1
import datasets
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, GraniteConfig, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

words = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1}, unk_token="<pad>"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")
ids = list(range(2, 22))
batch = {name: torch.tensor([ids]) for name in ("input_ids", "labels")}
batch["attention_mask"] = torch.ones_like(batch["input_ids"])


def losses(**settings):
    torch.manual_seed(1)
    config = GraniteConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, logits_scaling=8.0, initializer_range=1.0,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    own = model(**batch).loss.item()
    arguments = SFTConfig(output_dir=".", use_cpu=True, bf16=False, report_to="none", **settings)
    rows = datasets.Dataset.from_list([{"input_ids": ids}])
    trainer = SFTTrainer(model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    return own, trainer.compute_loss(trainer.model, dict(batch)).item()


own, default = losses()
_, whole = losses(loss_type="nll")
print(f"the model's own loss {own:.4f}, chunked_nll (the default) {default:.4f}, nll {whole:.4f}")
raise SystemExit(0 if abs(own - default) > 0.1 > 1e-3 > abs(own - whole) else 1)
PYTHON
