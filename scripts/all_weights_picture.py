"""All weights beside adapters in miniature: docs/pictures/all_weights.svg, from runs' own files.

    python scripts/all_weights_picture.py RUN...    note them in docs/measurements/, and draw
    python scripts/all_weights_picture.py           draw again

Gain in held-out pass@1, change of entropy and seconds of an update's passes, by what was trained:
the mean over seeds, and each seed.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from budgetrl.recipe.base import rank_order

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "docs" / "measurements" / "all_weights.json"
PICTURE = ROOT / "docs" / "pictures" / "all_weights.svg"


def row_of(run: Path) -> dict[str, Any]:
    """What one run says of itself."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    recipe = json.loads((run / "recipe.resolved.json").read_text(encoding="utf-8"))["recipe"]
    entropy = [event["mean_nats"] for event in events if event["kind"] == "entropy"]
    updates = [event["phase_s"]["update"] for event in events if event["kind"] == "step"]
    return {
        "rank": recipe["lora"]["rank"],
        "learning_rate": recipe["schedule"]["learning_rate"],
        "seed": recipe["recipe"]["seed"],
        "steps": result["steps"],
        "gain": result["difference"]["heldout"]["pass_at"]["1"],
        "entropy_change": entropy[-1] / entropy[0] - 1,
        "update_s": round(statistics.median(updates), 2),
    }


def main() -> None:
    """Read, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path)
    runs = parser.parse_args().runs
    if runs:
        FOUND.write_text(json.dumps({"runs": [row_of(run) for run in runs]}, indent=1) + "\n")
    rows = json.loads(FOUND.read_text(encoding="utf-8"))["runs"]
    ranks = sorted({row["rank"] for row in rows}, key=rank_order)
    figure = Figure(figsize=(7.6, 2.8))
    for axes, key, scale, label in zip(
        figure.subplots(1, 3),
        ("gain", "entropy_change", "update_s"),
        (100, 100, 1),
        ("gain in pass@1, points", "entropy, change in %", "seconds of an update's passes"),
        strict=True,
    ):
        for place, rank in enumerate(ranks):
            values = [scale * row[key] for row in rows if row["rank"] == rank]
            axes.bar(place, statistics.fmean(values), 0.6, color="#2f6fde", alpha=0.75)
            axes.plot([place] * len(values), values, ".", color="#22262d")
            print(rank, key, round(statistics.fmean(values), 1), [round(v, 1) for v in values])
        axes.set_xticks(
            range(len(ranks)), ["all" if rank == "full" else f"r {rank}" for rank in ranks]
        )
        axes.set_title(label, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
