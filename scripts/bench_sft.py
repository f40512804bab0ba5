"""An SFT stage against plain TRL: trained tokens per CPU second, in turns, on the same rows.

    python scripts/bench_sft.py [--updates 12] [--rounds 3]

Plain TRL: `SFTTrainer` with its defaults on a CPU, batches of 32 texts, padded as they come. Prints
JSON; CPU seconds of the updates alone, on one thread.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "training"))

import test_sft as harness


def main() -> None:
    """Measure in turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    harness.ROWS, harness.UPDATES = 200, options.updates
    recipe = harness.part("data.limit=200", "sft.rows_per_step=32", "sft.micro_batch=16")
    recipe = recipe.model_copy(update={"lora": recipe.lora.model_copy(update={"rank": 64})})
    seconds: dict[str, list[float]] = {"stage": [], "trl": []}
    tokens: dict[str, int] = {}
    for _ in range(options.rounds):
        for side in seconds:
            with tempfile.TemporaryDirectory() as folder:
                spent, tokens[side] = measured(side, recipe, Path(folder))
            seconds[side].append(spent)
    speed = {side: tokens[side] / statistics.median(seconds[side]) for side in seconds}
    ratio = speed["stage"] / speed["trl"]
    print(json.dumps({"tokens": tokens, "seconds": seconds, "speed": speed, "ratio": ratio}))


def measured(side: str, recipe: Any, folder: Path) -> tuple[float, int]:
    """CPU seconds of the updates, and the tokens that they read, without padding."""
    trainer = (
        harness.our_trainer(recipe, folder)[0]
        if side == "stage"
        else (harness.their_trainer(recipe, folder, batch=32))
    )
    start = time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        trainer.train()
    spent = time.process_time() - start
    return spent, int(trainer._total_train_tokens)


if __name__ == "__main__":
    main()
