#!/usr/bin/env bash
# Makes or updates .venv in this checkout: scripts/install.sh [train|dev|gpu]
#   train  budgetrl and CPU-able training (the default)
#   dev    train plus Ray, linters, type checker and tests
#   gpu    train plus Unsloth and vLLM (Linux x86-64, CUDA 13)
# BUDGETRL_PYTHON       the interpreter to use (3.11 or 3.12); else python3, python3.12, python3.11
# BUDGETRL_TORCH_INDEX  the package index to take torch from; else your pip settings decide
# Exit codes: 0 ready, 1 a download or build failed, 2 wrong call or Python, 3 too little disk.
set -euo pipefail

mode=${1:-train}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
stamp=$venv/budgetrl-installed
log=$venv/install.log
public_cpu_index=https://download.pytorch.org/whl/cpu

say() { printf 'install: %s\n' "$*"; }
fail() {
    local code=$1
    shift
    printf 'install: %s\n' "$@" >&2
    exit "$code"
}

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; }

find_python() {
    local candidate found=""
    for candidate in ${BUDGETRL_PYTHON:-python3 python3.12 python3.11}; do
        if supported "$candidate"; then
            command -v "$candidate"
            return
        fi
        found+=" $candidate=$("$candidate" -c 'import platform; print(platform.python_version())' \
            2>/dev/null || echo missing)"
    done
    fail 2 "Python 3.11 or 3.12 is needed; found$found." \
        "Install one (for example 'apt install python3.12-venv' or 'uv python install 3.12')" \
        "and name it: BUDGETRL_PYTHON=/path/to/python3.12 $0 $mode"
}

has_nvidia_driver() { [[ -e /proc/driver/nvidia/version ]] || nvidia-smi -L >/dev/null 2>&1; }

# A virtual environment is tied to its path: a copied or half-made one is made anew.
venv_is_usable() {
    supported "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1 || return 1
    ! grep -q '^command = ' "$venv/pyvenv.cfg" || grep -q "^command = .* $venv\$" "$venv/pyvenv.cfg"
}

make_venv() {
    local python
    python=$(find_python)
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail 2 "$python cannot make virtual environments." \
            "On Debian and Ubuntu: apt install python3-venv; else name another Python by BUDGETRL_PYTHON."
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || fail 1 "$python -m venv failed (exit code $?); the lines above say why."
}

check_disk() {
    local free_mb used_mb=0
    free_mb=$(df -Pk "$root" | awk 'NR == 2 { print int($4 / 1024) }') || return 0
    [[ ! -d $venv ]] || used_mb=$(du -sm "$venv" | cut -f1)
    (( free_mb + used_mb >= need_mb )) ||
        fail 3 "disk short: $free_mb MB free in $root, '$mode' needs about $((need_mb - used_mb)) MB more." \
            "Free some space, or move the checkout to a larger disk, and run this again."
}

# --no-compile: bytecode is made once, at the end and on all cores.
pip_install() {
    PIP_USER=0 "$venv/bin/python" -m pip install --quiet --no-compile --no-input \
        --disable-pip-version-check "$@" >>"$log" 2>&1
}

last_words() {
    grep -E 'ERROR|error:|connection broken|No space left' "$log" | tail -n 3 | cut -c 1-300 || true
    printf "(all of pip's words: %s)\n" "$log"
}

pip_or_fail() {
    local code=0
    pip_install "$@" || code=$?
    (( code == 0 )) && return
    last_words >&2
    fail 1 "download or installation failed (pip exit code $code)." \
        "Check the network and your pip settings (pip config list; PIP_INDEX_URL, PIP_FIND_LINKS," \
        "proxies), then run this again: what is already there is kept."
}

# Only this index: the user's find-links and further indexes stay out, certificates and proxies stay in.
pip_from_index() {
    local index=$1 code=0 empty
    shift
    empty=$(mktemp -d)
    PIP_EXTRA_INDEX_URL=$index PIP_FIND_LINKS=$empty pip_install --index-url "$index" "$@" || code=$?
    rmdir "$empty"
    return "$code"
}

# '==2.13.0+cpu' names the CPU build and nothing else, '===2.13.0' the plain one (CUDA, from PyPI).
install_torch() {
    local version installed index=${BUDGETRL_TORCH_INDEX:-}
    version=$(sed -n 's/^torch==//p' "$pins")
    installed=$("$venv/bin/python" -c 'from importlib.metadata import version as v; print(v("torch"))' \
        2>/dev/null || true)
    if [[ $installed == "$version" || $installed == "$version+"* ]] &&
        ! [[ $cuda == yes && $installed == *+cpu ]]; then
        return
    elif [[ -n $index ]]; then
        say "torch $version from $index (BUDGETRL_TORCH_INDEX)"
        { [[ $cuda == no ]] && pip_from_index "$index" --no-deps "torch==$version+cpu"; } ||
            pip_from_index "$index" --no-deps "torch==$version" || {
            last_words >&2
            fail 1 "torch $version cannot be had from $index." \
                "Correct BUDGETRL_TORCH_INDEX, or unset it to use your pip settings."
        }
    elif [[ $cuda == yes || $(uname -s) != Linux ]]; then
        say "torch $version, the plain build"
        pip_install --no-deps "torch===$version" || pip_or_fail --no-deps "torch==$version"
    elif pip_install --no-deps "torch==$version+cpu"; then
        say "torch $version, the CPU build that your pip settings find"
    elif pip_from_index "$public_cpu_index" --timeout 30 --retries 2 --no-deps "torch==$version+cpu"; then
        say "torch $version, the CPU build from $public_cpu_index"
    else
        say "no CPU build of torch $version by your pip settings nor at $public_cpu_index."
        say "Taking the plain build: it works, but brings some 5 GB of CUDA packages without use here."
        say "To avoid them, stop this (Ctrl-C) and name an index that has the CPU build: BUDGETRL_TORCH_INDEX."
        need_mb=9000
        check_disk
        pip_or_fail --no-deps "torch==$version"
    fi
}

dev_group() {
    "$venv/bin/python" -c 'import sys, tomllib
print(*tomllib.load(open(sys.argv[1], "rb"))["dependency-groups"]["dev"], sep="\n")' "$root/pyproject.toml"
}

case $mode in train | dev | gpu) ;; *) fail 2 "unknown mode '$mode'; use: $0 [train|dev|gpu]" ;; esac
cd "$root"
# What is here as gpu stays gpu: train's own pins would pull numpy away from under vllm.
base=train cuda=no
if [[ $mode == gpu ]] || grep -qs '^gpu ' "$stamp"; then base=gpu; fi
if [[ $base == gpu ]] || has_nvidia_driver; then cuda=yes; fi
pins=$root/scripts/constraints-$base.txt
key=$(cat pyproject.toml scripts/constraints-*.txt scripts/install.sh | cksum)
key="${key// /-} cuda=$cuda $root"
is_current() { grep -qsxF "$1 $key" "$stamp"; }

if supported "$venv/bin/python" && { is_current "$mode" || { [[ $mode == train ]] &&
    { is_current dev || is_current gpu; }; }; }; then
    say "up to date ($mode): $venv"
    exit 0
fi

SECONDS=0
need_mb=2500
[[ $cuda == no ]] || need_mb=9000
[[ $base == train ]] || need_mb=25000
check_disk
venv_is_usable || make_venv
kept=$(grep -v "^$mode " "$stamp" 2>/dev/null | grep -F " $key" || true)
rm -f "$stamp"
: >"$log"
[[ $mode != gpu ]] || has_nvidia_driver ||
    say "no NVIDIA driver here: installing the GPU packages all the same, for use on a machine with one."

# pip before 25 spends twice the time on reading index pages; without a newer one it is only slower.
if [[ $("$venv/bin/python" -m pip --version) =~ ^pip\ (1|2[0-4]\.|[3-9]\.) ]]; then
    pip_install --upgrade pip || true
fi
install_torch
say "packages of scripts/constraints-$base.txt"
pip_or_fail --no-deps --requirement "$pins"
requirements=(--constraint "$pins" --editable ".[$base]")
if [[ $mode == dev ]]; then
    requirements=(--constraint "$pins" --editable ".[$base,sweep]")
    mapfile -t -O "${#requirements[@]}" requirements < <(dev_group)
    requirements+=(--constraint scripts/constraints-dev.txt --constraint scripts/constraints-sweep.txt)
fi
say "budgetrl itself (editable)$([[ $mode != dev ]] || echo ' and the dev tools')"
pip_or_fail "${requirements[@]}"
beside=()
if [[ $mode == dev && $base == train ]]; then
    say "unsloth for its tests without a GPU, in $venv/unsloth-cpu"
    rm -rf "$venv/unsloth-cpu"
    pip_or_fail --no-deps --target "$venv/unsloth-cpu" --requirement scripts/constraints-unsloth-cpu.txt
    beside=("$venv/unsloth-cpu")
fi
say "bytecode, so that the first start takes seconds"
# Left out: what runs never import. It exits 1 for files that a package ships as no valid Python.
"$venv/bin/python" -m compileall -q -j 0 \
    -x '/(tests?|torch/testing|transformers/models/(?!auto|qwen|llama)[^/]+)/' "$venv/lib" budgetrl \
    ${beside[@]+"${beside[@]}"} \
    >>"$log" 2>&1 || true

printf '%s\n' ${kept:+"$kept"} "$mode $key" >"$stamp"
say "ready in $SECONDS s, $(du -sh "$venv" | cut -f1): $venv/bin/budgetrl --help"
