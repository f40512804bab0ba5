"""Lengths of answers to evaluation suites, from how long evaluations took.

    python scripts/fit_suites.py openrs_eval_results.csv openrs_r1distill15b_n8_histogram.json

82 evaluations of Open-RS checkpoints on one A40 (vLLM, one sample, 32,768 tokens) give seconds, not
lengths. The rollout formula is inverted: the mean length at which it takes the median time of a
suite. Lengths are stored over those of training completions on Open-RS, which follow from the share
that ends within 2,048 tokens. Each experiment is left out once and predicted from the others.
"""

import argparse
import csv
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from budgetrl.estimation.lengths import Lengths
from budgetrl.estimation.memory import weight_bytes
from budgetrl.estimation.rollout import decode
from budgetrl.estimation.shapes import find_shape
from budgetrl.estimation.terms import load_constants, read_constants, total
from budgetrl.estimation.workload import Generation, Precision, Serving
from budgetrl.hardware import find_gpu
from budgetrl.units import GIB

ASSET = Path(__file__).resolve().parent.parent / "budgetrl/assets/estimator.json"
SUITES = {"math_500": ("math500",), "amc23": ("amc23",), "aime24": ("aime24", "aime25")}
CV = 1.8
"""Fits the share below 2,048 and nearly the 10 % quantile of the histogram (which asks for 2.5)."""
STARTUP_S = 75.0
"""Loading the model and starting vLLM, in every evaluation."""
LIMIT = 32_768.0
PROMPT_TOKENS = 150
UTILIZATION = 0.8


def evaluation_s(problems: int, uncut_mean: float) -> float:
    """Seconds of one evaluation by the estimator's own formula."""
    shape = find_shape("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
    gpu = find_gpu("A40")
    kv = UTILIZATION * gpu.usable_gib * GIB - weight_bytes(shape, Precision.BF16) - 2 * GIB
    work = Generation.of(problems, problems, PROMPT_TOKENS, _lengths(uncut_mean, LIMIT))
    return STARTUP_S + total(decode(work, Serving(kv_bytes=kv), shape, gpu, load_constants()).terms)


def length_for(problems: int, seconds: float) -> float:
    """The uncut mean length at which an evaluation takes this long."""
    return _bisect(lambda mean: evaluation_s(problems, mean), seconds, 200.0, 100_000.0)


def training_length(histogram: dict[str, Any]) -> float:
    """Uncut mean of training completions from the share that ended within the limit."""
    ended = histogram["finish_reason"]["stop"]
    share = ended / (ended + histogram["finish_reason"]["length"])
    sigma = math.sqrt(math.log1p(CV * CV))
    limit = histogram["max_new_tokens"]
    mu = math.log(limit) - sigma * NormalDist().inv_cdf(share)
    return math.exp(mu + sigma**2 / 2)


def _lengths(uncut_mean: float, limit: float) -> Lengths:
    sigma = math.sqrt(math.log1p(CV * CV))
    return Lengths(math.log(uncut_mean) - sigma**2 / 2, sigma, limit)


def _bisect(function: Callable[[float], float], target: float, low: float, high: float) -> float:
    for _ in range(50):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if function(middle) < target else (low, middle)
    return math.sqrt(low * high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", type=Path, help="CSV with task, n_docs, eval_seconds")
    parser.add_argument("histogram", type=Path, help="JSON with finish_reason of training answers")
    parser.add_argument("--write", action="store_true", help="update the constants of the package")
    arguments = parser.parse_args()
    rows = list(csv.DictReader(arguments.evaluations.open(encoding="utf-8")))
    training = training_length(json.loads(arguments.histogram.read_text(encoding="utf-8")))
    over_training = {}
    print("| suite | evaluations | median s | mean tokens at 32,768 | over training | left out |")
    print("|---|---|---|---|---|---|")
    for task, suites in SUITES.items():
        found = [row for row in rows if row["task"] == task]
        problems = int(found[0]["n_docs"])
        seconds = statistics.median(float(row["eval_seconds"]) for row in found)
        uncut = length_for(problems, seconds)
        over_training.update(dict.fromkeys(suites, round(uncut / training, 2)))
        print(
            f"| {task} | {len(found)} | {seconds:.0f} | {_lengths(uncut, LIMIT).mean:.0f} "
            f"| {uncut / training:.2f} | {_left_out(found, problems):.0%} |"
        )
    if arguments.write:
        data = read_constants()
        data["suites"] |= {"cv": CV, "over_training": over_training}
        ASSET.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _left_out(rows: Sequence[dict[str, str]], problems: int) -> float:
    """Median error over evaluations, each experiment predicted from the others."""
    errors = []
    for experiment in sorted({row["experiment"] for row in rows}):
        others = [float(r["eval_seconds"]) for r in rows if r["experiment"] != experiment]
        predicted = evaluation_s(problems, length_for(problems, statistics.median(others)))
        for row in rows:
            if row["experiment"] == experiment:
                errors.append(abs(predicted / float(row["eval_seconds"]) - 1))
    return statistics.median(errors)


if __name__ == "__main__":
    main()
