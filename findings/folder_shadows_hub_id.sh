#!/usr/bin/env bash
# datasets loads a folder of the working directory where a hub id and a revision are asked for.
#
# Seen on 2026-11-30 with datasets 4.8.5, huggingface_hub as it resolves: load_dataset("OWNER/NAME",
# revision="v1") reads ./OWNER/NAME where such a folder exists, without a warning, and the revision is
# not looked at. One would expect the id to mean the hub, or at least the revision to. A checkout that
# lies beside a script (git clone https://huggingface.co/datasets/OWNER/NAME) replaces an evaluation
# suite by whatever it holds. Exits 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "datasets==4.8.5"
mkdir -p "$folder/work/HuggingFaceH4/MATH-500"
echo '{"problem": "mine", "answer": "1"}' >"$folder/work/HuggingFaceH4/MATH-500/test.jsonl"
cd "$folder/work"
HF_HOME="$folder/hf" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import sys

import datasets

rows = datasets.load_dataset("HuggingFaceH4/MATH-500", revision="v1", split="test")
print(f"datasets {datasets.__version__}: {len(rows)} row of 500: {rows[0]}")
sys.exit(0 if len(rows) == 1 else 1)
PY
