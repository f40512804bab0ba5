#!/usr/bin/env bash
# What to run on a GPU when one is at hand, ordered by what a step tells per minute.
#   scripts/gpu_check.sh STEP...             these steps; `all` for all of them in this order
#   scripts/gpu_check.sh --minutes N STEP... the same, ended after N minutes: what is left is left out
#   scripts/gpu_check.sh --rehearse STEP...  the same on a CPU, with thin layers and short answers
#   wheels           install, and doctor
#   full             DeepScaleR's shape, rank 256, full length, KL, 64 completions: killed after an update
#   resume           the same run, to its third update
#   r8               Qwen2.5-1.5B at rank 8, 32 completions, 2 updates
#   unsloth          the tests marked gpu of the Unsloth engine
#   llama qwen3      Llama-3.2-1B and Qwen3-0.6B, rank 64
#   r64 r256         Qwen2.5-1.5B at these ranks
#   quickstart plain the other tests marked gpu
#   smoke            one update of Qwen2.5-0.5B's shape: where `full` fails, is it its size?
# Weights are random, so nothing is downloaded but the wheels. At the end one table: seconds by phase,
# tokens per second and peak memory, each beside the estimate. Figures go to $GPU_CHECK_OUT/figures.jsonl,
# a profile of the card beside it (copy it to budgetrl/assets/profiles).
# GPU_CHECK_ENGINE  unsloth (the default), or plain where vLLM cannot be installed
# GPU_CHECK_OUT     where runs and figures go (./gpu_check)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

steps=(wheels full resume r8 unsloth llama qwen3 r64 r256 quickstart plain smoke)
engine=${GPU_CHECK_ENGINE:-unsloth}
out=${GPU_CHECK_OUT:-$PWD/gpu_check}
bin=.venv/bin
step_s=590 least_s=100 table_s=10
device=cuda full=3584 short=512 tiny=() minutes=""
while [[ ${1:-} == --* ]]; do
    case $1 in
        --rehearse) engine=plain device=cpu full=24 short=16 tiny=(--tiny) least_s=40 ;;
        --minutes) minutes=${2:-} && shift ;;
        *) printf 'no option %s\n' "$1" >&2 && exit 2 ;;
    esac
    shift
done
[[ -z $minutes || $minutes =~ ^[1-9][0-9]*$ ]] ||
    { printf -- '--minutes takes a whole number, not %s\n' "$minutes" >&2; exit 2; }
end=$(( $(date +%s) + 60 * ${minutes:-100000} ))

# Seconds that the next command may take: a step's limit, or what is left.
left() {
    local rest=$(( end - table_s - $(date +%s) ))
    printf '%s' "$(( rest < step_s ? rest : step_s ))"
}

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
    arguments=(run scripts/gpu_check.toml --hours "$(( $(left) - 20 ))s" --display plain
        --out "$out/runs/$name")
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
    timeout "$(left)" "$bin/budgetrl" "${arguments[@]}"
    figures "$1"
}

rank() { train "qwen2.5_r$1" Qwen/Qwen2.5-1.5B-Instruct "lora.rank=$1" "sampling.max_tokens=$short"; }

# A full-length run, whose processes are all killed once its first update is on the disk.
killed() {
    local name=deepscaler_r256 supervisor worker code=0
    settings "$name" agentica-org/DeepScaleR-1.5B-Preview lora.rank=256 \
        batch.prompts_per_step=8 schedule.stop_after_steps=3 "sampling.max_tokens=$full"
    rm -rf "${out:?}/runs/$name"
    "$bin/budgetrl" "${arguments[@]}" &
    supervisor=$!
    until compgen -G "$out/runs/$name/*/checkpoints/step_000001/checkpoint.json" >/dev/null; do
        kill -0 "$supervisor" || { printf 'it ended before its first checkpoint\n' >&2; return 1; }
        sleep 0.2
        (( $(left) > 0 )) || { code=1; printf 'no checkpoint within the minutes\n' >&2; break; }
    done
    worker=$(cat "/proc/$supervisor/task/$supervisor/children")
    # Unquoted: one or more process ids.
    kill -9 "$supervisor" $worker
    wait "$supervisor" || true
    return "$code"
}

tests() {
    [[ $device == cuda ]] || { "$bin/python" -m pytest -q -m gpu tests -k "$1"; return; }
    "$bin/python" -m pytest --version >/dev/null 2>&1 || bash scripts/install.sh dev
    BUDGETRL_REQUIRE_GPU=1 timeout "$(left)" "$bin/python" -m pytest -q -m gpu tests -k "$1"
}

run_step() {
    case $1 in
        wheels)
            [[ $device == cpu ]] ||
                timeout "$(left)" bash scripts/install.sh "$([[ $engine == plain ]] && echo train || echo gpu)"
            "$bin/budgetrl" doctor
            ;;
        smoke)
            train smoke Qwen/Qwen2.5-0.5B-Instruct schedule.stop_after_steps=1 \
                "sampling.max_tokens=$short"
            ;;
        r8 | r64 | r256) rank "${1#r}" ;;
        full) killed ;;
        resume)
            timeout "$(left)" "$bin/budgetrl" resume "$(newest deepscaler_r256)" \
                --hours "$(( $(left) - 20 ))s" --display plain
            figures deepscaler_r256
            ;;
        qwen3) train qwen3_r64 Qwen/Qwen3-0.6B "sampling.max_tokens=$short" ;;
        llama) train llama3.2_r64 meta-llama/Llama-3.2-1B-Instruct "sampling.max_tokens=$short" ;;
        plain) tests "not unsloth and not quickstart" ;;
        unsloth) tests unsloth ;;
        quickstart) tests quickstart ;;
    esac
}

# Every run of this call in one table, also of those that a step left behind when it failed.
table() {
    mapfile -t made < <(find "$out/runs" -mindepth 3 -maxdepth 3 -name events.jsonl -newer "$out/started" \
        -printf '%T@ %h\n' 2>/dev/null | sort -n | cut -d' ' -f2-)
    (( ${#made[@]} == 0 )) || "$bin/python" scripts/gpu_check.py "${made[@]}" --table
}

[[ ${1:-} != all ]] || set -- "${steps[@]}"
(( $# > 0 )) || { sed -n '2,22s/^# \{0,1\}//p' "$0"; exit 2; }
for step in "$@"; do
    [[ " ${steps[*]} " == *" $step "* ]] ||
        { printf 'no step %s; there are: %s\n' "$step" "${steps[*]}" >&2; exit 2; }
done
mkdir -p "$out/runs"
touch "$out/started"
failed=()
trap 'table; exit 130' INT
for step in "$@"; do
    if (( $(left) < least_s )); then
        printf '\n== %s left out: the minutes are over\n' "$step"
        continue
    fi
    printf '\n== %s\n' "$step"
    SECONDS=0
    set +e  # a step that fails ends itself, not the others
    (set -e; run_step "$step")
    code=$?
    set -e
    (( code == 0 )) || failed+=("$step")
    printf '== %s took %s s%s\n' "$step" "$SECONDS" "$( (( code == 0 )) || printf ', and FAILED (%s)' "$code")"
done
printf '\n'
table
(( ${#failed[@]} == 0 )) || { printf 'failed: %s\n' "${failed[*]}" >&2; exit 1; }
