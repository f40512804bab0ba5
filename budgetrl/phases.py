"""The phases of a run and of an update: the one table that all others are made of.

A new phase is a line in `PHASES` and a name in `PhaseName`; where the plan has times for it, also a
field `<name>_s` of `budget.PhaseTimes`. What one took is in the run's events.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

PhaseName = Literal[
    "imports",
    "download",
    "model",
    "data",
    "preflight",
    "baseline",
    "train",
    "evaluation",
    "entropy",
    "traces",
    "gate",
    "checkpoint",
    "final",
    "report",
]


class PhaseKind(NamedTuple):
    """What is known of a phase besides its name."""

    doing: str
    """What people are told while it lasts."""
    bill: Literal["setup", "baseline", "train", "end"]
    """Which part of the bill its seconds are of."""
    inside: PhaseName | None = None
    """The phase around it."""
    always: bool = True
    """Whether every run has it."""
    quiet: bool = False
    """What comes of it has an event, and a line, of its own."""


PHASES: Mapping[str, PhaseKind] = {
    "imports": PhaseKind("starting", "setup"),
    "download": PhaseKind("downloading", "setup", always=False),
    "model": PhaseKind("loading the model", "setup"),
    "data": PhaseKind("loading problems", "setup"),
    "preflight": PhaseKind("trying the longest update", "setup", "data", always=False),
    "baseline": PhaseKind("measuring the baseline", "baseline"),
    "train": PhaseKind("training", "train"),
    "evaluation": PhaseKind("evaluating", "train", "train", always=False, quiet=True),
    "entropy": PhaseKind("measuring entropy", "train", "train", always=False, quiet=True),
    "traces": PhaseKind("drawing demonstrations", "train", always=False),
    "gate": PhaseKind("trying the next stage", "train", always=False, quiet=True),
    "checkpoint": PhaseKind("saving", "train", quiet=True),
    "final": PhaseKind("final evaluation", "end"),
    "report": PhaseKind("writing the report", "end"),
}

UPDATE_PHASES = ("rollout", "reward", "logprob", "update", "other")
"""Of one update; "other" is what is left of its wall time."""


ONCE = tuple(n for n, kind in PHASES.items() if kind.bill != "train" and kind.inside is None)
"""What a run has once, and a plan has times for; the phases of an update come again."""
MEASURED_ONCE = tuple(name for name in ONCE if name not in ("download", "report"))
"""Of these, what one run tells the next: not a download, and not a report, which comes last."""


def phase_label(name: str) -> str:
    """What people read for the name of a phase."""
    return "trial update" if name == "preflight" else name
