"""What five limits of thinking cost beside the longest alone, in CPU seconds.

    python scripts/make_random_model.py Qwen/Qwen3-0.6B MODEL --tiny
    python scripts/check_thinking.py MODEL [--answer 64] [--temperature 1]

Random weights that always take the likeliest token never end their thinking, so that every limit
cuts every completion and every answer is as long as it may be: the worst case for limits that are
evaluated together. What loading takes is measured by a call that finds
everything stored, and taken off both sides.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path

from budgetrl.evaluation.judge import Evaluated, evaluate_target
from budgetrl.evaluation.specs import suite_specs
from budgetrl.evaluation.target import find_target


def main() -> int:
    """Print seconds of both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--limits", default="128,256,512,1024,2048")
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--turns", type=int, default=1, help="of each side; the least counts")
    options = parser.parse_args()
    limits = [int(part) for part in options.limits.split(",")]
    target = find_target(options.model)
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "sums.jsonl"
        rows = [
            {"problem": f"Compute {n}+{n}.", "answer": str(2 * n)} for n in range(options.problems)
        ]
        suite.write_text("".join(json.dumps(row) + "\n" for row in rows))

        def measured(limits: list[int], out: str) -> tuple[float, list[Evaluated]]:
            specs = suite_specs(
                target.recipe, [str(suite)], samples=1, ks=[1], max_tokens=options.answer,
                temperature=options.temperature, think=limits, think_whole=True,
            )  # fmt: skip
            start = time.process_time()
            found = evaluate_target(target, specs, Path(folder) / out)
            return time.process_time() - start, found

        measured(limits[:1], "warm")
        alone_s = all_s = load_s = math.inf
        for turn in range(options.turns):
            alone_s = min(alone_s, measured(limits[-1:], f"alone {turn}")[0])
            seconds, found = measured(limits, f"all {turn}")
            all_s = min(all_s, seconds)
            load_s = min(load_s, measured(limits, f"all {turn}")[0])
    for one in found:
        result = one.result
        assert result is not None and result.think is not None
        print(
            f"at most {result.think['max_tokens']:5d}: {result.think['forced_share']:.0%} cut, "
            f"{result.completion_tokens_mean:.0f} tokens"
        )
    alone_s, all_s = alone_s - load_s, all_s - load_s
    print(f"CPU seconds: {alone_s:.1f} alone, {all_s:.1f} for all: {all_s / alone_s:.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
