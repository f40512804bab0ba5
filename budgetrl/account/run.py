"""One run as its files and events tell it, typed; what is damaged or foreign is left out.

    Account(run, history)     paid_s, usd_of(seconds), plan, times, recipe, status_at(now)
    LiveRun(run)              `account.live`: the same of a run that goes on
    read_run(run)             `account.evaluated`: the same with its evaluations, for reports

Displays, reports, `--json` and a resumed run ask here, so that they say the same. Who goes on with
a run and needs a file whole reads it by `run_files`, which raises.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from budgetrl.budget import Budget, PhaseTimes, Plan, usd_of
from budgetrl.errors import RunDirError
from budgetrl.events import RunFinished
from budgetrl.history import History
from budgetrl.rundir import HEARTBEAT, MANIFEST, PLAN, RESOLVED, RunDir
from budgetrl.types import Difference, RunStatus

if TYPE_CHECKING:
    from budgetrl.recipe.schema import Recipe

Shape = TypeVar("Shape")


class Account:
    """One run: its files, read again when they change, and what its events add up to."""

    def __init__(self, run: RunDir, history: History) -> None:
        self.run, self.history = run, history
        self.damage: dict[str, str] = {}
        """What could not be read, as sentences, by the part of a file."""
        self._files: dict[str, tuple[int, Mapping[str, Any]]] = {}
        self._shapes: dict[type, tuple[Any, Any]] = {}

    def file(self, name: str) -> Mapping[str, Any]:
        """One of the run's JSON files; empty if absent or broken."""
        try:
            changed = self.run.file(name).stat().st_mtime_ns
        except OSError:
            return {}
        known = self._files.get(name)
        if known is None or known[0] != changed:
            value: Any = {}
            try:
                value = self.run.read_json(name)
            except RunDirError as error:
                self.damage[name] = error.message
            known = self._files[name] = (changed, mapping(value))
        return known[1]

    def _shaped(self, kind: type[Shape], name: str, key: str) -> Shape | None:
        """A part of a file as what it is; None where it is absent or of another version."""
        found = self.file(name).get(key)
        known = self._shapes.get(kind)
        if known is None or known[0] is not found:
            known = self._shapes[kind] = (found, self._checked(kind, name, key, found))
        value = known[1]
        return value if isinstance(value, kind) else None

    def _checked(self, kind: type[Shape], name: str, key: str, found: Any) -> Shape | None:
        try:
            return None if found is None else TypeAdapter(kind).validate_python(found, strict=False)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors()[:3])
            self.damage[f"{name} {key}"] = f"{name}: the {key} is of another version ({fields})."
            return None

    def check(self) -> None:
        """Read all files now, as later frames are to cost little."""
        _ = self.plan, self.times, self.budget, self.manifest, self.paid_s

    @property
    def tables(self) -> Mapping[str, Any]:
        """The resolved recipe as plain tables."""
        return mapping(self.file(RESOLVED).get("recipe"))

    @property
    def recipe(self) -> "Recipe | None":
        """The resolved recipe; None where this budgetrl cannot read it."""
        from budgetrl.recipe.schema import Recipe  # a display does without

        return self._shaped(Recipe, RESOLVED, "recipe")

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What the run was made with."""
        return self.file(MANIFEST)

    @property
    def plan(self) -> Plan | None:
        """What the run was planned to be."""
        return self._shaped(Plan, PLAN, "plan")

    @property
    def times(self) -> PhaseTimes | None:
        """Expected seconds of every phase."""
        return self._shaped(PhaseTimes, PLAN, "times")

    @property
    def name(self) -> str:
        """The recipe's name."""
        started = self.history.started
        name = mapping(self.tables.get("recipe")).get("name")
        return str(name or (started.recipe if started else self.run.name))

    @property
    def model(self) -> str:
        """The base model's id."""
        return str(mapping(self.tables.get("model")).get("id", "?"))

    @property
    def seed(self) -> int | None:
        """[recipe] seed."""
        seed = mapping(self.tables.get("recipe")).get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def steps(self) -> int:
        """Updates that count."""
        return self.history.steps[-1].step if self.history.steps else 0

    def beat(self, key: str) -> float:
        """A number of the last heartbeat; 0 where it is absent or damaged: then the events tell."""
        return number(self.file(HEARTBEAT).get(key)) or 0.0

    @property
    def paid_s(self) -> float:
        """What all attempts have paid: the larger of heartbeat and last event."""
        return max(self.beat("paid_s"), self.history.elapsed_s)

    @property
    def trained_s(self) -> float:
        """What all attempts have trained: the larger of heartbeat and events, which may be cut."""
        told_s = sum(sum(step.phase_s.values()) for step in self.history.steps)
        return max(self.beat("train_s"), told_s)

    @property
    def budget(self) -> Budget | None:
        """The plan's; where a resumption left the plan as it was, the one that its event names."""
        planned = self._shaped(Budget, PLAN, "budget")
        started, latest = self.history.started, self.history.budget_s
        if planned is None:
            wall_s = latest or (self.plan.budget_s if self.plan else None)
            return None if wall_s is None else Budget(wall_s, self.usd_per_hour)
        if started is None or latest is None or started.budget_s != planned.wall_s:
            return planned
        return replace(planned, wall_s=latest)

    @property
    def budget_s(self) -> float | None:
        """What the run may take, over all attempts."""
        return self.budget.wall_s if self.budget else None

    @property
    def usd_per_hour(self) -> float | None:
        """The price that the bill is made with, if one is known."""
        started = self.history.started
        if started is not None and started.usd_per_hour is not None:
            return started.usd_per_hour
        return self.plan.usd_per_hour if self.plan else None

    @property
    def paid_usd(self) -> float | None:
        """The bill."""
        bill = self.usd_of(self.paid_s)
        return self.history.spent_usd if bill is None else bill

    def usd_of(self, seconds: float | None) -> float | None:
        """What seconds cost, if a price is known."""
        return usd_of(seconds, self.usd_per_hour)

    def recorded_differences(
        self, end: RunFinished | None = None
    ) -> Mapping[str, Mapping[int, Difference]]:
        """What the run wrote at its end: final minus baseline by suite and k."""
        end = end or self.history.finished
        found = (end.difference if end else None) or {}
        return {
            suite: {
                k: Difference(value, scores.interval_95.get(k), scores.samples or 0)
                for k, value in scores.pass_at.items()
            }
            for suite, scores in found.items()
            if scores.pass_at
        }

    def status_at(self, now: float | None = None) -> RunStatus:
        """What files and locks tell at a moment, Unix seconds."""
        return self.run.status_of(self.history.finished, now)


def last_beat(run: RunDir) -> float:
    """Paid seconds by the heartbeat alone, for who compares copies of a run."""
    return Account(run, History()).beat("paid_s")


def number(value: Any) -> float | None:
    """A JSON value as a finite number, or None."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    # An integer may be too large for a float.
    return float(value) if known and abs(value) <= sys.float_info.max else None


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON value as a mapping, empty if it is none."""
    return value if isinstance(value, dict) else {}
