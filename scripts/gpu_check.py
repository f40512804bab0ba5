"""The figures of gpu_check's runs: seconds by phase, tokens per second, memory, all against plan.

    python scripts/gpu_check.py RUN... [--profile FOLDER]

One JSON line per run on standard output. With --profile the last run's factors, measured over
predicted, are written as `gpu-<name>.json` in the form of budgetrl/assets/profiles.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from budgetrl.estimation.estimate import estimate
from budgetrl.estimation.profile import profile_document, run_factors, run_recipe
from budgetrl.estimation.shapes import find_shape
from budgetrl.files import write_json
from budgetrl.hardware import Gpu, detect_gpu
from budgetrl.history import History, read_history
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import MANIFEST, RunDir, open_run
from budgetrl.units import GIB


def figures(run: RunDir, gpu: Gpu | None) -> dict[str, Any]:
    """What one run measured, and what was predicted for it."""
    recipe, history = run_recipe(run), read_history(run)
    manifest = run.read_json(MANIFEST)
    steps = history.steps[1:] or history.steps  # the first one compiles
    phases = {
        name: round(statistics.median(step.phase_s.get(name, 0.0) for step in steps), 3)
        for name in ("rollout", "reward", "logprob", "update", "other")
    }
    speed = statistics.median(step.tokens / step.phase_s["rollout"] for step in steps)
    found: dict[str, Any] = {
        "run": run.name,
        "recipe": recipe.name,
        "engine": recipe.engine.name.value,
        "gpu": None if gpu is None else gpu.name,
        "rank": recipe.lora.rank,
        "steps": len(history.steps),
        "attempts": history.attempt,
        "completion_tokens_mean": steps[-1].completion_tokens_mean,
        "phase_s": phases,
        "rollout_tokens_per_s": round(speed, 1),
        "sampling_logp_diff_mean": steps[-1].sampling_logp_diff_mean,
        "peak_gib": max((step.gpu_peak_gib or 0.0 for step in history.steps), default=0.0) or None,
        "versions": manifest["versions"],
    }
    return found if gpu is None else found | against_plan(recipe, history, gpu, found)


def against_plan(
    recipe: Recipe, history: History, gpu: Gpu, found: dict[str, Any]
) -> dict[str, Any]:
    """The card's limit for this batch, and the estimate's peak."""
    limit = roofline_tokens_per_s(recipe, gpu, history.steps[-1].completion_tokens_mean)
    peak, measured = estimate(recipe, gpu).memory.peak / GIB, found["peak_gib"]
    return {
        "roofline_tokens_per_s": round(limit, 1),
        "share_of_roofline": round(found["rollout_tokens_per_s"] / limit, 3),
        "predicted_peak_gib": round(peak, 2),
        "peak_over_predicted": None if measured is None else round(measured / peak, 3),
    }


def roofline_tokens_per_s(recipe: Recipe, gpu: Gpu, mean_tokens: float) -> float:
    """Tokens per second if decoding read weights and KV cache at full bandwidth, all at once."""
    shape, rows = find_shape(recipe.model.id), recipe.completions_per_step
    weights = 2.0 * shape.matmul_params
    cache = rows * shape.kv_bytes_per_token() * (recipe.prompt.max_tokens / 2 + mean_tokens / 2)
    return rows * gpu.bandwidth_gb_s * 1e9 / (weights + cache)


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--profile", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    here = detect_gpu()
    gpu = here.gpu if here is not None else None
    runs = [open_run(path) for path in options.runs]
    for run in runs:
        print(json.dumps(figures(run, gpu)))
    if options.profile is None or gpu is None:
        return 0
    measured = f"{time.strftime('%Y-%m-%d')}, scripts/gpu_check.sh"
    factors = run_factors(runs[-1].path).factors
    document = profile_document(run_recipe(runs[-1]), gpu, factors, measured)
    versions = figures(runs[-1], gpu)["versions"]
    file = options.profile / f"gpu-{gpu.name.lower().replace(' ', '-')}.json"
    write_json(file, document | {"versions": versions})
    print(f"profile: {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
