"""What a sweep's directory holds besides its runs: `study.json`, the plan and how far it came.

    study = StudyDir.create(path, plan_sweep(...)) | open_study(path)
    study.trials -> [Trial]           each with its run directory, once it has begun

The runs lie beside it, so `budgetrl runs --out SWEEP` lists them. One process writes it, the one
that hands out the trials.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from budgetrl.account.run import Account
from budgetrl.budget import Budget
from budgetrl.errors import RunDirError, UsageError
from budgetrl.files import PRIVATE_MODE, clear_temporary, parse_json, write_json
from budgetrl.history import read_history
from budgetrl.recipe.base import Rank
from budgetrl.rundir import RunDir
from budgetrl.study.place import STUDY
from budgetrl.study.specs import Asked, TrialSpec
from budgetrl.types import RunStatus

LOCK = "study.lock"
SCHEMA_VERSION = 3


@dataclass(frozen=True, slots=True)
class Share:
    """A trial's adapter and its part of the budget, as planned."""

    recipe: str
    rank: Rank
    lora_scale: float | None
    """alpha / r; None where all weights are trained."""
    budget_s: float
    """Wall seconds."""
    planned_steps: int
    expected_s: float
    expected_usd: float | None = None
    step_s: float | None = None
    baseline_s: float = 0.0
    """Of these seconds for the evaluation before training; 0 where an earlier trial has it."""
    alpha: float | None = None
    alpha_policy: str = "fixed"


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a sweep: what it is, what was planned, how far it came."""

    spec: TrialSpec
    row: Share
    run: str | None = None
    """Name of its run directory; None before it began."""
    error: str | None = None
    """Why it could not begin or go on."""
    scores: Mapping[int, float] = field(default_factory=dict)
    """Under ASHA: pass@1 by the updates at which it was judged."""

    def plan_row(self, index: int) -> dict[str, Any]:
        """What was planned, for tables and JSON."""
        spec = {"values": dict(self.spec.values), "seed": self.spec.seed}
        return {"index": index, **spec, **asdict(self.row)}


@dataclass(slots=True)
class Sweep:
    """All of `study.json`: trials inside one budget."""

    config: Asked
    budget: Budget
    arms: list[Trial]
    report_s: float
    """Kept for the sweep's own report."""
    detectable: Mapping[str, float]
    """By suite, the smallest difference in pass@1 that its evaluation tells from noise."""
    detectable_over_seeds: float | None = None
    """The same where seeds spread as little as they ever do; None for one seed."""
    rungs: tuple[int, ...] = ()
    """Updates at which ASHA judges; empty without it."""
    slots: int = 1
    """Cards, or cores, that were to work at the same time."""
    wall_s: float = 0.0
    """Expected wall seconds."""
    source: str = ""
    """Where the times come from, for people."""
    on: str = "local"
    """Where its trials run: local, ray, or the address of a Ray cluster."""
    outside_arms_s: float = 0.0
    """Paid seconds of all cards in which no trial ran."""
    created: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def total_s(self) -> float:
        """Expected seconds of all cards."""
        return self.slots * self.wall_s


class StudyDir:
    """The folder of one sweep or study."""

    def __init__(self, path: Path, sweep: Sweep) -> None:
        self.path, self.sweep = path, sweep

    @classmethod
    def create(cls, path: Path, made: Sweep) -> "StudyDir":
        """A new study in an empty or new folder.

        Raises:
            RunDirError: the folder cannot be made, or holds something else.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            taken = any(path.iterdir())
        except OSError as error:
            raise RunDirError(
                f"cannot create the study directory {path}: {error.strerror}.",
                hint="Give another folder with --out.",
            ) from None
        if taken:
            raise RunDirError(
                f"{path} is not empty, and no study.", hint="Give another folder with --out."
            )
        study = cls(path.resolve(), made)
        study.note(created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        return study

    @property
    def trials(self) -> list[Trial]:
        """In the order of the grid."""
        return self.sweep.arms

    @property
    def config(self) -> Asked:
        """What the study was asked for."""
        return self.sweep.config

    def update(self, index: int, **changed: Any) -> None:
        """Note how far a trial is."""
        self.trials[index] = replace(self.trials[index], **changed)
        self.note()

    def note(self, **changed: Any) -> None:
        """Change what is known of the sweep as a whole."""
        self.sweep = replace(self.sweep, **changed)
        # Values of --set and --grid stand there as they were given.
        write_json(self.path / STUDY, asdict(self.sweep), PRIVATE_MODE)

    def note_paid(self, total_s: float) -> None:
        """Note the paid seconds of all cards, whether trials ran on them or not."""
        self.note(outside_arms_s=max(0.0, total_s - self.paid_in_arms_s()))

    def run_of(self, trial: Trial) -> RunDir | None:
        """A trial's run; None before it began, or if it left nothing."""
        run = RunDir(self.path / trial.run) if trial.run is not None else None
        return run if run is not None and run.exists() else None

    def account(self, trial: Trial) -> Account | None:
        """What a trial has made and paid; None before it began."""
        run = self.run_of(trial)
        return None if run is None else Account(run, read_history(run))

    def runs(self) -> list[RunDir]:
        """All runs that exist, in the order of the trials."""
        return [run for trial in self.trials if (run := self.run_of(trial)) is not None]

    def status(self, trial: Trial) -> str:
        """pending, failed, or as of its run directory."""
        run = self.run_of(trial)
        if run is None:
            return RunStatus.FAILED.value if trial.error else "pending"
        return run.status().value

    def paid_in_arms_s(self) -> float:
        """Seconds that all arms have paid."""
        return sum(account.paid_s for trial in self.trials if (account := self.account(trial)))

    def paid_s(self) -> float:
        """Seconds that the study has paid so far; gaps between attempts cost nothing."""
        return self.paid_in_arms_s() + self.sweep.outside_arms_s

    def discard(self) -> None:
        """Take away a sweep of which nothing has begun."""
        (self.path / STUDY).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    @contextmanager
    def held(self) -> Iterator[None]:
        """The one process that hands out the trials.

        Raises:
            RunDirError: there is one already, or the folder cannot be written.
        """
        with RunDir(self.path).locked(LOCK, "runs it"):
            clear_temporary(self.path, "report/", "report/*/")
            yield

    def is_held(self) -> bool:
        """Whether a process hands out its trials now."""
        return RunDir(self.path).is_locked(LOCK)

    def check(self, asked: Asked) -> None:
        """A sweep goes on as it began.

        Raises:
            UsageError: it is asked for something else now.
        """
        now = asdict(asked)
        was = [f"{k} = {value}" for k, value in asdict(self.config).items() if now[k] != value]
        if was:
            raise UsageError(
                f"{self.path} is a study with another configuration ({', '.join(was)}).",
                hint=f"Continue it with `budgetrl resume {self.path}`, or give another --out.",
            )


def open_study(path: Path) -> StudyDir:
    """An existing study.

    Raises:
        RunDirError: none there, or one of another version.
    """
    wrong = "is damaged"
    try:
        document = parse_json((path / STUDY).read_bytes())
        version = document["schema_version"]
        if version in (1, 2):
            _renew(document)
        elif version != SCHEMA_VERSION:
            wrong = f"has schema version {version}, and this budgetrl knows up to {SCHEMA_VERSION}"
            raise ValueError(wrong)
        return StudyDir(path.resolve(), TypeAdapter(Sweep).validate_python(document))
    except OSError as error:
        wrong = f"cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise RunDirError(
        f"{path / STUDY}: {wrong}.",
        hint="Its runs are whole: `budgetrl report` takes them one by one or together, and "
        "`budgetrl resume` goes on with each.",
    )


def _renew(document: dict[str, Any]) -> None:
    """Version 1 had a rank and a rule for alpha in place of values; 2 kept them for studies."""
    document["schema_version"], config = SCHEMA_VERSION, document["config"]
    ranks = {"lora.rank": config.get("ranks"), "lora.alpha_policy": config.get("alpha")}
    config.setdefault("grid", ranks)
    for arm in document["arms"]:
        spec = arm["spec"]
        alpha = spec.get("alpha", "fixed")
        other = {} if alpha == "fixed" else {"lora.alpha_policy": alpha}
        spec.setdefault("values", {"lora.rank": spec.get("rank"), **other})
        if config["split"] == "steps":
            steps = arm["row"]["planned_steps"]
            spec["sets"] = [*spec["sets"], f"schedule.stop_after_steps={steps}"]
