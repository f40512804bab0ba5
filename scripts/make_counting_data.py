"""Make the problems of recipes/laptop_smollm2.toml: "17, 18, 19, what is next?", from a seed.

    python scripts/make_counting_data.py    # budgetrl/assets/counting/{train,heldout}.jsonl

Every start from 1 to 499 occurs once, so no held-out problem is trained on. Two numbers that stand
as worked examples in the recipe's template are left out. Two runs write the same bytes.
"""

import argparse
import json
import random
from pathlib import Path

from budgetrl.files import write_atomic

OUT = Path(__file__).resolve().parents[1] / "budgetrl" / "assets" / "counting"
STARTS = range(1, 500)
EXAMPLES = (4, 120)
"""Starts of the worked turns in the recipe's prompt.chat_template."""
HELDOUT = 200
SEED = 1


def rows(part: str, starts: list[int]) -> list[dict[str, str]]:
    """Problems whose answer is the number after three in a row."""
    return [
        {
            "id": f"{part}-{start}",
            "problem": f"{start}, {start + 1}, {start + 2}, what is next?",
            "answer": str(start + 3),
        }
        for start in starts
    ]


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    starts = [start for start in STARTS if start not in EXAMPLES]
    random.Random(SEED).shuffle(starts)
    out.mkdir(parents=True, exist_ok=True)
    for part, chosen in (("heldout", starts[:HELDOUT]), ("train", starts[HELDOUT:])):
        lines = [json.dumps(row) + "\n" for row in rows(part, chosen)]
        write_atomic(out / f"{part}.jsonl", "".join(lines))


if __name__ == "__main__":
    main()
