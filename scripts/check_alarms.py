"""What the rules say of recorded runs that were made ill, and of healthy ones.

    python scripts/check_alarms.py [--half tuning|judging|all]

The runs are those of scripts/diagnosis_runs.py, in docs/measurements/diagnosis.json.gz. Rules were
tuned on one half; the other half, with seeds of its own, judges them. For each ill run: the update
after which it was named first, and by which rules, beside the update by which it had to be: the
middle between the onset of its collapse (its best held-out accuracy before it fell) and its end, or
half of its updates, if that is later. A healthy run that is named is a false alarm.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from budgetrl.diagnosis.rules import RULES
from budgetrl.diagnosis.story import Held, Story

RECORDED = Path(__file__).resolve().parent.parent / "docs" / "measurements" / "diagnosis.json.gz"
FALLEN = 0.08
"""Held-out accuracy below its best by so much, at the end of a collapse."""


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
    """What the rules would have said while it ran, after each update."""
    story, named = story_of(run), {}
    for step in story.steps:
        seen = story.until(step.step)
        for rule in RULES:
            if rule.severity != "info" and rule.name not in named and rule.check(seen) is not None:
                named[rule.name] = step.step
    end, onset = story.now, _onset(story)
    due = end / 2 if onset is None else max(onset + (end - onset) / 2, end / 2)
    return Judged(run, named, onset, due)


def _onset(story: Story) -> int | None:
    """The update of the best held-out accuracy, where what follows ends below it."""
    best = max(story.held, key=lambda one: one.accuracy, default=None)
    if best is None:
        return None
    worst = min(one.accuracy for one in story.held if one.step >= best.step)
    return best.step if best.accuracy - worst >= FALLEN else None


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


def main() -> int:
    """Print a row for each run, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=["tuning", "judging", "all"], default="judging")
    options = parser.parse_args()
    judged = [judge(run) for run in load(options.half)]
    print(f"{table(judged)}\n\n{figures(judged)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
