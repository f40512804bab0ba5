"""The README's figure of the paper in miniature: docs/pictures/miniature.svg.

    budgetrl replicate miniature --json > docs/measurements/miniature.json
    python scripts/miniature_picture.py

Held-out pass@1 before and after, by start and rank, with 95 % intervals; numbers from that file.
"""

import argparse
import json
import re
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "docs" / "measurements" / "miniature.json"
PICTURE = ROOT / "docs" / "pictures" / "miniature.svg"
CELL = re.compile(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)")
NAMES = {
    "quickstart": "generalist\nworks in a third\nof its answers",
    "cold": "cold\nslips in many\nof its workings",
    "specialist": "specialist\nnever shows\nworking",
}
INKS = ("#8a93a3", "#2f6fde", "#d9822b", "#3f9b6c")


def main() -> None:
    """Read, draw, write."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    table = json.loads(FOUND.read_text(encoding="utf-8"))["table1"]
    figure = Figure(figsize=(7.6, 3.4))
    axes = figure.subplots()
    place, start, offset, seen = -1, "", 0, set()
    for name, config, value, *_ in table["rows"]:
        start = name or start
        place, offset = (place + 1, 0) if name else (place, offset + 1)
        if isinstance(value, str):  # as studies wrote it before their tables held numbers
            match = CELL.match(value)
            assert match is not None, value
            mean, low, high = map(float, match.groups())
        else:
            mean, low, high = (100 * x for x in (value["value"], *value["interval_95"]))
        label = "before" if offset == 0 else config.split(", ")[1].split(" (")[0]
        axes.bar(
            place + 0.2 * (offset - 1.5), mean, 0.18, color=INKS[offset],
            label=None if label in seen else label,
            yerr=[[mean - low], [high - mean]], error_kw={"elinewidth": 1.2, "capsize": 2.5},
        )  # fmt: skip
        seen.add(label)
    axes.set_xticks(range(place + 1), list(NAMES.values())[: place + 1])
    axes.set_ylim(0, 115)
    axes.set_ylabel("held-out pass@1, percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=4, loc="upper right", fontsize=9)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
