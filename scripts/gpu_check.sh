#!/usr/bin/env bash
# What to run on a GPU when one is at hand: five steps, each under ten minutes on a bare machine.
#   scripts/gpu_check.sh [1-5]...              all, or some of them
#   scripts/gpu_check.sh --rehearse [1-5]...   the same on a CPU, with thin layers and short answers
#   1  wheels, doctor, tests marked gpu, one update
#   2  Qwen2.5-1.5B, ranks 8, 64 and 256, 32 completions, 2 updates each
#   3  DeepScaleR's shape, rank 256, full length, 64 completions, 3 updates, killed and resumed
#   4  Qwen3-0.6B and Llama-3.2-1B, rank 64
#   5  the quickstart: the same gain as on a CPU
# Weights are random, so nothing is downloaded but the wheels of step 1. Figures go to
# $GPU_CHECK_OUT/figures.jsonl, a profile of the card beside it (copy it to budgetrl/assets/profiles).
# GPU_CHECK_ENGINE  unsloth (the default), or plain where vLLM cannot be installed
# GPU_CHECK_OUT     where runs and figures go (./gpu_check)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

engine=${GPU_CHECK_ENGINE:-unsloth}
out=${GPU_CHECK_OUT:-$PWD/gpu_check}
bin=.venv/bin
limit=590
device=cuda full=3584 short=512 tiny=()
if [[ ${1:-} == --rehearse ]]; then
    shift
    engine=plain device=cpu full=24 short=16 tiny=(--tiny)
fi
extra=train
[[ $engine == plain ]] || extra=gpu

say() { printf '\n== %s\n' "$*"; }

# model SHAPE: a folder with random weights of that shape, made once.
model() {
    local folder=$out/models/${1//\//_}${tiny[*]}
    [[ -f $folder/model.safetensors ]] ||
        "$bin/python" scripts/make_random_model.py "$1" "$folder" "${tiny[@]}" >&2
    printf '%s' "$folder"
}

# settings NAME MODEL [KEY=VALUE]...: arguments of one run, in the array `arguments`.
settings() {
    local name=$1 folder=$2 pair
    shift 2
    arguments=(run scripts/gpu_check.toml --hours 9m --display plain --out "$out/runs/$name")
    for pair in "recipe.name=$name" "model.id=$folder" "engine.name=$engine" \
        "engine.device=$device" "engine.threads=1" "$@"; do
        arguments+=(--set "$pair")
    done
    if [[ $device == cpu ]]; then arguments+=(--set model.dtype=float32); fi
}

# figures NAME: what the newest run of that name measured.
figures() {
    local newest
    newest=$(find "$out/runs/$1" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
    "$bin/python" scripts/gpu_check.py "$newest" --profile "$out" | tee -a "$out/figures.jsonl"
}

train() {
    settings "$@"
    timeout "$limit" "$bin/budgetrl" "${arguments[@]}"
    figures "$1"
}

step_1() {
    [[ $device == cpu ]] || bash scripts/install.sh "$extra"
    "$bin/budgetrl" doctor
    if [[ $device == cuda ]]; then
        "$bin/python" -m pip show --quiet pytest 2>/dev/null || bash scripts/install.sh dev
        BUDGETRL_REQUIRE_GPU=1 timeout "$limit" "$bin/python" -m pytest -q -m gpu tests
    fi
    train smoke "$(model Qwen/Qwen2.5-0.5B-Instruct)" schedule.stop_after_steps=1 \
        "sampling.max_tokens=$short"
}

step_2() {
    local rank
    for rank in 8 64 256; do
        train "qwen2.5_r$rank" "$(model Qwen/Qwen2.5-1.5B-Instruct)" "lora.rank=$rank" \
            "sampling.max_tokens=$short"
    done
}

step_3() {
    local name=deepscaler_r256 supervisor worker run
    settings "$name" "$(model agentica-org/DeepScaleR-1.5B-Preview)" lora.rank=256 \
        batch.prompts_per_step=8 schedule.stop_after_steps=3 "sampling.max_tokens=$full"
    "$bin/budgetrl" "${arguments[@]}" &
    supervisor=$!
    until compgen -G "$out/runs/$name/*/checkpoints/step_000001/checkpoint.json" >/dev/null; do
        kill -0 "$supervisor" || { say "it ended before its first checkpoint"; return 1; }
        sleep 0.2
    done
    worker=$(cat "/proc/$supervisor/task/$supervisor/children")
    # Unquoted: one or more process ids.
    kill -9 "$supervisor" $worker
    wait "$supervisor" || true
    run=$(find "$out/runs/$name" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
    timeout "$limit" "$bin/budgetrl" resume "$run" --display plain
    figures "$name"
}

step_4() {
    train qwen3_r64 "$(model Qwen/Qwen3-0.6B)" "sampling.max_tokens=$short"
    train llama3.2_r64 "$(model meta-llama/Llama-3.2-1B-Instruct)" "sampling.max_tokens=$short"
}

step_5() {
    local hours=8m arguments=(--set "engine.device=$device" --set model.dtype=float32)
    if [[ $device == cpu ]]; then hours=90s; fi
    timeout "$limit" "$bin/budgetrl" run quickstart --hours "$hours" --display plain \
        --out "$out/runs/quickstart" "${arguments[@]}"
    figures quickstart
}

mkdir -p "$out"
for step in "${@:-1 2 3 4 5}"; do
    for number in $step; do
        [[ $number == [1-5] ]] || { printf 'steps are 1 to 5, not %s\n' "$number" >&2; exit 2; }
        say "step $number of 5"
        SECONDS=0
        "step_$number"
        say "step $number took $SECONDS s"
    done
done
