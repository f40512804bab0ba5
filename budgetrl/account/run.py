"""Everything a report says, read from one run directory; a damaged file is a note, not an error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from budgetrl.budget import PhaseTimes, Plan, usd_of
from budgetrl.errors import DataError, ProtocolError, RunDirError
from budgetrl.evaluation.compare import Difference, difference
from budgetrl.evaluation.rows import StoredEval, load_eval
from budgetrl.events import Evaluation
from budgetrl.files import read_jsonl
from budgetrl.history import History, read_history
from budgetrl.losses import find_losses
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import HEARTBEAT, MANIFEST, PLAN, RESOLVED, RESULT, RunDir
from budgetrl.types import Protocol, RunStatus

Shape = TypeVar("Shape", Plan, PhaseTimes)


@dataclass(slots=True)
class _Files:
    """The JSON files of a run, each an empty mapping where it cannot be read."""

    run: RunDir
    notes: list[str] = field(default_factory=list)

    def read(self, name: str) -> dict[str, Any]:
        try:
            value = self.run.read_json(name)
        except RunDirError as error:
            self.notes.append(error.message)
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Facts:
    """One run, as its files tell it."""

    run: RunDir
    history: History
    status: RunStatus
    recipe: Recipe | None
    """None where this budgetrl cannot read it."""
    resolved: Mapping[str, Any]
    """The recipe as plain tables."""
    sources: Mapping[str, str]
    manifest: Mapping[str, Any]
    plan: Plan | None
    times: PhaseTimes | None
    result: Mapping[str, Any]
    paid_s: float
    notes: tuple[str, ...]
    """What could not be read."""

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.resolved.get("recipe", {}).get("name", self.run.name))

    @property
    def model(self) -> str:
        """The base model's id."""
        return str(self.resolved.get("model", {}).get("id", "?"))

    @property
    def seed(self) -> int | None:
        """[recipe] seed."""
        seed = self.resolved.get("recipe", {}).get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def usd_per_hour(self) -> float | None:
        """The price that the bill is made with."""
        started = self.history.started
        if started is not None and started.usd_per_hour is not None:
            return started.usd_per_hour
        return self.plan.usd_per_hour if self.plan else None

    @property
    def paid_usd(self) -> float | None:
        """The bill."""
        bill = self.usd(self.paid_s)
        return self.history.spent_usd if bill is None else bill

    def usd(self, seconds: float | None) -> float | None:
        """What seconds cost, if a price is known."""
        return usd_of(seconds, self.usd_per_hour)

    @property
    def steps(self) -> int:
        """Updates that count."""
        return self.history.steps[-1].step if self.history.steps else 0

    @cached_property
    def suites(self) -> list[str]:
        """Evaluated suites, in the recipe's order where it has one."""
        order = [spec.suite for spec in self.recipe.eval] if self.recipe else []
        seen = self.history.suites()
        return sorted(seen, key=lambda s: order.index(s) if s in order else len(order))

    def evaluation(self, when: str, suite: str) -> Evaluation | None:
        """The newest evaluation of a suite at a moment."""
        return self.history.evaluation(when, suite)

    @cached_property
    def stored(self) -> Mapping[tuple[str, str], StoredEval]:
        """Baseline and final evaluations with their completions, by (suite, when)."""
        found = {}
        for suite in self.suites:
            for when in ("baseline", "final"):
                path = self.run.path / "evals" / suite / f"{when}.json"
                if path.is_file():
                    try:
                        found[suite, when] = load_eval(path)
                    except DataError:
                        continue
        return found

    @cached_property
    def further(self) -> Sequence[StoredEval]:
        """What `budgetrl eval` made of this run's checkpoints later, without completions."""
        found = []
        for path in sorted(self.run.path.glob("evals/*/eval-*.json")):
            try:
                stored = load_eval(path, with_rows=False)
            except DataError:
                continue
            if stored.result is not None:
                found.append(stored)
        return found

    @cached_property
    def cut(self) -> Mapping[str, str]:
        """Notices of suites whose files hold less than the run recorded."""
        found = {}
        for suite in self.suites:
            for when in ("baseline", "final"):
                recorded, stored = self.evaluation(when, suite), self.stored.get((suite, when))
                held = 0 if stored is None else stored.rounds()
                if recorded is not None and held < recorded.samples:
                    found[suite] = (
                        f"evals/{suite}/{when}.jsonl holds {held} complete of {recorded.samples} "
                        "recorded samples of each problem: it, or its .json, is missing, cut or "
                        "damaged. The numbers shown are those that the run recorded."
                    )
        return found

    @cached_property
    def differences(self) -> Mapping[str, Mapping[int, Difference]]:
        """Final minus baseline by suite and k: from the stored verdicts, or as once recorded."""
        found: dict[str, Mapping[int, Difference]] = {}
        for suite in self.suites:
            if self.evaluation("final", suite) is not None:
                recorded = self._recorded_difference(suite) if suite in self.cut else {}
                found[suite] = recorded or self._measured_difference(suite)
        return {suite: by_k for suite, by_k in found.items() if by_k}

    def _measured_difference(self, suite: str) -> Mapping[int, Difference]:
        final, base = self.stored.get((suite, "final")), self.stored.get((suite, "baseline"))
        if final is None or base is None:
            return {}
        try:
            return difference(final, base)
        except (DataError, ProtocolError):
            return {}

    def _recorded_difference(self, suite: str) -> Mapping[int, Difference]:
        """What the run wrote at its end."""
        finished = self.history.finished
        recorded = (finished.difference if finished else None) or self.result.get("difference")
        part = recorded.get(suite, {}) if isinstance(recorded, dict) else {}
        intervals = part.get("interval_95", {})
        return {
            int(k): Difference(
                value, tuple(intervals[k]) if intervals.get(k) else None, part.get("samples", 0)
            )
            for k, value in part.get("pass_at", {}).items()
        }

    def protocol(self, suite: str, when: str) -> Protocol | None:
        """How an evaluation was made; None where its files are gone."""
        stored = self.stored.get((suite, when))
        return None if stored is None else stored.protocol

    def completions(self, step: int) -> list[dict[str, Any]]:
        """The training completions of an update; empty where they are not stored."""
        path = self.run.path / "completions" / f"step_{step:06d}.jsonl"
        return list(read_jsonl(path)) if path.is_file() else []

    def relative(self, path: Path) -> str:
        """A path as seen from the run directory."""
        return path.relative_to(self.run.path).as_posix()


def read_facts(run: RunDir) -> Facts:
    """Read a run directory. Works for unfinished, crashed and partly damaged runs."""
    files = _Files(run)
    history = read_history(run)
    resolved = files.read(RESOLVED)
    plan = files.read(PLAN)
    heartbeat = files.read(HEARTBEAT)
    tables = resolved.get("recipe", {})
    recipe = _recipe(tables, files.notes)
    if history.newer_schema:
        files.notes.append(
            "Some events were written by a newer budgetrl; what this one cannot read is left out."
        )
    return Facts(
        run=run,
        history=history,
        status=run.status_of(history.finished),
        recipe=recipe,
        resolved=tables if isinstance(tables, dict) else {},
        sources=resolved.get("sources", {}),
        manifest=files.read(MANIFEST),
        plan=_shaped(Plan, plan.get("plan"), files.notes),
        times=_shaped(PhaseTimes, plan.get("times"), files.notes),
        result=files.read(RESULT),
        paid_s=max(history.elapsed_s, float(heartbeat.get("paid_s") or 0.0)),
        notes=(*files.notes, *_losses(run, history)),
    )


def _losses(run: RunDir, history: History) -> list[str]:
    """What is missing, as sentences."""
    found = find_losses(run, history).sentences()
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in found]


def _recipe(tables: Any, notes: list[str]) -> Recipe | None:
    try:
        return Recipe.model_validate(tables, strict=False)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors()[:3])
        notes.append(f"{RESOLVED}: the recipe is of another version ({fields}).")
        return None


def _shaped(kind: type[Shape], data: Any, notes: list[str]) -> Shape | None:
    if not isinstance(data, dict):
        return None
    names = {field.name for field in fields(kind)}
    try:
        return kind(**{key: value for key, value in data.items() if key in names})
    except TypeError:
        notes.append(f"{PLAN}: of another version; the estimate is left out.")
        return None
