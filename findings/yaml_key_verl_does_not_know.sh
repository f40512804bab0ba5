#!/usr/bin/env bash
# A key that verl does not know is refused as an argument, and taken without a word from a YAML file.
#
# verl 0.9.1 (hydra-core 1.3.2, omegaconf 2.3.0), its own ppo_trainer.yaml and one misspelt key,
# `actor_rollout_ref.actor.optim.lerning_rate`:
#   as an override   ConfigCompositionException: "Could not override ..."
#   in a file that lists ppo_trainer under `defaults`, as verl's recipes do
#                    composes; the misspelt key stands beside lr, which keeps its default 1e-06
# A file that was written for another version of verl is so taken as a whole, and trains with the
# defaults of whatever was renamed. Exits with 1 if that changes.
set -euo pipefail
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  verl==0.9.1 hydra-core==1.3.2 omegaconf==2.3.0 antlr4-python3-runtime==4.9.3 packaging PyYAML
cat > "$place/mine.yaml" <<'YAML'
defaults:
  - ppo_trainer
  - _self_
actor_rollout_ref:
  rollout:
    name: vllm
  actor:
    optim:
      lerning_rate: 3.0e-06
YAML
"$place/venv/bin/python" - "$place" <<'PYTHON'
import importlib.util
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

own = Path(importlib.util.find_spec("verl").submodule_search_locations[0]) / "trainer" / "config"
key = "actor_rollout_ref.actor.optim.lerning_rate"
with initialize_config_dir(str(own), version_base=None):
    try:
        compose("ppo_trainer", ["actor_rollout_ref.rollout.name=vllm", f"{key}=3e-06"])
        sys.exit("as an override it is taken too now")
    except ConfigCompositionException as error:
        print("as an override:", str(error).splitlines()[0])
with initialize_config_dir(sys.argv[1], version_base=None):
    made = compose("mine", [f"hydra.searchpath=[file://{own}]"])
optim = made.actor_rollout_ref.actor.optim
print("from a file:", {name: optim[name] for name in ("lr", "lerning_rate")})
sys.exit(optim.lr != 1e-06 or optim.lerning_rate != 3e-06)
PYTHON
