"""Runs, estimates and evaluations from Python: a script, a notebook's cell, a thread, a loop.

    result = budgetrl.train("quickstart", budget="4m")         RunResult, as `run --json` prints it
    budgetrl.evaluate(result, suites=["aime24"])               [Evaluated, ..]
    budgetrl.estimate("deepscaler_r256", gpu="A40", budget="$7").affordable_steps

The same as the commands of the same names (docs/python.md): each run has its own worker process and
its run directory, so nothing here loads torch but `evaluate`.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from budgetrl.budget import Budget, Limits
from budgetrl.errors import TrainingError, UsageError
from budgetrl.events import Scores
from budgetrl.recipe.load import LoadedRecipe, change_recipe, load_recipe
from budgetrl.types import Spend, StopReason
from budgetrl.units import parse_duration_s, parse_usd

if TYPE_CHECKING:
    from budgetrl.display.base import DisplayKind, GuardedDisplay
    from budgetrl.estimation.estimate import Estimate
    from budgetrl.evaluation.judge import Evaluated
    from budgetrl.rundir import RunDir
    from budgetrl.supervise.run import Ended

Place = str | os.PathLike[str]
"""A path, or a `RunResult`."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Limit(_Document):
    """What a run may use."""

    wall_s: float
    usd: float | None


class RunResult(_Document):
    """How a run ended: the final JSON of `budgetrl run --json`; a path, wherever one is wanted."""

    schema_version: int
    run_dir: Path
    recipe: str | None
    stop_reason: StopReason
    steps: int
    spent: Spend
    budget: Limit
    baseline: dict[str, Scores]
    """By suite."""
    final: dict[str, Scores] | None
    """None after an interruption."""
    difference: dict[str, Scores] | None
    """Final minus baseline."""
    best_checkpoint: str | None
    """Relative to the run directory."""
    attempts: int
    report: Path | None
    adapter: Path | None
    """The PEFT folder of the chosen checkpoint."""

    def __fspath__(self) -> str:
        return str(self.run_dir)


def train(
    recipe: Place | LoadedRecipe,
    *,
    budget: str | Budget | None = None,
    out: Place = "runs",
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    price: float | None = None,
    display: "DisplayKind" = "plain",
    allow_code: bool = False,
    stop: threading.Event | None = None,
) -> RunResult:
    """Run a recipe inside a budget, from plan to report, and wait for its end.

    The clock starts with this call. Ctrl-C in the main thread, or `stop`, saves and ends the run as
    interrupted.

    Args:
        recipe: a file, the name of a bundled one, or of `load_recipe`.
        budget: time as "24h" or "90m", money as "$7", or a `Budget`; None: the recipe's own.
        out: folder of the run directory.
        overrides: recipe values by key, such as {"lora.rank": 8}.
        seed: sets recipe.seed.
        price: dollars per hour.
        display: what is written to standard error: "plain" or "none".
        allow_code: whether rewards of the user's own may run.
        stop: once it is set the run is interrupted; for threads, which signals do not reach.

    Raises:
        RecipeError, DataError, ModelError, UsageError: something is wrong with what was given.
        RefusedError: it would not fit, or cannot be paid.
        TrainingError: the run failed; what it reached is kept in its directory.
    """
    from budgetrl.plan import make_plan
    from budgetrl.supervise.run import start_run

    started = time.monotonic()
    loaded = _loaded(recipe, overrides, seed)
    with _display(display) as shown:
        planned = make_plan(loaded, _in_time(_limits(budget, price)))
        command = ["budgetrl.train", loaded.recipe.name]
        ended = start_run(
            planned, Path(out), command, shown, started, allow_code=allow_code, stop=stop
        )
    return _result(ended)


def resume(
    run_dir: Place,
    *,
    budget: str | Budget | None = None,
    overrides: Mapping[str, Any] | None = None,
    model: Place | None = None,
    accept_changes: Sequence[str] = (),
    display: "DisplayKind" = "plain",
    allow_code: bool = False,
    stop: threading.Event | None = None,
) -> RunResult:
    """Continue a run from its last complete checkpoint, and wait for its end.

    Args:
        run_dir: of the run.
        budget: a new allowance from now on; None: what is left of the old one.
        overrides: recipe values that may change (docs/attempts.md).
        model: where the run's local base model lies now.
        accept_changes: of data, reward, model, versions: what may differ from before.
        display: as of `train`, with all that follows.
        allow_code: whether rewards of the user's own may run.
        stop: once it is set the run is interrupted.

    Raises:
        RunDirError: it runs already, or a file of it is damaged.
        ChangedError: it does not stand on what it stood on.
        BudgetError: too little is left.
        RecipeError, DataError, ModelError, UsageError, TrainingError: as of `train`.
    """
    from budgetrl.rundir import open_run
    from budgetrl.supervise.resume import continue_run

    started = time.monotonic()
    with _display(display) as shown:
        ended = continue_run(
            open_run(run_dir),
            _in_time(_limits(budget, None)),
            shown,
            started,
            allow_code=allow_code,
            sets=_sets(overrides),
            accepted=accept_changes,
            model=None if model is None else os.fspath(model),
            stop=stop,
        )
    return _result(ended)


def estimate(
    recipe: Place | LoadedRecipe,
    *,
    gpu: str | None = None,
    budget: str | Budget | None = None,
    steps: int | None = None,
    price: float | None = None,
    from_run: Place | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> "Estimate":
    """Whether a recipe fits a GPU, what an update takes, and what the money buys; loads no torch.

    Args:
        recipe: as of `train`, with budget, price and overrides.
        gpu: name or file; None: the recipe's, or this machine's.
        budget: None: the recipe's own.
        steps: plan for this many updates instead.
        price: dollars per hour.
        from_run: correct phases by what this run took.
        overrides: recipe values by key.

    Raises:
        UsageError: an unknown GPU, dollars without a price, or nothing to plan for.
        RecipeError, ModelError, RunDirError: something is wrong with what was given.
    """
    from budgetrl.estimation.request import Request, answer

    return answer(
        Request(
            recipe=_loaded(recipe, overrides, None).recipe,
            gpu=gpu,
            limits=_limits(budget, price),
            steps=steps,
            from_run=None if from_run is None else os.fspath(from_run),
        )
    )


def evaluate(
    target: Place,
    *,
    suites: Sequence[str] = (),
    samples: int | tuple[int, int] | None = None,
    until_width: float | None = None,
    k: Sequence[int] | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    think: Sequence[int] | None = None,
    time_limit: str | None = None,
    recipe: Place | None = None,
    model: Place | None = None,
    out: Place = "evals",
) -> "list[Evaluated]":
    """Evaluate a run, a checkpoint, an adapter or a model, in this process, which loads torch.

    Args:
        target: a run, checkpoint or adapter folder, a local model, or a hub id.
        suites: names or files; the target's own where empty.
        samples: per problem, or the least and the most; None: the suite's own, as for what follows.
        until_width: points of the 95 % interval at which rounds between them end.
        k: of pass@k.
        max_tokens: of a completion.
        temperature: 0 is greedy.
        seed: of the sampling.
        think: limits of thinking, each of which is one evaluation (docs/judging.md).
        time_limit: cuts rounds, never problems: "90m".
        recipe: prompt and engine for a target without a run.
        model: where the base model of a run lies now.
        out: folder for targets without a run.

    Raises:
        UsageError: no such target or suite, or a value that makes no sense.
        ModelError, DataError, HardwareError, RunDirError: as of `budgetrl eval`.
    """
    from budgetrl.evaluation.judge import evaluate_target
    from budgetrl.evaluation.specs import suite_specs
    from budgetrl.evaluation.target import find_target
    from budgetrl.supervise.gpu_lock import gpu_for, hold_gpu

    end = None if time_limit is None else time.monotonic() + parse_duration_s(time_limit)
    found = find_target(
        os.fspath(target),
        None if recipe is None else os.fspath(recipe),
        None if model is None else os.fspath(model),
    )
    specs = suite_specs(
        found.recipe,
        suites,
        samples=samples,
        until_width=until_width,
        ks=k,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        think=think,
    )

    def over() -> bool:
        return end is not None and time.monotonic() > end

    with hold_gpu(gpu_for(found.recipe), Path(target).absolute(), end):
        return evaluate_target(found, specs, Path(out), over)


def _loaded(
    recipe: Place | LoadedRecipe, overrides: Mapping[str, Any] | None, seed: int | None
) -> LoadedRecipe:
    sets = _sets(overrides)
    if not isinstance(recipe, LoadedRecipe):
        return load_recipe(os.fspath(recipe), sets, seed)
    sets += [] if seed is None else [f"recipe.seed={seed}"]
    return replace(recipe, recipe=change_recipe(recipe.recipe, sets)) if sets else recipe


def _sets(overrides: Mapping[str, Any] | None) -> list[str]:
    """Values as `--set` takes them: JSON of texts, numbers, flags and lists is TOML too."""
    try:
        return [f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()]
    except (TypeError, ValueError) as error:
        raise UsageError(f"overrides: {error}.", hint="Give texts, numbers or lists.") from None


def _in_time(limits: Limits) -> Limits:
    """Limits that end with the batch job that this process is part of, if it is."""
    from budgetrl.deadline import end_of

    return replace(limits, end=end_of(None, os.environ, time.time(), 0.0))


def _limits(budget: str | Budget | None, price: float | None) -> Limits:
    if isinstance(budget, Budget):
        price = budget.usd_per_hour if price is None else price
        return Limits(budget.wall_s, price=price)
    if budget is None:
        return Limits(price=price)
    try:
        if budget.strip().startswith("$"):
            return Limits(usd=parse_usd(budget), price=price)
        return Limits(parse_duration_s(budget), price=price)
    except (AttributeError, ValueError) as error:
        raise UsageError(
            f"budget = {budget!r}: {error}.", hint='Write a time, "90m", or dollars, "$7".'
        ) from None


class _Cell:
    """Standard error by its text: a notebook shows that under the cell, and not its descriptor."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _display(kind: "DisplayKind") -> "GuardedDisplay":
    from budgetrl.display.base import open_display

    if kind not in ("plain", "none"):
        raise UsageError(f"display = {kind!r}.", hint='Choose "plain" or "none".')
    cell: Any = _Cell()
    return open_display(kind, cell, cell)


def _result(ended: "Ended") -> RunResult:
    """The typed result of a run.

    Raises:
        TrainingError: it failed.
    """
    from budgetrl.history import read_history
    from budgetrl.rundir import open_run

    result = RunResult.model_validate(ended.result)
    if result.stop_reason is StopReason.FAILED:
        run: RunDir = open_run(result.run_dir)
        errors = read_history(run).errors
        why = errors[-1].message if errors else "nobody wrote down why"
        raise TrainingError(
            f"the run failed: {why}",
            hint=f"Its directory is {result.run_dir}; `budgetrl.resume` continues it.",
        )
    return result
