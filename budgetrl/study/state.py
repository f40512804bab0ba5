"""What a study directory holds besides its runs: `study.json`, the plan and how far it came.

    study = StudyDir.create(path, plan, config) | open_study(path)
    study.arms -> [ArmState]      each with its run directory, once it has begun

The runs lie beside it, so `budgetrl runs --out STUDY` lists them.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetrl.budget import Budget
from budgetrl.errors import RunDirError, UsageError
from budgetrl.files import write_json
from budgetrl.history import read_history
from budgetrl.recipe.base import AlphaPolicy
from budgetrl.rundir import RESOLVED, RunDir
from budgetrl.study.arms import ArmSpec
from budgetrl.supervise.attempt import paid_seconds
from budgetrl.types import RunStatus

if TYPE_CHECKING:
    from budgetrl.study.plan import StudyPlan

STUDY = "study.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class ArmState:
    """One arm of a study that exists."""

    spec: ArmSpec
    row: Mapping[str, Any]
    """As `plan_rows` makes it."""
    run: str | None = None
    """Name of its run directory; None before it began."""
    error: str | None = None
    """Why it could not begin or go on."""


class StudyDir:
    """One study's folder."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self._document = document
        self.arms = [_arm(entry) for entry in document["arms"]]

    @classmethod
    def create(cls, path: Path, made: "StudyPlan", config: Mapping[str, Any]) -> "StudyDir":
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
        rows = zip(made.arms, plan_rows(made), strict=True)
        document = {
            "schema_version": SCHEMA_VERSION,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "config": dict(config),
            "budget": asdict(made.budget),
            "report_s": made.report_s,
            "detectable": made.detectable(),
            "outside_arms_s": 0.0,
            "arms": [_entry(ArmState(arm.spec, row)) for arm, row in rows],
        }
        study = cls(path.resolve(), document)
        study._write()
        return study

    @property
    def config(self) -> Mapping[str, Any]:
        """What the study was asked for."""
        return dict(self._document["config"])

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

    def update(self, index: int, **changed: Any) -> None:
        """Note how far an arm is."""
        self.arms[index] = replace(self.arms[index], **changed)
        self._document["arms"][index] = _entry(self.arms[index])
        self._write()

    def note_paid(self, total_s: float) -> None:
        """Note the paid seconds of the whole study, between two arms."""
        self._document["outside_arms_s"] = max(0.0, total_s - self.paid_in_arms_s())
        self._write()

    def run_of(self, arm: ArmState) -> RunDir | None:
        """An arm's run; None before it began, or if it left nothing."""
        if arm.run is None or not (self.path / arm.run / RESOLVED).is_file():
            return None
        return RunDir(self.path / arm.run)

    def runs(self) -> list[RunDir]:
        """All runs that exist, in the order of the arms."""
        return [run for arm in self.arms if (run := self.run_of(arm)) is not None]

    def status(self, arm: ArmState) -> str:
        """pending, failed, or as of its run directory."""
        run = self.run_of(arm)
        if run is None:
            return RunStatus.FAILED.value if arm.error else "pending"
        return run.status().value

    def paid_in_arms_s(self) -> float:
        """Seconds that all arms have paid."""
        return sum(paid_seconds(run, read_history(run)) for run in self.runs())

    def paid_s(self) -> float:
        """Seconds that the study has paid so far; gaps between attempts cost nothing."""
        return self.paid_in_arms_s() + float(self._document["outside_arms_s"])

    def check_config(self, config: Mapping[str, Any]) -> None:
        """A study goes on as it began.

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


def is_study(path: Path) -> bool:
    """Whether a folder holds a study."""
    return (path / STUDY).is_file()


def open_study(path: Path) -> StudyDir:
    """An existing study.

    Raises:
        RunDirError: none there, or one of another version.
    """
    try:
        document = json.loads((path / STUDY).read_text(encoding="utf-8"))
        if document["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {document['schema_version']}")
        return StudyDir(path.resolve(), document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirError(
            f"{path / STUDY}: cannot be read as a study: {error}.",
            hint="Its runs are whole: `budgetrl report` takes them one by one or together.",
        ) from None


def _entry(arm: ArmState) -> dict[str, Any]:
    return {"spec": asdict(arm.spec), "row": dict(arm.row), "run": arm.run, "error": arm.error}


def _arm(entry: Mapping[str, Any]) -> ArmState:
    spec = entry["spec"]
    return ArmState(
        ArmSpec(
            recipe=spec["recipe"],
            sets=tuple(spec["sets"]),
            rank=spec["rank"],
            alpha=AlphaPolicy(spec["alpha"]),
            seed=spec["seed"],
        ),
        entry["row"],
        entry["run"],
        entry["error"],
    )
