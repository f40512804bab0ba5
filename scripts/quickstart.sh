#!/usr/bin/env bash
# Installs everything into .venv, trains a small real model inside its budget and says where the
# report lies. Further arguments go to the run: scripts/quickstart.sh --hours 2m
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/install.sh train
started=$(date +%s)
.venv/bin/budgetrl run recipes/quickstart.toml "$@"

report=$(find runs -path '*/report/report.html' -newermt "@$started" 2>/dev/null | tail -n 1)
[[ -z $report ]] || printf '\nThe report, for a browser: %s\n' "$PWD/$report"
printf 'The run again: .venv/bin/budgetrl watch    What else there is: .venv/bin/budgetrl --help\n'
