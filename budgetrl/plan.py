"""Before a run: recipe and flags become a plan, and a go or a refusal; then a run directory.

    planned = make_plan(load_recipe(...), Limits(wall_s), ...)    no torch, no tokenizer
    run = create_run(planned, out)                                the only thing that writes

Checks all that needs no tokenizer; the rest the worker checks before its first evaluation.
"""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import budgetrl
from budgetrl.budget import EXIT_S, RESERVE_FACTOR, Budget, Limits, PhaseTimes, Plan, plan
from budgetrl.engine.tested import installed_versions, refuse_untested
from budgetrl.engine.unsloth_settings import refuse_unkept
from budgetrl.errors import BudgetError, HardwareError, RunDirError, UsageError
from budgetrl.estimation import stages
from budgetrl.estimation.advice import refuse_unfit
from budgetrl.estimation.closing import closing_s, known_closing_work_s
from budgetrl.estimation.cpu_profile import planned_phases
from budgetrl.estimation.estimate import estimate, estimate_cpu, known_factors
from budgetrl.estimation.machine import user_cache_dir
from budgetrl.estimation.memory import MemoryEstimate
from budgetrl.estimation.request import choose_gpu, price_of
from budgetrl.estimation.scenario import expected_samples, planned_samples
from budgetrl.estimation.stages import (
    StageEstimate,
    plan_stages,
    stage_documents,
)
from budgetrl.evaluation.fingerprints import fingerprints, recorded_versions, reward_files
from budgetrl.evaluation.start import start_identity
from budgetrl.evaluation.teaching import check_words
from budgetrl.files import PRIVATE_MODE, write_atomic
from budgetrl.hardware import Gpu, detect_gpu
from budgetrl.hub.config import window_in
from budgetrl.hub.errors import UnreachableError
from budgetrl.hub.fetch import refuse_full_disk
from budgetrl.hub.pins import MANIFEST_KEY, Pins, pin, pinned, to_download, to_json
from budgetrl.hub.repo import is_installed, is_offline
from budgetrl.masking import keep_secret, masked_command
from budgetrl.processor import cpu_model
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import LoadedRecipe
from budgetrl.recipe.schema import EngineName, Recipe
from budgetrl.recipe.window import check_window, fit_answers, window_of
from budgetrl.run_files import Standing
from budgetrl.rundir import (
    MANIFEST,
    PLAN,
    RECIPE,
    RESOLVED,
    SCHEMA_VERSION as RUNDIR_VERSION,
    RunDir,
)
from budgetrl.units import duration, hours_option
from budgetrl.usable_recipe import check_known_layers, check_local_files, refuse_threads

BUSY = 1.2
"""A machine on which work gets on slower than this is busy with something else."""
GPU_EXIT_S = 3.0
"""What a killed process needs to give a GPU's memory back, at most."""
SETUP_MARGIN = 1.5
"""On what imports and loading are planned to take, before a run is refused or not."""

DOWNLOAD_RATE = 1e8
"""Bytes a second that a download is planned with, as for GPUs (`estimator.json`)."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A run that may start."""

    loaded: LoadedRecipe
    budget: Budget
    times: PhaseTimes
    plan: Plan
    card: Gpu | None
    """The GPU that is planned for; None on a CPU."""
    memory: MemoryEstimate | None = None
    """Of that GPU, or of this machine."""
    pins: Pins = field(default_factory=dict)
    """What is taken from the hub, at which commits."""
    slow: float = 1.0
    """How much slower than alone work gets on now; the times of a CPU run have it in them."""
    staged: Sequence[StageEstimate] = ()
    """What each of [[stages]] takes."""
    exit_s: float = EXIT_S
    """From the end of the worker to the end of its supervisor, besides the report."""

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return self.loaded.recipe


def make_plan(
    loaded: LoadedRecipe,
    limits: Limits,
    *,
    gpu: str | None = None,
    dry_run: bool = False,
    force_fit: bool = False,
    force_versions: bool = False,
    slow: float = 1.0,
) -> Planned:
    """Plan a run, or refuse it.

    Args:
        loaded: the recipe.
        limits: flags; any limit among them replaces both limits of the recipe.
        gpu: name or file of the GPU to plan for; else the recipe's in a dry run, else this one.
        dry_run: plan only, so the GPU need not be here.
        force_fit: go on although the GPU's memory seems too small.
        force_versions: go on with versions that were never tried together.
        slow: how much slower than alone work gets on now (`budgetrl.pace`).

    Raises:
        UsageError: there is no budget, dollars without a price, or an unknown GPU.
        RecipeError: a setting that the engine cannot keep, or more threads than cores.
        DataError, ModelError: a local file of the recipe is missing or unusable; or a repository
            of the hub, its revision, split or columns.
        HubError: the hub does not answer.
        HardwareError: a GPU recipe and no GPU, or too little memory.
        RefusedError: packages are missing, or of versions that were never tried together.
        BudgetError: the budget pays for nothing useful.
    """
    config = Path(local_path(loaded.recipe.model.id)) / "config.json"
    if config.is_file():
        loaded = replace(loaded, recipe=fit_answers(loaded.recipe, window_of(config)))
    recipe = loaded.recipe
    refuse_threads(recipe)
    if recipe.engine.name is EngineName.UNSLOTH:
        refuse_unkept(recipe)
    check_local_files(recipe)
    card = _card(recipe, gpu, dry_run)
    if not dry_run:
        engine = recipe.engine.name
        installed = installed_versions(engine)
        refuse_untested(engine, installed, cuda=card is not None, forced=force_versions)
    budget = budget_of(recipe, limits, card)
    pins = _pins(recipe, dry_run)
    if "model" in pins:
        window = window_in(pins["model"].found)
        loaded = replace(loaded, recipe=fit_answers(recipe, window))
        recipe = loaded.recipe
        check_window(recipe, window)
    check_words(recipe, pins)
    settled = pinned(recipe, pins)
    check_known_layers(settled)
    missing = to_download(pins)
    refuse_full_disk(missing)
    exit_s = closing_s(known_closing_work_s(user_cache_dir()), slow)
    if card is None:
        made = estimate_cpu(planned_phases(settled, user_cache_dir()), budget)
        times = made.times
        if slow > BUSY:
            busy = f"{times.source}, x{slow:.1f} because the machine is busy now"
            times = times.scaled(slow, busy)
        times = replace(times, download_s=missing / DOWNLOAD_RATE)
    else:
        exit_s += GPU_EXIT_S
        measured = known_factors(recipe, card, user_cache_dir())
        made = estimate(settled, card, budget, measured=measured, download_bytes=missing)
        times = made.times
    if not force_fit:
        refuse_unfit(made)
    staged = _staged(settled, card, slow)
    if not force_fit:
        stages.refuse_unfit(staged)
    times, made_plan = _planned(recipe, times, staged, budget, exit_s)
    planned = Planned(
        loaded, budget, times, made_plan, card, made.memory, pins, slow, staged, exit_s
    )
    refuse_unpayable(planned)
    return planned


def replanned(planned: Planned, budget: Budget, times: PhaseTimes) -> Planned:
    """The same run with another budget or other times, such as without a baseline evaluation."""
    times, made = _planned(planned.recipe, times, planned.staged, budget, planned.exit_s)
    return replace(planned, budget=budget, times=times, plan=made)


def _planned(
    recipe: Recipe,
    times: PhaseTimes,
    staged: Sequence[StageEstimate],
    budget: Budget,
    exit_s: float,
) -> tuple[PhaseTimes, Plan]:
    """What the budget buys, and the times that the updates of all stages have on the mean."""
    rounds = max(map(expected_samples, recipe.eval), default=1)
    if staged:
        return plan_stages(times, staged, budget, exit_s=exit_s, rounds=rounds)
    requested = recipe.schedule.stop_after_steps
    return times, plan(times, budget, requested, exit_s=exit_s, rounds=rounds)


def _staged(recipe: Recipe, card: Gpu | None, slow: float) -> list[StageEstimate]:
    """What each stage takes on the card or this processor, as busy as it is."""
    staged = stages.stages_on(recipe, card)
    if card is not None or slow <= BUSY:
        return staged
    return [replace(s, times=s.times.scaled(slow, s.times.source)) for s in staged]


def budget_of(recipe: Recipe, limits: Limits, card: Gpu | None = None) -> Budget:
    """The budget of a run, from flags or else the recipe.

    Raises:
        UsageError: none is given, or dollars without a price.
    """
    price = price_of(recipe, card, limits.price)
    budget = limits.budget_for(recipe, price.usd_per_hour if price else None)
    if budget is None:
        raise UsageError(
            f"recipe {recipe.name} has no budget, and none was given.",
            hint="Say what the run may use: --hours 24, --hours 90m, or --usd 7 --price 0.30.",
        )
    return budget


def _pins(recipe: Recipe, dry_run: bool) -> Pins:
    """What is taken from the hub; a dry run without a hub plans blind, a run is refused."""
    if dry_run and (is_offline() or not is_installed()):
        return {}
    try:
        return pin(recipe)
    except UnreachableError:
        if not dry_run:
            raise
        return {}


def _card(recipe: Recipe, name: str | None, dry_run: bool) -> Gpu | None:
    """The GPU that is planned for; None for a recipe that runs on a CPU."""
    if recipe.engine.device == "cpu":
        if name is not None:
            raise UsageError(
                f"recipe {recipe.name} runs on a CPU, so --gpu says nothing.",
                hint='Leave --gpu out, or give a recipe with engine.device = "cuda".',
            )
        return None
    if dry_run:
        return choose_gpu(recipe, name)
    here = detect_gpu()
    if here is None:
        raise HardwareError(
            f"recipe {recipe.name} needs an NVIDIA GPU, and this machine has none.",
            hint="Try the laptop recipe: budgetrl run quickstart",
        )
    return here.gpu if here.gpu is not None and name is None else choose_gpu(recipe, name)


def refuse_unpayable(planned: Planned) -> None:
    """Setup, one round of the baseline evaluation and the exit must fit.

    Setup is the least certain part: it reads gigabytes that may or may not be in memory already.

    Raises:
        BudgetError: they do not; says what the smallest useful budget is.
    """
    made, suites = planned.plan, planned.recipe.eval
    round_s = planned.times.baseline_s / max(map(expected_samples, suites), default=1)
    # What is slow today is in the times already, and no reason for the margin as well.
    setup_s = max(1.0, SETUP_MARGIN / planned.slow) * made.setup_s
    least = setup_s + round_s + planned.exit_s
    if made.affordable_steps == 0 and (least > made.budget_s or not suites):
        longer_s = round_s * max(1.0, planned.times.final_s / (planned.times.baseline_s or 1.0))
        one_step = made.setup_s + made.step_s + longer_s * (1 + RESERVE_FACTOR)
        one_step += planned.times.save_s + planned.exit_s
        smallest = hours_option(1.1 * max(one_step, least))
        raise BudgetError(
            f"{duration(made.budget_s)} pays for nothing useful: setup {duration(made.setup_s)} or "
            f"up to {duration(setup_s)}, a round of the baseline evaluation {duration(round_s)}, "
            f"and exit {duration(planned.exit_s)} need {duration(least)} (times from "
            f"{made.source}).",
            hint=f"The smallest budget with an update is about --hours {smallest}.",
        )


def create_run(
    planned: Planned, out: Path, command: Sequence[str], name: str | None = None
) -> RunDir:
    """Make the run directory and write what is known before the first event.

    Args:
        planned: the run.
        out: folder of the run directory.
        command: what the user typed.
        name: of the directory; None: a new one.

    Raises:
        RunDirError: the folder cannot be made or written; nothing is left of it.
        DataError, ModelError, RecipeError: a file of the recipe is gone.
        UsageError: the second copy would be the run itself.
    """
    mirror = planned.recipe.checkpoint.mirror
    if mirror is not None and Path(mirror).resolve() == out.expanduser().resolve():
        raise UsageError(
            f"checkpoint.mirror is {mirror}, where the run itself goes: that is no second copy.",
            hint="Name a folder on another disk, or give another --out.",
        )
    keep_secret(planned.recipe.model_dump(mode="json"))
    files = reward_files(planned.recipe)
    standing = asdict(Standing(1, fingerprints(planned.recipe, files), files, []))
    run = RunDir.create(out, planned.recipe.name, name=name)
    resolved = {
        "recipe": planned.recipe.model_dump(mode="json"),
        "sources": dict(planned.loaded.sources),
        **planned.recipe.stage_list,
    }
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, run.path, ignore_errors=True)
        try:
            write_atomic(run.file(RECIPE), planned.loaded.text, PRIVATE_MODE)
            run.write_json(PLAN, plan_document(planned))
            stands = {"attempts": [standing], MANIFEST_KEY: to_json(planned.pins)}
            if start := start_identity(planned.recipe):
                stands |= {"start": start | {"reference": planned.recipe.grpo.reference}}
            run.write_json(MANIFEST, manifest(command, planned.card) | stands)
            # Last, because a folder that holds it is a run (rundir.list_runs).
            run.write_json(RESOLVED, resolved)
        except OSError as error:
            raise RunDirError(
                f"cannot write to the run directory {run.path}: {error.strerror}.",
                hint="Free some space, or give another folder with --out.",
            ) from None
        undo.pop_all()
    return run


def plan_document(planned: Planned) -> dict[str, Any]:
    """The content of `plan.json`."""
    budget, made = planned.budget, planned.plan
    return {
        "schema_version": 1,
        "grace_s": planned.recipe.budget.grace_s,
        "budget": asdict(budget),
        "times": asdict(planned.times),
        "plan": made.to_json(),
        "samples": planned_samples(planned.recipe),
        "reserved_s": made.report_s,
        "slow": planned.slow,
        "gpu_memory_utilization": planned.memory and planned.memory.utilization,
        **({"stages": stage_documents(planned.staged, made)} if planned.staged else {}),
    }


def manifest(command: Sequence[str], card: Gpu | None) -> dict[str, Any]:
    """What made this run: command, versions, machine; no environment, and nothing secret."""
    return {
        "schema_version": RUNDIR_VERSION,
        "command": masked_command(command),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "budgetrl": budgetrl.__version__,
        "git": _git_state(),
        "python": platform.python_version(),
        "versions": recorded_versions(),
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.platform()},
        "gpu": None if card is None else {"name": card.name},
    }


def _git_state() -> str | None:
    """The commit of the checkout that budgetrl runs from, with "+" if it has changes."""
    root = Path(budgetrl.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        describe = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"]
        done = subprocess.run(describe, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
