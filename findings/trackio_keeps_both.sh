#!/usr/bin/env bash
# trackio 0.43.0: a run that is resumed with resume="allow" and logs a step again keeps both rows.
# wandb, whose interface it copies, drops a step that is not above the last one. After a kill a run
# goes on from its last checkpoint, so the updates behind it are shown twice, without a warning.
#
# Seen with trackio 0.43.0, Python 3.11, no network needed at run time:
#   steps in the database: [1, 2, 3, 4, 5, 4, 5, 6]
# Exits non-zero if that changes. Ours: a later attempt is a run of its own (docs/attempts.md).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "trackio==0.43.0"
export TRACKIO_DIR="$place/data" HF_HUB_OFFLINE=1
for steps in "1 6" "4 7"; do
    "$place/venv/bin/python" - $steps >/dev/null <<'PYTHON'
import sys
import trackio

trackio.init(project="p", name="a-run", resume="allow", auto_log_cpu=False, auto_log_gpu=False)
for step in range(*map(int, sys.argv[1:])):
    trackio.log({"loss": 1.0 / step}, step=step)
trackio.finish()
PYTHON
done
"$place/venv/bin/python" - "$place/data/p.db" <<'PYTHON'
import sqlite3
import sys

rows = sqlite3.connect(sys.argv[1]).execute("select step from metrics order by id").fetchall()
steps = [step for (step,) in rows]
print("steps in the database:", steps)
sys.exit(steps != [1, 2, 3, 4, 5, 4, 5, 6])
PYTHON
