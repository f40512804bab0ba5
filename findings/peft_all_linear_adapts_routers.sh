#!/usr/bin/env bash
# peft 0.21.2: LoraConfig(target_modules="all-linear") on a mixture of experts (Mixtral, Qwen3-MoE)
# adapts the router and all experts too, though none of them is a linear layer of transformers 5: they
# are parameters, of which "target all linear layers" says nothing. PEFT rewrites the configuration in
# place: target_parameters appears, and the joined gate_up_proj gets twice the rank and alpha that were
# asked for. A RuntimeWarning says of just that entry that it "did not match any targeted module" and
# was "ignored"; it is in use. So the router learns where one would expect attention alone to.
#
# Seen with peft 0.21.2, transformers 5.17.0, torch 2.13.0, on a CPU, asked for r=8:
#   adapted parameters {'down_proj': 8, 'gate_up_proj': 16, 'weight': 8}, router True, told ignored True
# Exits non-zero if that changes. Ours: such adapters are drawn, judged and merged by PEFT's own rule
# (tests/export/test_export_kinds.py); runs of a mixture of experts are refused by their plan.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "torch==2.13.0" "transformers==5.17.0" "peft==0.21.2"
cd "$place"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - 2>/dev/null <<'PYTHON' | tail -1
import warnings

from peft import LoraConfig, get_peft_model
from peft.tuners.lora import ParamWrapper
from transformers import AutoModelForCausalLM, MixtralConfig

config = MixtralConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=2, num_local_experts=4,
)
model = AutoModelForCausalLM.from_config(config)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    asked = LoraConfig(r=8, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, asked)
wrapped = {name: m for name, m in model.named_modules() if isinstance(m, ParamWrapper)}
ranks = {m.parameter_name: m.r["default"] for m in wrapped.values()}
ranks = dict(sorted(ranks.items()))
router = any(name.endswith("mlp.gate") for name in wrapped)
ignored = any("rank_pattern" in str(w.message) and "ignored" in str(w.message) for w in told)
print(f"adapted parameters {ranks}, router {router}, told ignored {ignored}")
seen = ranks == {"down_proj": 8, "gate_up_proj": 16, "weight": 8} and router and ignored
raise SystemExit(0 if seen else 1)
PYTHON
