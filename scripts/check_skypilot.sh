#!/usr/bin/env bash
# SkyPilot's own parser reads the task files of this folder, offline, in an environment of its own:
#   bash scripts/check_skypilot.sh [VENV]        some 300 MB; not part of CI
# An unknown or misspelt key ends it with 1 and SkyPilot's hint.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=${1:-$(mktemp -d)/venv}
[[ -x $venv/bin/python ]] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "skypilot==0.14.1"
cd "$(mktemp -d)"   # `workdir: .` is taken from here
export SKYPILOT_DISABLE_USAGE_COLLECTION=1
"$venv/bin/python" - "$scripts"/skypilot*.yaml <<'PYTHON'
import sys

import sky
import yaml

for path in sys.argv[1:]:
    config = yaml.safe_load(open(path, encoding="utf-8"))
    config.pop("file_mounts", None)  # a bucket's name is checked against a cloud
    task = sky.Task.from_yaml_config(config)
    resources = sorted(str(one) for one in task.resources)
    print(f"{path.rpartition('/')[2]}: {task.name}, {task.num_nodes} machine(s), {len(resources)} kinds")
    assert all(one.autostop_config and one.autostop_config.idle_minutes > 0 for one in task.resources)
    try:
        sky.Task.from_yaml_config({**config, "acelerators": "A40:1"})
    except Exception as error:
        print(f"  a misspelt key is refused: {type(error).__name__}")
    else:
        sys.exit(f"{path}: a misspelt key passed")
PYTHON
