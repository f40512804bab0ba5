"""What the phases of a run take on a CPU: measured once, and scaled to this machine.

    cpu_phase_times(recipe, from_run=None, cache_dir=user_cache_dir())
      (1) a run that the user names, else (2) the profile that the last finished run of this recipe
      left in the user's cache, else (3) the bundled profile, scaled by a 0.2 s matrix product
    store_profile(recipe, times, cache_dir)      called at the end of a run

A profile knows how much work it measured, so other sample counts scale. Not here: GPUs.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from budgetrl.budget import PhaseTimes
from budgetrl.estimation.cadence import saves_every_s, step_evals_every
from budgetrl.files import parse_json
from budgetrl.hardware import Gpu
from budgetrl.processor import cpu_model, cpu_speed
from budgetrl.recipe.schema import Recipe
from budgetrl.types import EvalWhen
from budgetrl.units import GIB

SCHEMA_VERSION = 1
BUSY_FACTOR = 1.5
"""How much slower than expected the last run may have been before it counts as disturbed."""
PHASES = ("imports_s", "data_s", "baseline_s", "rollout_s", "update_s", "final_s", "report_s")
"""Those that are long enough to matter."""
BUNDLED = "assets/profiles/cpu.json"

_MOST = 10**9
"""No time in seconds and no count of a usable profile is above it."""


@dataclass(frozen=True, slots=True)
class Work:
    """How much of everything a recipe does; times scale with it."""

    completions: int
    """Per update."""
    max_tokens: int
    baseline_samples: int
    """Samples per problem, summed over the suites, as the two that follow."""
    step_samples: int
    final_samples: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Measured phases of one recipe on one machine."""

    recipe: str
    cpu: str
    threads: int
    gflops: float
    """`cpu_speed()` of that machine."""
    measured: str
    """Date."""
    times: PhaseTimes
    work: Work | None = None
    versions: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """The file format of profiles."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def cpu_phase_times(
    recipe: Recipe,
    from_run: PhaseTimes | None,
    cache_dir: Path,
    *,
    budget_s: float | None = None,
) -> PhaseTimes:
    """Expected seconds of every phase of a CPU run; `source` says what they are made from.

    Args:
        recipe: a recipe with engine.device = "cpu".
        from_run: measured times of a run on this machine, which win.
        cache_dir: folder with the profiles of earlier runs, see `user_cache_dir`.
        budget_s: wall seconds of the run, for the interval between checkpoints.
    """
    if from_run is not None:
        return _with_cadence(from_run, recipe, budget_s)
    cached = _read_profile(_profile_path(recipe, cache_dir))
    bundled = bundled_profile()
    times = scaled_profile(bundled, recipe, cpu_speed(), _free_cores())
    if cached is not None:
        source = f"the last finished run of {cached.recipe} on this CPU ({cached.measured})"
        last = replace(_for_work(cached, recipe), source=source)
        times = _not_slower(last, times) if bundled.recipe == recipe.name else last
    return _with_cadence(times, recipe, budget_s)


def _not_slower(times: PhaseTimes, expected: PhaseTimes) -> PhaseTimes:
    """Times of the last run, but nothing far above what this machine should take.

    The last run may have shared its cores with other work, and that must not refuse the next one.
    """
    limit = expected.scaled(BUSY_FACTOR, expected.source)
    names = [name for name in PHASES if getattr(times, name) > getattr(limit, name)]
    if not names:
        return times
    return replace(times, early_step_s=None, **{name: getattr(limit, name) for name in names})


def scaled_profile(profile: Profile, recipe: Recipe, gflops: float, cores: int) -> PhaseTimes:
    """A profile's times on a machine of another speed.

    Args:
        profile: measured somewhere.
        recipe: what is planned here.
        gflops: `cpu_speed()` here.
        cores: that this process may use.
    """
    factor = profile.gflops / gflops * max(1.0, _threads(recipe) / cores)
    other = "" if profile.recipe == recipe.name else ", another recipe: a rough guess"
    source = (
        f"the bundled profile of {profile.recipe} ({profile.cpu}, {profile.measured}{other}), "
        f"x{factor:.2f} by a matrix product ({gflops:.0f} GFLOP/s here, {profile.gflops:.0f} there)"
    )
    return _for_work(profile, recipe).scaled(factor, source)


def times_for(times: PhaseTimes, measured: Recipe, recipe: Recipe) -> PhaseTimes:
    """What a run of one recipe measured, for as much work as another does."""
    profile = Profile(measured.name, "", 1, 1.0, "", times, work_of(measured))
    return _for_work(profile, recipe)


def store_profile(
    recipe: Recipe,
    times: PhaseTimes,
    cache_dir: Path,
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Keep what a finished run measured for the next plan of this recipe on this CPU.

    Raises:
        OSError: the folder cannot be written.
    """
    # Not at the top: run directories bring all event models, and a plan needs none of them.
    from budgetrl.files import write_json

    path = _profile_path(recipe, cache_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, measured_profile(recipe, times, versions).to_json())
    return path


def measured_profile(
    recipe: Recipe, times: PhaseTimes, versions: Mapping[str, str] | None = None
) -> Profile:
    """A profile of times that were measured on this machine today."""
    return Profile(
        recipe=recipe.name,
        cpu=cpu_model(),
        threads=_threads(recipe),
        gflops=round(cpu_speed(), 2),
        measured=datetime.now(UTC).date().isoformat(),
        times=times,
        work=work_of(recipe),
        versions=dict(versions or {}),
    )


def bundled_profile() -> Profile:
    """The profile that ships with budgetrl."""
    text = resources.files("budgetrl").joinpath(BUNDLED).read_text(encoding="utf-8")
    return _profile(json.loads(text))


def user_cache_dir() -> Path:
    """$XDG_CACHE_HOME/budgetrl, or ~/.cache/budgetrl."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "budgetrl"


def this_cpu() -> Gpu:
    """This machine's processor as a row of the GPU table: its name and its memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = 8 * GIB
    gib = memory / GIB
    return Gpu(cpu_model(), gib, 1.0, 1.0, bf16=True, fp8=False, usable_gib_reported=gib)


def work_of(recipe: Recipe) -> Work:
    """How much a recipe does."""

    def samples(when: EvalWhen) -> int:
        return sum(spec.samples for spec in recipe.eval if when in spec.when)

    return Work(
        completions=recipe.completions_per_step,
        max_tokens=recipe.sampling.max_tokens,
        baseline_samples=samples(EvalWhen.BASELINE),
        step_samples=samples(EvalWhen.STEP),
        final_samples=samples(EvalWhen.FINAL),
    )


def _for_work(profile: Profile, recipe: Recipe) -> PhaseTimes:
    """The profile's times for as much work as this recipe does."""
    times, done, wanted = profile.times, profile.work, work_of(recipe)
    if done is None:
        return times
    rows = wanted.completions / done.completions
    tokens = rows * wanted.max_tokens / done.max_tokens
    baseline = _ratio(wanted.baseline_samples, done.baseline_samples)
    step_eval_s = times.step_eval_s * _ratio(wanted.step_samples, done.step_samples)
    if wanted.step_samples and not times.step_eval_s:
        step_eval_s = times.final_s * _ratio(wanted.step_samples, done.final_samples)
    return replace(
        times,
        rollout_s=times.rollout_s * tokens,
        logprob_s=times.logprob_s * tokens,
        update_s=times.update_s * tokens,
        reward_s=times.reward_s * rows,
        early_step_s=None if times.early_step_s is None else times.early_step_s * tokens,
        baseline_s=times.baseline_s * baseline,
        step_eval_s=step_eval_s,
        final_s=times.final_s * _ratio(wanted.final_samples, done.final_samples),
    )


def _ratio(wanted: int, done: int) -> float:
    """How much more is wanted than was measured; 1 where nothing was measured."""
    return wanted / done if done else 1.0


def _with_cadence(times: PhaseTimes, recipe: Recipe, budget_s: float | None) -> PhaseTimes:
    """Intervals come from the recipe, whatever the measured run had."""
    return replace(
        times,
        step_evals_every=step_evals_every(recipe),
        saves_every_s=saves_every_s(recipe, times.step_s, budget_s),
    )


def _profile_path(recipe: Recipe, cache_dir: Path) -> Path:
    key = f"{recipe.name}\n{cpu_model()}\n{_threads(recipe)}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return cache_dir / "profiles" / f"cpu-{recipe.name}-{digest}.json"


def _read_profile(path: Path) -> Profile | None:
    """A cached profile; None where there is none, or it is of another version, cut or absurd."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        return _profile(data) if data["schema_version"] == SCHEMA_VERSION else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _profile(data: Mapping[str, Any]) -> Profile:
    """The profile in a file's content.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: a value is missing, or no such number.
    """
    work = data.get("work")
    numbers = {"gflops": data["gflops"], **data["times"], **(work or {})}
    for name, number in numbers.items():
        if name == "source" or (number is None and name in ("early_step_s", "step_evals_every")):
            continue
        least = 1 if name in ("completions", "max_tokens") else 0
        if not least <= number <= _MOST:
            raise ValueError(f"{name} = {number} in a profile")
    return Profile(
        recipe=data["recipe"],
        cpu=data["cpu"],
        threads=data.get("threads", 1),
        gflops=float(data["gflops"]),
        measured=data["measured"],
        times=PhaseTimes(**data["times"]),
        work=None if work is None else Work(**work),
        versions=data.get("versions"),
    )


def _threads(recipe: Recipe) -> int:
    return recipe.engine.threads or 1


def _free_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
