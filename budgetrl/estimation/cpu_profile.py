"""What runs on a CPU took over what the formulas said, kept for the next plan.

    store_profile(recipe, times, cache_dir)      at the end of a run
    planned_phases(recipe, cache_dir)            by the last run here, one that ships, or formulas

A profile belongs to a model, dtype, rank, threads and batch on one processor, not to a recipe's
name: what these are the same for takes the same time. Its factors compare a run with the formulas
at the lengths it had, so that other limits, prompts and suites scale.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import StrictFloat, TypeAdapter

from budgetrl.budget import PhaseTimes
from budgetrl.data.prompt_length import model_file
from budgetrl.estimation.cpu_phases import Prompts, cpu_scenario, predict, read_prompts
from budgetrl.estimation.cpu_time import Machine, formulas
from budgetrl.estimation.machine import this_cpu, this_machine
from budgetrl.estimation.phases import EARLY, Phases, with_measured
from budgetrl.estimation.shapes import LengthPrior
from budgetrl.files import parse_json, read_asset, write_json
from budgetrl.phases import MEASURED_ONCE, UPDATE_PHASES
from budgetrl.processor import cpu_model
from budgetrl.recipe.schema import Recipe, StageKind

SCHEMA_VERSION = 3
BUNDLED = "profiles/cpu.json"
BUSY_FACTOR = 1.5
"""Over a shipped profile: a last run that was slower counts as disturbed."""

_PHASES = (*MEASURED_ONCE, *UPDATE_PHASES, "step_eval", "save", "report")
_LEAST_S = 1e-4
"""Phases shorter than this say nothing of speed."""
_MOST = 1e4
"""No factor of a usable profile is above it, or below one over it; parts of an update may be 0."""


@dataclass(frozen=True, slots=True)
class Other:
    """Updates of another training than GRPO."""

    kind: StageKind
    update_s: float
    """Of one of them, by the formulas."""

    @property
    def unlike(self) -> Collection[str]:
        """Phases that are not as in GRPO: all, but where answers are drawn and rewarded too."""
        return ("update",) if self.kind is StageKind.DISTILL else UPDATE_PHASES


@dataclass(frozen=True, slots=True)
class Profile:
    """Measured over predicted seconds, by phase; of `sft` and `distill` those of an update."""

    key: Mapping[str, str | int]
    """What a run must have in common: `profile_key`."""
    recipe: str
    """Of the run, for people."""
    cpu: str
    gflops: StrictFloat
    """`cpu_speed()` there; factors are over formulas at this speed."""
    formulas: str
    """Which formulas: `cpu_time.formulas`."""
    measured: str
    """Date."""
    factors: Mapping[str, StrictFloat]
    tokens_mean: StrictFloat | None = None
    """Mean completion length of the run."""
    early: StrictFloat | None = None
    """One of the first updates over later ones; None: not known."""
    versions: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """The file format of profiles."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def profile_key(recipe: Recipe) -> dict[str, str | int]:
    """What decides how long an update takes: model, dtype, rank, threads, batch."""
    return {
        "model": model_identity(recipe),
        "dtype": recipe.model.dtype,
        "rank": recipe.lora.rank,
        "threads": _threads(recipe),
        "completions": recipe.completions_per_step,
        "micro_batch": recipe.batch.micro_batch,
    }


def model_identity(recipe: Recipe) -> str:
    """A hash of the model's config.json, wherever it lies; its id where that is not here."""
    file = model_file(recipe.model, "config.json")
    if file is None:
        return f"{recipe.model.id}@{recipe.model.revision or 'main'}"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def measured_profile(
    recipe: Recipe,
    times: PhaseTimes,
    versions: Mapping[str, str] | None = None,
    machine: Machine | None = None,
    prompts: Prompts | None = None,
    other: Other | None = None,
) -> Profile:
    """A profile of times that were measured on this machine today.

    Args:
        recipe: of the run; of a stage, its own.
        times: what its phases took.
        versions: of packages.
        machine: its speed; measured where absent.
        prompts: their lengths; read where absent.
        other: the updates were not GRPO's, of which theirs say nothing.
    """
    machine = machine or this_machine(recipe)
    scenario = cpu_scenario(recipe, this_cpu())
    if times.tokens_mean is not None:
        scenario = replace(scenario, mean_tokens=seen_length(times.tokens_mean, recipe))
    predicted = predict(scenario, machine, prompts or read_prompts(recipe)).seconds
    step_s, early_s = times.step_s, times.early_step_s
    unlike = () if other is None else other.unlike
    own = {} if other is None else {other.kind.value: times.update_s / other.update_s}
    return Profile(
        key=profile_key(recipe),
        recipe=recipe.name,
        cpu=cpu_model(),
        gflops=round(machine.gflops, 2),
        formulas=formulas(),
        measured=datetime.now(UTC).date().isoformat(),
        factors={
            name: took / predicted[name]
            for name in _PHASES
            if name not in unlike
            and predicted[name] > _LEAST_S
            and ((took := getattr(times, f"{name}_s")) > _LEAST_S or name in UPDATE_PHASES)
        }
        | own,
        tokens_mean=None if "rollout" in unlike else times.tokens_mean,
        early=None if early_s is None or not step_s or other else early_s / step_s,
        versions=dict(versions or {}),
    )


def store_profile(
    recipe: Recipe,
    times: PhaseTimes,
    cache_dir: Path,
    versions: Mapping[str, str] | None = None,
    other: Other | None = None,
    machine: Machine | None = None,
) -> Path:
    """Keep what a finished run measured for the next plan of such a run on this CPU.

    What it did not do, as a run of SFT rolls nothing out, stays as an earlier one measured it.

    Raises:
        OSError: the folder cannot be written.
        ModelError, RecipeError: the model is gone.
    """
    path = _profile_path(recipe, cache_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = measured_profile(recipe, times, versions, machine, other=other)
    before = _read_profile(path)
    write_json(path, (made if before is None else _completed(made, before)).to_json())
    return path


def planned_phases(recipe: Recipe, cache_dir: Path) -> Phases:
    """Phases of a run here: the last such run's, else a shipped profile's, else the formulas'.

    The last run may have shared its cores with other work, and that must not refuse the next one:
    no phase counts as far above a profile that ships.

    Args:
        recipe: what is planned.
        cache_dir: folder with the profiles of earlier runs.

    Raises:
        ModelError, RecipeError: as `cpu_scenario`.
    """
    prompts, machine = read_prompts(recipe), this_machine(recipe)
    cached, shipped = _read_profile(_profile_path(recipe, cache_dir)), bundled_profile()
    ships = shipped.key == profile_key(recipe)
    if cached is not None:
        known = _not_slower(cached, shipped, machine) if ships else cached
        there = replace(machine, gflops=cached.gflops)
        source = f"the last finished run of {cached.recipe} on this CPU ({cached.measured})"
        return apply_profile(known, recipe, there, prompts, source)
    if ships:
        source = (
            f"the bundled profile of {shipped.recipe} ({shipped.cpu}, {shipped.measured}), "
            f"x{shipped.gflops / machine.gflops:.2f} by a matrix product "
            f"({machine.gflops:.0f} GFLOP/s here, {shipped.gflops:.0f} there)"
        )
        return apply_profile(shipped, recipe, machine, prompts, source)
    return predict(cpu_scenario(recipe, this_cpu()), machine, prompts)


def phases_by_run(recipe: Recipe, other: Recipe, times: PhaseTimes) -> Phases:
    """Phases of a run by what one of another recipe took on this CPU."""
    machine = this_machine(recipe)
    profile = measured_profile(other, times, machine=replace(machine, threads=_threads(other)))
    return apply_profile(profile, recipe, machine, read_prompts(recipe), times.source)


def apply_profile(
    profile: Profile, recipe: Recipe, machine: Machine, prompts: Prompts, source: str
) -> Phases:
    """Phases of a run by what another took."""
    scenario = cpu_scenario(recipe, this_cpu())
    if profile.tokens_mean is not None:
        scenario = replace(scenario, mean_tokens=seen_length(profile.tokens_mean, recipe))
    early = {} if profile.early is None else {EARLY: profile.early}
    return with_measured(predict(scenario, machine, prompts), {**profile.factors, **early}, source)


def bundled_profile() -> Profile:
    """The profile that ships with budgetrl."""
    return _profile(read_asset(BUNDLED))


def _completed(made: Profile, before: Profile) -> Profile:
    """With what only an earlier run measured, over formulas at the speed of this one."""
    faster = made.gflops / before.gflops
    earlier = {name: factor * faster for name, factor in before.factors.items()}
    return replace(
        made,
        factors={**earlier, **made.factors},
        tokens_mean=made.tokens_mean or before.tokens_mean,
        early=made.early or before.early,
    )


def _not_slower(cached: Profile, shipped: Profile, machine: Machine) -> Profile:
    speed = cached.gflops / machine.gflops
    factors = {
        name: min(factor, BUSY_FACTOR * speed * shipped.factors.get(name, _MOST))
        for name, factor in cached.factors.items()
    }
    undisturbed = factors == cached.factors
    return replace(cached, factors=factors, early=cached.early if undisturbed else None)


def seen_length(tokens_mean: float, recipe: Recipe) -> LengthPrior:
    """The mean length of an earlier run; what is learnt moves it."""
    mean = min(tokens_mean, float(recipe.sampling.max_tokens))
    return LengthPrior(mean, mean, mean, "as in the run that was measured")


def _profile_path(recipe: Recipe, cache_dir: Path) -> Path:
    key = json.dumps([profile_key(recipe), cpu_model()], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return cache_dir / "profiles" / f"cpu-{digest}.json"


def _read_profile(path: Path) -> Profile | None:
    """A cached profile; None where there is none, or it is over other formulas, cut or absurd."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        usable = (data["schema_version"], data["formulas"]) == (SCHEMA_VERSION, formulas())
        return _profile(data) if usable else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _profile(data: Mapping[str, Any]) -> Profile:
    """The profile in a file's content.

    Raises:
        ValueError: a value is missing, or no such number.
    """
    made = TypeAdapter(Profile).validate_python(data)
    for name in ("tokens_mean", "early"):
        if (one := getattr(made, name)) is not None and not 0 < one <= _MOST:
            raise ValueError(f"{name} = {one} in a profile")
    least = dict.fromkeys(UPDATE_PHASES, 0.0)
    for name, number in {**made.factors, "gflops": made.gflops}.items():
        if not least.get(name, 1 / _MOST) <= number <= _MOST:
            raise ValueError(f"{name} = {number} in a profile")
    return made


def _threads(recipe: Recipe) -> int:
    return recipe.engine.threads or 1
