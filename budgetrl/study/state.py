"""What a sweep's directory holds besides its runs: `study.json`, the plan and how far it came.

    study = StudyDir.create(path, plan, config) | open_study(path)
    study.trials -> [TrialState]      each with its run directory, once it has begun

The runs lie beside it, so `budgetrl runs --out SWEEP` lists them. One process writes it, the one
that hands out the trials.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetrl.account.run import Account
from budgetrl.budget import Budget
from budgetrl.errors import RunDirError, UsageError
from budgetrl.files import lock_exclusively, write_json
from budgetrl.history import read_history
from budgetrl.rundir import RESOLVED, RunDir
from budgetrl.study.place import STUDY
from budgetrl.study.specs import TrialSpec
from budgetrl.types import RunStatus

if TYPE_CHECKING:
    from budgetrl.study.plan import SweepPlan

LOCK = "study.lock"
SCHEMA_VERSION = 2
"""1 had a rank and a rule for alpha in place of values, and no sweeps."""


@dataclass(frozen=True, slots=True)
class TrialState:
    """One trial of a sweep that exists."""

    spec: TrialSpec
    row: Mapping[str, Any]
    """As `plan_rows` makes it."""
    run: str | None = None
    """Name of its run directory; None before it began."""
    error: str | None = None
    """Why it could not begin or go on."""
    scores: Mapping[int, float] = field(default_factory=dict)
    """Under ASHA: pass@1 by the updates at which it was judged."""


class StudyDir:
    """The folder of one sweep or study."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self._document = document
        self.trials = [_trial(entry) for entry in document["arms"]]

    @classmethod
    def create(cls, path: Path, made: "SweepPlan", config: Mapping[str, Any]) -> "StudyDir":
        """A new study in an empty or new folder.

        Raises:
            RunDirError: the folder cannot be made, or holds something else.
        """
        # Not at the top: reports look for a study too, and need nothing of planning.
        from budgetrl.study.plan import plan_rows

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
        rows = zip(made.trials, plan_rows(made), strict=True)
        document = {
            "schema_version": SCHEMA_VERSION,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "config": dict(config),
            "budget": asdict(made.budget),
            "report_s": made.report_s,
            "detectable": made.detectable(),
            "detectable_over_seeds": made.detectable_over_seeds(),
            "rungs": list(made.rungs),
            "outside_arms_s": 0.0,
            "arms": [_entry(TrialState(trial.spec, row)) for trial, row in rows],
        }
        study = cls(path.resolve(), document)
        study._write()
        return study

    @property
    def config(self) -> Mapping[str, Any]:
        """What the study was asked for."""
        return dict(self._document["config"])

    @property
    def on(self) -> str:
        """Where its trials run: local, ray, or the address of a Ray cluster."""
        return str(self._document.get("on", "local"))

    def note_on(self, on: str) -> None:
        """Run it elsewhere from now on."""
        self._document["on"] = on
        self._write()

    @property
    def budget(self) -> Budget:
        """Of the whole study."""
        return Budget(**self._document["budget"])

    @property
    def report_s(self) -> float:
        """Kept for the study's report."""
        return float(self._document["report_s"])

    @property
    def detectable(self) -> Mapping[str, float]:
        """By suite, the smallest difference that can be told from noise."""
        return dict(self._document["detectable"])

    @property
    def detectable_over_seeds(self) -> float | None:
        """The same where seeds spread as little as they ever do; None for one seed."""
        found: float | None = self._document.get("detectable_over_seeds")
        return found

    @property
    def rungs(self) -> tuple[int, ...]:
        """Updates at which ASHA judges; empty without it."""
        return tuple(self._document.get("rungs", ()))

    def update(self, index: int, **changed: Any) -> None:
        """Note how far a trial is."""
        self.trials[index] = replace(self.trials[index], **changed)
        self._document["arms"][index] = _entry(self.trials[index])
        self._write()

    def note_paid(self, total_s: float) -> None:
        """Note the paid seconds of all cards, whether trials ran on them or not."""
        self._document["outside_arms_s"] = max(0.0, total_s - self.paid_in_arms_s())
        self._write()

    def run_of(self, trial: TrialState) -> RunDir | None:
        """A trial's run; None before it began, or if it left nothing."""
        if trial.run is None or not (self.path / trial.run / RESOLVED).is_file():
            return None
        return RunDir(self.path / trial.run)

    def account(self, trial: TrialState) -> Account | None:
        """What a trial has made and paid; None before it began."""
        run = self.run_of(trial)
        return None if run is None else Account(run, read_history(run))

    def runs(self) -> list[RunDir]:
        """All runs that exist, in the order of the trials."""
        return [run for trial in self.trials if (run := self.run_of(trial)) is not None]

    def status(self, trial: TrialState) -> str:
        """pending, failed, or as of its run directory."""
        run = self.run_of(trial)
        if run is None:
            return RunStatus.FAILED.value if trial.error else "pending"
        return run.status().value

    def paid_in_arms_s(self) -> float:
        """Seconds that all arms have paid."""
        return sum(Account(run, read_history(run)).paid_s for run in self.runs())

    def paid_s(self) -> float:
        """Seconds that the study has paid so far; gaps between attempts cost nothing."""
        return self.paid_in_arms_s() + float(self._document["outside_arms_s"])

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
        try:
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunDirError(f"cannot write to {self.path}: {error.strerror}.") from None
        try:
            if not lock_exclusively(lock):
                raise RunDirError(
                    f"{self.path} is in use: another process runs it.",
                    hint=f"Look at it with `budgetrl watch {self.path}`.",
                )
            yield
        finally:
            os.close(lock)

    def is_held(self) -> bool:
        """Whether a process hands out its trials now."""
        return RunDir(self.path).is_locked(LOCK)

    def check_config(self, config: Mapping[str, Any]) -> None:
        """A sweep goes on as it began.

        Raises:
            UsageError: it is asked for something else now.
        """
        differing = [key for key, value in config.items() if self.config.get(key) != value]
        if differing:
            was = ", ".join(f"{key} = {self.config.get(key)}" for key in differing)
            raise UsageError(
                f"{self.path} is a study with another configuration ({was}).",
                hint=f"Continue it with `budgetrl resume {self.path}`, or give another --out.",
            )

    def _write(self) -> None:
        write_json(self.path / STUDY, self._document)


def open_study(path: Path) -> StudyDir:
    """An existing study.

    Raises:
        RunDirError: none there, or one of another version.
    """
    try:
        document = json.loads((path / STUDY).read_text(encoding="utf-8"))
        if document["schema_version"] not in (1, SCHEMA_VERSION):
            raise ValueError(f"schema version {document['schema_version']}")
        return StudyDir(path.resolve(), document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirError(
            f"{path / STUDY}: cannot be read as a study: {error}.",
            hint="Its runs are whole: `budgetrl report` takes them one by one or together.",
        ) from None


def _entry(trial: TrialState) -> dict[str, Any]:
    return asdict(trial)


def _trial(entry: Mapping[str, Any]) -> TrialState:
    spec = entry["spec"]
    older = {"lora.rank": spec.get("rank")} | (
        {} if spec.get("alpha", "fixed") == "fixed" else {"lora.alpha_policy": spec["alpha"]}
    )
    return TrialState(
        TrialSpec(spec["recipe"], tuple(spec["sets"]), spec["seed"], spec.get("values", older)),
        entry["row"],
        entry["run"],
        entry["error"],
        {int(steps): score for steps, score in entry.get("scores", {}).items()},
    )
