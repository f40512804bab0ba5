"""The figures of gpu_check's runs: seconds by phase, tokens per second, memory, all against plan.

    python scripts/gpu_check.py RUN... [--table] [--profile FOLDER]

One JSON line per run on standard output, or one table of all of them. With --profile the last run's
factors, measured over predicted, are written as `gpu-<name>.json` in the form of
budgetrl/assets/profiles.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from budgetrl.estimation.estimate import estimate
from budgetrl.estimation.phases import UPDATE_PHASES
from budgetrl.estimation.profile import (
    predicted_phases,
    profile_document,
    run_factors,
)
from budgetrl.estimation.shapes import find_shape
from budgetrl.files import write_json
from budgetrl.hardware import Gpu, detect_gpu
from budgetrl.history import History, read_history
from budgetrl.recipe.schema import Recipe
from budgetrl.run_files import written_recipe
from budgetrl.rundir import MANIFEST, RunDir, open_run
from budgetrl.units import GIB


def figures(run: RunDir, gpu: Gpu | None) -> dict[str, Any]:
    """What one run measured, and what was predicted for it."""
    recipe, history = written_recipe(run), read_history(run)
    manifest = run.read_json(MANIFEST)
    steps = history.steps[1:] or history.steps  # the first one compiles
    phases = {
        name: round(statistics.median(step.phase_s.get(name, 0.0) for step in steps), 3)
        for name in UPDATE_PHASES
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
    """The card's limit for this batch, and the estimate at the lengths that were seen."""
    mean = history.steps[-1].completion_tokens_mean
    limit = roofline_tokens_per_s(recipe, gpu, mean)
    memory, measured = estimate(recipe, gpu).memory, found["peak_gib"]
    seconds = predicted_phases(recipe, gpu, mean).seconds
    return {
        "roofline_tokens_per_s": round(limit, 1),
        "share_of_roofline": round(found["rollout_tokens_per_s"] / limit, 3),
        "predicted_phase_s": {name: round(seconds[name], 3) for name in UPDATE_PHASES},
        "predicted_tokens_per_s": round(recipe.completions_per_step * mean / seconds["rollout"], 1),
        "predicted_peak_gib": round(memory.peak / GIB, 2),
        "peak_over_predicted": None if measured is None else round(measured * GIB / memory.peak, 3),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line per run, what was measured before what was estimated: `41.2 / 38.0`."""
    names = [*(f"{phase} s" for phase in UPDATE_PHASES), "tokens/s", "peak GiB"]
    lines = [f"| measured / estimated | updates | {' | '.join(names)} |", "|---" * 9 + "|"]
    for row in rows:
        pairs = [
            (row["phase_s"][phase], row.get("predicted_phase_s", {}).get(phase))
            for phase in UPDATE_PHASES
        ]
        pairs.append((row["rollout_tokens_per_s"], row.get("predicted_tokens_per_s")))
        pairs.append((row["peak_gib"], row.get("predicted_peak_gib")))
        cells = [" / ".join(_figure(value) for value in pair) for pair in pairs]
        lines.append(f"| {row['recipe']} | {row['steps']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.2f}"


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
    parser.add_argument("--table", action="store_true", help="one table instead of JSON")
    options = parser.parse_args()
    here = detect_gpu()
    gpu = here.gpu if here is not None else None
    runs = [open_run(path) for path in options.runs]
    if options.table:
        made = [figures(run, gpu) for run in runs if read_history(run).steps]
        print(table(made) if made else "no run made an update")
        return 0
    for run in runs:
        print(json.dumps(figures(run, gpu)))
    if options.profile is None or gpu is None:
        return 0
    measured = f"{time.strftime('%Y-%m-%d')}, scripts/gpu_check.sh"
    factors = run_factors(runs[-1].path).factors
    document = profile_document(written_recipe(runs[-1]), gpu, factors, measured)
    versions = figures(runs[-1], gpu)["versions"]
    file = options.profile / f"gpu-{gpu.name.lower().replace(' ', '-')}.json"
    write_json(file, document | {"versions": versions})
    print(f"profile: {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
