#!/usr/bin/env bash
# `budgetrl export --to verl` against verl itself: its Hydra configuration, its checks, its data set
# and its reward loader. Not part of CI: 40 MB from PyPI, some minutes. Needs .venv with the extra
# `train`. bash scripts/check_verl.sh [--data FILE.jsonl] [--grade FILE.jsonl]
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
place="${BUDGETRL_VERL_ENV:-$(mktemp -d)}"
if [ ! -x "$place/bin/python" ]; then
  "$root/.venv/bin/python" -m venv "$place"
  # What verl 0.9.1 asks for and shares with us comes from .venv; transformers and antlr are its own.
  "$root/.venv/bin/python" -c 'import site; print("\n".join(site.getsitepackages()))' \
    > "$("$place/bin/python" -c 'import site; print(site.getsitepackages()[0])')/shared.pth"
  "$place/bin/pip" install --quiet --no-deps verl==0.9.1 hydra-core==1.3.2 omegaconf==2.3.0 \
    antlr4-python3-runtime==4.9.3 transformers==5.9.0 tokenizers==0.22.2 ray==2.60.0 tensordict==0.10.0 \
    codetiming==1.4.0 torchdata==0.11.0 pylatexenc==2.10 cachetools orjson pyvers cloudpickle \
    importlib_metadata zipp jsonschema msgpack protobuf attrs rpds-py referencing \
    jsonschema-specifications
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
PYTHONPATH="$root" "$place/bin/python" "$root/scripts/check_verl.py" "$@"
