"""What the rules say of recorded runs that were made ill, and of healthy ones.

    python scripts/check_alarms.py [--half tuning|judging|all]
    python scripts/check_alarms.py --lines      how often `no_progress` names runs that gain so much

The runs are those of scripts/diagnosis_runs.py, in docs/measurements/diagnosis.json.gz. Rules were
tuned on one half; the other half, with seeds of its own, judges them. For each ill run: the update
after which it was named first, and by which rules, beside the update by which it had to be: the
middle between the onset of its collapse (its best held-out accuracy before it fell) and its end, or
half of its updates, if that is later. A healthy run that is named is a false alarm.
"""

import argparse
import gzip
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from budgetrl.diagnosis import learning
from budgetrl.diagnosis.rules import RULES
from budgetrl.diagnosis.story import Held, Story

RECORDED = Path(__file__).resolve().parent.parent / "docs" / "measurements" / "diagnosis.json.gz"
SIMULATED, TRAINED_NOISE, HELD_NOISE = 400, 0.07, 0.02
FALLEN, SURELY = 0.08, 3.0
"""A collapse: held-out accuracy falls from its best by so much, and by so many standard errors of
the difference; the best of seven evaluations is two of them above another one by chance alone."""


class Judged(NamedTuple):
    """What was said of one run, and when."""

    run: dict[str, Any]
    named: dict[str, int]
    """Rules of severity warning or stop, and the update after which each spoke first."""
    onset: int | None
    """Of a collapse."""
    due: float

    @property
    def first(self) -> int | None:
        """The update after which the run was named."""
        return min(self.named.values(), default=None)

    @property
    def in_time(self) -> bool:
        """Whether an ill run was named early enough."""
        return self.first is not None and self.first <= self.due


def load(half: str = "all") -> list[dict[str, Any]]:
    """The recordings, or one half of them."""
    runs: list[dict[str, Any]] = json.loads(gzip.decompress(RECORDED.read_bytes()))
    return [run for run in runs if half == "all" or run["tuning"] == (half == "tuning")]


def story_of(run: dict[str, Any]) -> Story:
    """A recording as the rules see it."""
    steps: list[Any] = [SimpleNamespace(**{"kl_teacher": None} | step) for step in run["steps"]]
    return Story(
        steps=steps,
        held=[Held(*one) for one in run["held"]],
        weights=run["weights"],
        max_tokens=run["max_tokens"],
        planned=run["planned"],
        learning_rate=run["learning_rate"],
        stationary=True,
    )


def judge(run: dict[str, Any]) -> Judged:
    """What the rules would have said while it ran, after each update and evaluation."""
    story, named = story_of(run), {}
    for seen in story.looks(step.step for step in story.steps):
        for rule in RULES:
            if rule.severity != "info" and rule.name not in named and rule.check(seen) is not None:
                named[rule.name] = seen.now
    end, onset = story.now, _onset(story)
    due = end / 2 if onset is None else max(onset + (end - onset) / 2, end / 2)
    return Judged(run, named, onset, due)


def _onset(story: Story) -> int | None:
    """The update of the best held-out accuracy, where what follows ends below it."""
    best = max(story.held, key=lambda one: one.accuracy, default=None)
    if best is None:
        return None
    worst = min((one for one in story.held if one.step >= best.step), key=lambda one: one.accuracy)
    fall, noise = best.accuracy - worst.accuracy, math.hypot(best.error, worst.error)
    return best.step if fall >= max(FALLEN, SURELY * noise) else None


def table(judged: Sequence[Judged]) -> str:
    """A row for each run."""
    lines = [
        "| run | seed | updates | held-out accuracy | onset | due | named after | by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in judged:
        run, held = one.run, one.run["held"]
        order = sorted(one.named.items(), key=lambda named: named[1])
        by = ", ".join(f"{name} ({step})" for name, step in order)
        lines.append(
            f"| {'ill' if run['ill'] else 'healthy'}: {run['name']} | {run['seed']} | "
            f"{len(run['steps'])} | {held[0][1]:.0%} -> {max(h[1] for h in held):.0%} -> "
            f"{held[-1][1]:.0%} | {'-' if one.onset is None else one.onset} | "
            f"{f'{one.due:.0f}' if run['ill'] else '-'} | {one.first or '-'} | {by or '-'} |"
        )
    return "\n".join(lines)


def figures(judged: Sequence[Judged]) -> str:
    """What came of all of them."""
    ill = [one for one in judged if one.run["ill"]]
    fallen = [one for one in ill if one.onset is not None]
    healthy = [one for one in judged if not one.run["ill"]]
    return (
        f"Collapses named in time: {sum(one.in_time for one in fallen)} of {len(fallen)}. "
        f"Ill runs named: {sum(bool(one.named) for one in ill)} of {len(ill)}, "
        f"{sum(one.in_time for one in ill)} of them in time. "
        f"Healthy runs named: {sum(bool(one.named) for one in healthy)} of {len(healthy)}."
    )


def lines() -> str:
    """Shares of simulated runs that `no_progress` names at any look: lines through white noise.

    Noise is that of the recorded runs: of 64 completions, and of the same held-out problems again.
    """
    found = ["| updates | held-out every | gain by the end | named |", "|---|---|---|---|"]
    for updates, every in ((24, 4), (24, None), (40, 10), (100, 20)):
        for gain in (0.0, 0.02, 0.05, 0.1):
            random = np.random.default_rng(0)
            named = sum(_is_named(random, updates, every, gain) for _ in range(SIMULATED))
            found.append(f"| {updates} | {every or '-'} | {gain:.0%} | {named / SIMULATED:.1%} |")
    return "\n".join(found)


def _is_named(random: np.random.Generator, updates: int, every: int | None, gain: float) -> bool:
    true = 0.2 + gain * np.arange(updates + 1) / updates
    rest = {"groups": 8, "reward_std": 0.4, "truncated_share": 0, "sampling_logp_diff_mean": None}
    steps: list[Any] = [
        SimpleNamespace(step=i, accuracy_mean=value, reward_mean=value, **rest)
        for i, value in enumerate(true + random.normal(0, TRAINED_NOISE, len(true)))
    ]
    seen = true + random.normal(0, HELD_NOISE, len(true))
    held = [Held(i, seen[i], 0.03) for i in range(0, updates + 1, every or updates + 1)]
    story = Story(steps[1:], held, {}, 64, updates, 1e-3, stationary=True)
    looks = range(learning.PATIENCE, updates + 1)
    return any(learning.no_progress(story.until(look)) is not None for look in looks)


def main() -> int:
    """Print a row for each run, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=["tuning", "judging", "all"], default="judging")
    parser.add_argument("--lines", action="store_true")
    options = parser.parse_args()
    if options.lines:
        print(lines())
        return 0
    judged = [judge(run) for run in load(options.half)]
    print(f"{table(judged)}\n\n{figures(judged)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
