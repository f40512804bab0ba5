#!/usr/bin/env bash
# What to run on a GPU when one is at hand: one step per call, each under ten minutes on a bare machine.
#   scripts/gpu_check.sh STEP...             these steps; `all` for all of them in this order
#   scripts/gpu_check.sh --rehearse STEP...  the same on a CPU, with thin layers and short answers
#   wheels           install, and doctor
#   smoke            one update of Qwen2.5-0.5B's shape
#   r8 r64 r256      Qwen2.5-1.5B at these ranks, 32 completions, 2 updates each
#   full             DeepScaleR's shape, rank 256, full length, 64 completions: killed after an update
#   resume           the same run, to its third update
#   qwen3 llama      Qwen3-0.6B and Llama-3.2-1B, rank 64
#   plain unsloth    the tests marked gpu, of one engine each
#   quickstart       the same gain as on a CPU
# Weights are random, so nothing is downloaded but the wheels. Figures go to
# $GPU_CHECK_OUT/figures.jsonl, a profile of the card beside it (copy it to budgetrl/assets/profiles).
# GPU_CHECK_ENGINE  unsloth (the default), or plain where vLLM cannot be installed
# GPU_CHECK_OUT     where runs and figures go (./gpu_check)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

steps=(wheels smoke r8 r64 r256 full resume qwen3 llama plain unsloth quickstart)
engine=${GPU_CHECK_ENGINE:-unsloth}
out=${GPU_CHECK_OUT:-$PWD/gpu_check}
bin=.venv/bin
limit=590
device=cuda full=3584 short=512 tiny=()
if [[ ${1:-} == --rehearse ]]; then
    shift
    engine=plain device=cpu full=24 short=16 tiny=(--tiny)
fi

# model SHAPE: a folder with random weights of that shape, made once.
model() {
    local folder=$out/models/${1//\//_}${tiny[*]}
    [[ -f $folder/model.safetensors ]] ||
        "$bin/python" scripts/make_random_model.py "$1" "$folder" "${tiny[@]}" >&2
    printf '%s' "$folder"
}

newest() { find "$out/runs/$1" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1; }

# settings NAME SHAPE [KEY=VALUE]...: arguments of one run, in the array `arguments`.
settings() {
    local name=$1 folder pair
    folder=$(model "$2")
    shift 2
    arguments=(run scripts/gpu_check.toml --hours 9m --display plain --out "$out/runs/$name")
    for pair in "recipe.name=$name" "model.id=$folder" "engine.name=$engine" \
        "engine.device=$device" "engine.threads=1" "$@"; do
        arguments+=(--set "$pair")
    done
    if [[ $device == cpu ]]; then arguments+=(--set model.dtype=float32); fi
}

figures() {
    "$bin/python" scripts/gpu_check.py "$(newest "$1")" --profile "$out" |
        tee -a "$out/figures.jsonl"
}

train() {
    settings "$@"
    timeout "$limit" "$bin/budgetrl" "${arguments[@]}"
    figures "$1"
}

rank() { train "qwen2.5_r$1" Qwen/Qwen2.5-1.5B-Instruct "lora.rank=$1" "sampling.max_tokens=$short"; }

# A full-length run, whose processes are all killed once its first update is on the disk.
killed() {
    local name=deepscaler_r256 supervisor worker
    settings "$name" agentica-org/DeepScaleR-1.5B-Preview lora.rank=256 \
        batch.prompts_per_step=8 schedule.stop_after_steps=3 "sampling.max_tokens=$full"
    rm -rf "${out:?}/runs/$name"
    "$bin/budgetrl" "${arguments[@]}" &
    supervisor=$!
    until compgen -G "$out/runs/$name/*/checkpoints/step_000001/checkpoint.json" >/dev/null; do
        kill -0 "$supervisor" || { printf 'it ended before its first checkpoint\n' >&2; return 1; }
        sleep 0.2
    done
    worker=$(cat "/proc/$supervisor/task/$supervisor/children")
    # Unquoted: one or more process ids.
    kill -9 "$supervisor" $worker
    wait "$supervisor" || true
}

tests() {
    [[ $device == cuda ]] || { "$bin/python" -m pytest -q -m gpu tests -k "$1"; return; }
    "$bin/python" -m pytest --version >/dev/null 2>&1 || bash scripts/install.sh dev
    BUDGETRL_REQUIRE_GPU=1 timeout "$limit" "$bin/python" -m pytest -q -m gpu tests -k "$1"
}

run_step() {
    case $1 in
        wheels)
            [[ $device == cpu ]] ||
                bash scripts/install.sh "$([[ $engine == plain ]] && echo train || echo gpu)"
            "$bin/budgetrl" doctor
            ;;
        smoke)
            train smoke Qwen/Qwen2.5-0.5B-Instruct schedule.stop_after_steps=1 \
                "sampling.max_tokens=$short"
            ;;
        r8 | r64 | r256) rank "${1#r}" ;;
        full) killed ;;
        resume)
            timeout "$limit" "$bin/budgetrl" resume "$(newest deepscaler_r256)" --hours 9m \
                --display plain
            figures deepscaler_r256
            ;;
        qwen3) train qwen3_r64 Qwen/Qwen3-0.6B "sampling.max_tokens=$short" ;;
        llama) train llama3.2_r64 meta-llama/Llama-3.2-1B-Instruct "sampling.max_tokens=$short" ;;
        plain) tests "not unsloth and not quickstart" ;;
        unsloth) tests unsloth ;;
        quickstart) tests quickstart ;;
        *)
            printf 'no step %s; there are: %s\n' "$1" "${steps[*]}" >&2
            exit 2
            ;;
    esac
}

[[ ${1:-} != all ]] || set -- "${steps[@]}"
(( $# > 0 )) || { sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$out"
for step in "$@"; do
    printf '\n== %s\n' "$step"
    SECONDS=0
    run_step "$step"
    printf '== %s took %s s\n' "$step" "$SECONDS"
done
