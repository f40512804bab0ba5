#!/usr/bin/env bash
# What CI runs, from a clean clone: lint, format, types, import contracts, tests. The tests cover
# recipes, Markdown links, the constraint files and the wheel as well.
# Further arguments go to pytest: scripts/test.sh -k budget
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Every check runs, so that one call shows all there is to mend.
failed=()
check() {
    printf '\n== %s\n' "$*"
    "$@" || failed+=("$*")
}

bash scripts/install.sh dev
bin=.venv/bin
export HF_HUB_OFFLINE=1
check "$bin/ruff" check .
check "$bin/ruff" format --check .
check "$bin/mypy"
check "$bin/lint-imports" --no-logo
# Two at a time. What failed beside other tests is run once more, alone: what fails again is broken.
tests=("$bin/python" -m pytest -q --durations=10)
printf '\n== %s\n' "${tests[*]} -n 2 $*"
"${tests[@]}" -n 2 --dist loadfile "$@" || check "${tests[@]}" --last-failed "$@"

(( ${#failed[@]} == 0 )) || {
    printf '\nfailed: %s\n' "${failed[@]}" >&2
    exit 1
}
printf '\nall checks passed\n'
