#!/usr/bin/env bash
# Ray prints what happened to a node on the driver's standard output, though log_to_driver is False.
#
# Seen on 2026-11-30 with ray 2.60.0: a driver that is asked for silence, ray.init(log_to_driver=False,
# logging_level=logging.ERROR), and prints one JSON document of its own, has "(raylet) The node with
# node id ... has been marked dead" before it on standard output once a node of the cluster is killed.
# One would expect nothing there, or the message on standard error: it comes from a thread that prints
# every error of the cluster with print(). A program that reads the driver's output as JSON fails just
# when a machine was lost. Exits 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "ray==2.60.0"
cat > "$folder/driver.py" <<'PY'
import json
import logging
import sys
import time

import ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
print("up", file=sys.stderr, flush=True)
while all(node["Alive"] for node in ray.nodes()):
    time.sleep(0.2)
time.sleep(3)
print(json.dumps({"nodes": sum(node["Alive"] for node in ray.nodes())}))
PY
RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" - "$folder/driver.py" <<'PY'
import json
import subprocess
import sys

from ray.cluster_utils import Cluster

small = {"num_cpus": 1, "object_store_memory": 100 << 20}
cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
worker = cluster.add_node(**small)
command = [sys.executable, sys.argv[1], cluster.address]
driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
while "up" not in driver.stderr.readline():
    pass
cluster.remove_node(worker, allow_graceful=False)
text, _ = driver.communicate(timeout=120)
cluster.shutdown()
lines = text.splitlines()
told = [line[:100] for line in lines if "Raylet is terminated" in line or "marked dead" in line]
print(len(lines), "lines on standard output, among them:", *told, sep="\n")
assert json.loads(lines[-1]) == {"nodes": 1}, "the driver's own document comes last"
if not told:
    sys.exit("ray keeps to itself what happened to a node")
PY
