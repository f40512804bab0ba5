"""Run a recipe for a few updates per setting and compare what they took; inside a time limit.

    bench(loaded, limit_s, started, folder, tell) -> Bench     settings, and a profile for plans

Each setting has a worker process of its own, as a run has, so that the memory of one is no burden
of the next, and one that does not fit ends nothing. The profile is made from the recipe as it is.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from budgetrl.bench.settings import LEAST_TOKENS, UPDATES, Setting, benched, settings_of
from budgetrl.budget import Limits
from budgetrl.display.base import NoDisplay
from budgetrl.errors import (
    OUT_OF_MEMORY_EXIT,
    BudgetError,
    RefusedError,
    TrainingError,
)
from budgetrl.estimation.cpu_profile import store_profile
from budgetrl.estimation.machine import user_cache_dir
from budgetrl.estimation.profile import store_gpu_profile
from budgetrl.files import write_json
from budgetrl.history import History, measured_times, read_history
from budgetrl.pace import free_cores
from budgetrl.phases import UPDATE_PHASES
from budgetrl.plan import create_run, make_plan
from budgetrl.recipe.load import LoadedRecipe
from budgetrl.run_files import read_manifest, read_plan, written_recipe
from budgetrl.rundir import RunDir
from budgetrl.supervise.closing import Closing
from budgetrl.supervise.gpu_lock import gpu_of, hold_gpu
from budgetrl.supervise.worker import Signals, Worker
from budgetrl.training.attempt import Attempt
from budgetrl.units import parse_duration_s

SPARE = 1.2
"""The next setting is tried if so many times the longest one so far are left."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one setting took; None where it was not measured."""

    name: str
    phase_s: dict[str, float | None]
    """Seconds per update."""
    step_s: float | None
    tokens_per_s: float | None
    peak_gib: float | None
    updates: int
    """That were measured, after the one that warms up."""
    wall_s: float
    error: str | None
    """Why it is not measured."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a bench found."""

    recipe: str
    machine: str
    max_tokens: int
    settings: list[Outcome]
    profile_file: Path | None
    not_tried: list[str]
    folder: Path
    seconds: float

    @property
    def fastest(self) -> Outcome:
        """The setting with the shortest update."""
        measured = [one for one in self.settings if one.step_s is not None]
        return min(measured, key=lambda one: one.step_s or 0.0)

    def to_json(self) -> dict[str, Any]:
        """As `budgetrl bench --json` prints it."""
        return {
            "schema_version": 1,
            "recipe": self.recipe,
            "machine": self.machine,
            "max_tokens": self.max_tokens,
            "settings": [asdict(one) for one in self.settings],
            "fastest": self.fastest.name,
            "not_tried": self.not_tried,
            "profile_file": None if self.profile_file is None else str(self.profile_file),
            "seconds": self.seconds,
        }


def bench(
    loaded: LoadedRecipe,
    limit_s: float,
    started: float,
    folder: Path,
    tell: Progress,
    *,
    allow_code: bool = False,
) -> Bench:
    """Measure the recipe as it is, then other settings while there is time.

    Args:
        loaded: the recipe.
        limit_s: wall seconds, from `started`.
        started: monotonic seconds at which this process began.
        folder: gets a run directory per setting, without checkpoints.
        tell: shown progress.
        allow_code: rewards of the user's own may run.

    Raises:
        BudgetError: the time does not pay for one update.
        HardwareError, ModelError, DataError, TrainingError: as of a run.
        KeyboardInterrupt: somebody ended it.
    """
    recipe = loaded.recipe
    first, *others = settings_of(recipe, free_cores())
    end = started + limit_s
    max_tokens = _affordable_tokens(loaded, limit_s)
    if max_tokens < recipe.sampling.max_tokens:
        tell(f"completions of at most {max_tokens} tokens, because time is short")
    lab = _Lab(loaded, max_tokens, end, folder, tell, allow_code)
    as_it_is, run = lab.measure(first, evaluates=recipe.engine.device == "cpu")
    if as_it_is.error is not None:
        raise TrainingError(f"the recipe as it is was not measured: {as_it_is.error}")
    outcomes = [as_it_is, *lab.measure_all(others, as_it_is.wall_s)]
    found = Bench(
        recipe=recipe.name,
        machine=_machine(run),
        max_tokens=max_tokens,
        settings=outcomes,
        profile_file=_store(run),
        not_tried=[setting.name for setting in others[len(outcomes) - 1 :]],
        folder=folder,
        seconds=time.monotonic() - started,
    )
    write_json(folder / "bench.json", found.to_json())
    return found


def _affordable_tokens(loaded: LoadedRecipe, limit_s: float) -> int:
    """The longest completions with which two settings fit into the time.

    Raises:
        BudgetError: not even one fits with short ones.
    """
    tokens = loaded.recipe.sampling.max_tokens
    while True:
        plan = make_plan(
            _as(loaded, Setting({}), False, tokens), Limits(parse_duration_s("1000h"))
        ).plan
        needs_s = plan.setup_s + UPDATES * plan.step_s
        if 2 * needs_s <= limit_s or tokens < 2 * LEAST_TOKENS:
            break
        tokens //= 2
    if plan.setup_s + plan.step_s > limit_s:
        raise BudgetError(
            f"{limit_s / 60:g} minutes do not pay for one update: setup {plan.setup_s:.0f} s and "
            f"{plan.step_s:.0f} s with completions of {tokens} tokens.",
            hint=f"Give about --minutes {2 * needs_s / 60 + 1:.0f}.",
        )
    return tokens


def _as(loaded: LoadedRecipe, setting: Setting, evaluates: bool, tokens: int) -> LoadedRecipe:
    recipe = benched(loaded.recipe, setting, evaluates=evaluates, max_tokens=tokens)
    return replace(loaded, recipe=recipe)


@dataclass(frozen=True, slots=True)
class _Lab:
    """Measures settings of one recipe, one after the other."""

    loaded: LoadedRecipe
    max_tokens: int
    end: float
    folder: Path
    tell: Progress
    allow_code: bool

    def measure_all(self, settings: list[Setting], longest_s: float) -> Iterator[Outcome]:
        """As many of them as there is time for, if one takes as long as the longest so far."""
        for setting in settings:
            start = time.monotonic()
            if self.end - start < SPARE * longest_s:
                return
            try:
                outcome, _ = self.measure(setting, evaluates=False)
            except RefusedError as error:
                outcome = _not_measured(setting, error.message, time.monotonic() - start)
            longest_s = max(longest_s, outcome.wall_s)
            yield outcome

    def measure(self, setting: Setting, *, evaluates: bool) -> tuple[Outcome, RunDir]:
        """Run the recipe under one setting."""
        start = time.monotonic()
        self.tell(f"measuring {setting.name}")
        loaded = _as(self.loaded, setting, evaluates, self.max_tokens)
        planned = make_plan(loaded, Limits(self.end - start))
        run = create_run(planned, self.folder, ["budgetrl", "bench", self.loaded.recipe.name])
        attempt = Attempt.first(run, start, allow_code=self.allow_code)
        exit_code = self._work(run, replace(attempt, reserved_s=0.0))
        shutil.rmtree(run.checkpoint_folder, ignore_errors=True)
        history, wall_s = read_history(run), time.monotonic() - start
        if why := not_applied(setting, history):
            return _not_measured(setting, why, wall_s), run
        if history.steps and exit_code == 0:
            return _outcome(setting, history, wall_s), run
        return _not_measured(setting, _why(run, history, exit_code), wall_s), run

    def _work(self, run: RunDir, attempt: Attempt) -> int:
        with hold_gpu(gpu_of(run), run.path, attempt.end) as gpu, Signals() as signals:
            exit_code = Worker(run, attempt, signals, NoDisplay(), Closing(), gpu=gpu).watch()
            if signals.received:
                raise KeyboardInterrupt
        return exit_code


def not_applied(setting: Setting, history: History) -> str | None:
    """Why a setting says nothing of itself: the engine could not keep it all the time."""
    if setting.values.get("engine.merged_rollouts") and "not_folded" in history.warnings:
        return "rounding would lose too much of the adapter, so it was not folded"
    return None


def _outcome(setting: Setting, history: History, wall_s: float) -> Outcome:
    steps = history.steps[1:] or history.steps
    walls = [sum(step.phase_s.values()) for step in steps]
    peaks = [step.gpu_peak_gib for step in history.steps if step.gpu_peak_gib is not None]
    return Outcome(
        name=setting.name,
        phase_s={
            name: statistics.fmean(step.phase_s.get(name, 0.0) for step in steps)
            for name in UPDATE_PHASES
        },
        step_s=statistics.fmean(walls),
        tokens_per_s=sum(step.tokens for step in steps) / sum(walls),
        peak_gib=max(peaks, default=None),
        updates=len(steps),
        wall_s=wall_s,
        error=None,
    )


def _not_measured(setting: Setting, why: str, wall_s: float) -> Outcome:
    return Outcome(setting.name, dict.fromkeys(UPDATE_PHASES), None, None, None, 0, wall_s, why)


def _why(run: RunDir, history: History, exit_code: int) -> str:
    if exit_code == OUT_OF_MEMORY_EXIT:
        return "out of GPU memory"
    if history.errors:
        return history.errors[-1].message
    if exit_code:
        return f"the worker ended with {exit_code}; see {run.worker_log}"
    return "the time was over before the first update was made"


def _store(run: RunDir) -> Path | None:
    """The profile of the recipe as it is, where the next estimate and plan find it."""
    report_s = read_plan(run).times.report_s
    times = measured_times(read_history(run), report_s, source=f"bench {run.name}")
    if times is None:
        return None
    manifest, cache = read_manifest(run), user_cache_dir()
    if manifest.gpu is not None:
        return store_gpu_profile(run, cache)
    return store_profile(written_recipe(run), times, cache, manifest.versions)


def _machine(run: RunDir) -> str:
    manifest = read_manifest(run)
    return str(manifest.machine["cpu"] if manifest.gpu is None else manifest.gpu["name"])
