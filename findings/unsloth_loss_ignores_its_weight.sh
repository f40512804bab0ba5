#!/usr/bin/env bash
# unsloth-zoo 2026.10.7: half of Unsloth's GRPO loss has the gradient of the whole of it.
# Its backward pass ignores the gradient that comes from above, so a loss that is weighted, averaged
# or divided behind GRPOTrainer.compute_loss - as in `kl + 0.1 * super().compute_loss(...)` - trains
# with a weight of 1, without an error and with the right number in the log. TRL's own does not.
#
# Seen with unsloth 2026.10.7, unsloth-zoo 2026.10.7, trl 1.14.2, torch 2.13.0, on a CPU:
#   norm of the gradient: of the loss 0.3536, of half the loss 0.3536
# Exits non-zero if that changes. Ours: the weight is in the advantages (budgetrl/training/distil.py).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "torch==2.13.0" "transformers==5.17.0" "trl==1.14.2" "peft==0.21.2" \
    datasets psutil packaging requests "sentencepiece==0.2.3" "pillow==13.0.0"
"$place/venv/bin/pip" install -q --no-deps "unsloth==2026.10.7" "unsloth-zoo==2026.10.7" \
    "torchao==0.18.0" "triton==3.7.1"
cd "$place"
UNSLOTH_ALLOW_CPU=1 UNSLOTH_COMPILE_DISABLE=1 TORCHDYNAMO_DISABLE=1 HF_HUB_OFFLINE=1 \
    "$place/venv/bin/python" - 2>/dev/null <<'PYTHON' | tail -1
import unsloth  # first, as it asks for
import torch
from unsloth_zoo.rl_replacements import UnslothEfficientGRPO

mask, ids = torch.ones(2, 4), torch.ones(2, 4, dtype=torch.long)
advantages = torch.tensor([1.0, -1.0])


def norm(weight: float) -> float:
    logps = torch.full((2, 4), -1.0, requires_grad=True)
    settings = {"loss_type": "grpo", "max_completion_length": 4, "temperature": 1.0}
    loss = UnslothEfficientGRPO.apply(
        logps, logps.detach(), None, None, None, ids, mask, advantages, 0.0, None, 1, settings
    )[0]
    (weight * loss).backward()
    return float(logps.grad.norm())


whole, half = norm(1.0), norm(0.5)
print(f"norm of the gradient: of the loss {whole:.4f}, of half the loss {half:.4f}")
raise SystemExit(0 if whole == half > 0 else 1)
PYTHON
