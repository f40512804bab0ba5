"""An estimate as the JSON document of `budgetrl estimate --json`, and what it took for granted."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from budgetrl.estimation.advice import advise
from budgetrl.estimation.estimate import Estimate
from budgetrl.estimation.learning import paces
from budgetrl.estimation.lengths import CV
from budgetrl.estimation.scenario import LIVE_GROUPS, planned_samples
from budgetrl.estimation.teaching import host_source, on_host
from budgetrl.estimation.terms import suite_lengths
from budgetrl.estimation.training_time import mfu_name
from budgetrl.recipe.schema import Recipe
from budgetrl.units import GIB, hours

SCHEMA_VERSION = 1

PASSES_SOURCE = "the reference (beta > 0), and the old policy for several steps a rollout batch"

_MEMORY_PARTS = (
    *("weights", "adapter", "gradients", "optimizer", "teacher", "kv_cache"),
    *("rollout_buffers", "reserved", "logits", "activations", "reference", "runtime"),
    *("peak_generation", "peak_training"),
    *("peak", "low", "high"),
)


class Assumption(NamedTuple):
    """Something that an estimate takes for granted."""

    key: str
    value: float | int | str
    source: str


def estimate_json(
    made: Estimate, beside: Estimate | None = None, probe: Path | None = None
) -> dict[str, Any]:
    """One estimate, in the form of the contract (CLI.md).

    Args:
        made: the estimate.
        beside: of the recipe that it is compared with.
        probe: a table of solve rates, for the share of groups with signal.
    """
    parts = asdict(made.disk) | {"total": made.disk.total}
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": made.scenario.recipe.name,
        "gpu": _gpu(made),
        "fits": made.fits,
        "verdict": made.memory.verdict.value,
        "verdict_reason": made.memory.reason,
        "gpu_memory_utilization": made.memory.utilization,
        "memory_gib": {name: getattr(made.memory, name) / GIB for name in _MEMORY_PARTS},
        "disk_gib": {name: size / GIB for name, size in parts.items()},
        "seconds": _seconds(made),
        "steps": {
            "affordable": made.affordable_steps,
            "low": made.affordable_band.low if made.affordable_band else None,
            "high": made.affordable_band.high if made.affordable_band else None,
            "requested": made.requested_steps,
        },
        "samples": planned_samples(made.scenario.recipe),
        "passes": made.scenario.passes().to_json(),
        "tokens": {"per_step": made.tokens_per_step, "total": made.tokens_per_step * made.steps},
        "hours": {
            "total": hours(made.plan.total_s),
            "low": hours(made.total_band.low),
            "high": hours(made.total_band.high),
        },
        "usd": _usd(made),
        "signal": _signal(made, probe) | {"beside": beside and _signal(beside, probe)},
        **_stages(made),
        "assumptions": [assumption._asdict() for assumption in assumptions(made)],
        "advice": advise(made),
    }


def estimates_json(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """All GPUs: the same documents without advice, and which is best at what."""
    rows = []
    for made in estimates:
        row = estimate_json(made)
        del row["assumptions"], row["advice"], row["signal"]
        rows.append({**row, "steps_per_usd": made.steps_per_usd})
    marks = best(estimates)
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": estimates[0].scenario.recipe.name if estimates else None,
        "gpus": rows,
        "cheapest": marks.cheapest,
        "fastest": marks.fastest,
    }


class Best(NamedTuple):
    """Names of the GPUs on which a recipe fits and is cheapest or fastest."""

    cheapest: str | None
    fastest: str | None


def best(estimates: Sequence[Estimate]) -> Best:
    """Most updates per dollar, and least seconds per update, among GPUs that fit."""
    fitting = [made for made in estimates if made.fits]
    priced = [made for made in fitting if made.steps_per_usd is not None]
    cheapest = max(priced, key=lambda made: made.steps_per_usd or 0.0, default=None)
    fastest = min(fitting, key=lambda made: made.times.step_s, default=None)
    return Best(
        cheapest.scenario.gpu.name if cheapest else None,
        fastest.scenario.gpu.name if fastest else None,
    )


def assumptions(made: Estimate) -> list[Assumption]:
    """What the estimate takes for granted, the weightiest first."""
    scenario, gpu = made.scenario, made.scenario.gpu
    found = [Assumption("times", "from", made.times.source)]
    shape = scenario.shape
    if shape.source:
        found.append(Assumption("model.shape", round(shape.params / 1e9, 3), shape.source))
    if shape.left_out:
        left_out = "a multimodal model: only its language part is counted"
        found.append(Assumption("model.left_out", shape.left_out, left_out))
    if not shape.is_known:
        unknown = "layers that are not known here: counted as a Llama's of these sizes"
        found.append(Assumption("model.family", shape.model_type, unknown))
    mean = scenario.mean_tokens
    band = f"{mean.low:.0f} - {mean.high:.0f}; " if mean.low < mean.high else ""
    found.append(Assumption("completion_tokens_mean", round(mean.value), f"{band}{mean.source}"))
    for one in planned_samples(scenario.recipe):
        if one["until_width"] is not None:
            until = f"{one['min']} to {one['max']}, until {one['until_width']:g} points wide"
            found.append(Assumption(f"samples of {one['suite']}", one["expected"], until))
    if scenario.recipe.engine.device == "cpu":
        prompts = "of the recipe's own problems; Open-RS with its prompt where they are not here"
        return [*found, Assumption("prompt_tokens_mean", round(scenario.prompt_tokens), prompts)]
    inside = "inside the budget here"
    if scenario.recipe.paper is not None:
        inside += "; the paper's 24 h are training alone"
    found += [
        Assumption("completion_tokens_cv", CV, "lognormal, cut at sampling.max_tokens"),
        Assumption("prompt_tokens_mean", round(scenario.prompt_tokens), _prompts(scenario.recipe)),
        Assumption("evaluation_hours", round(hours(made.evaluation_s), 2), inside),
        *_suite_assumptions(scenario.recipe),
        Assumption("logprob_passes", scenario.passes().no_grad_passes, PASSES_SOURCE),
    ]
    if on_host(scenario.recipe):
        found.append(Assumption("teacher.device", "cpu", host_source()))
    if scenario.live_share < 1 or scenario.rollout_factor > 1:
        share = "groups without signal: Open-RS 78 % at first, few later"
        found.append(Assumption("live_groups_share", LIVE_GROUPS, share))
    for name in ("decode_efficiency", mfu_name(gpu)):
        constant = scenario.constants.table[name]
        source = f"{constant.low:g} - {constant.high:g}; {constant.source}"
        found.append(Assumption(name, constant.value, source))
    measured = gpu.usable_gib_reported is not None
    source = "as CUDA reports it" if measured else "a share of the label, as on similar cards"
    found.append(Assumption("gpu_usable_gib", round(gpu.usable_gib, 2), source))
    download = "model is downloaded at 0.03 - 0.4 GB/s, inside the budget"
    found.append(Assumption("download_gb_s", scenario.constants["download_gb_s"], download))
    return found


def _signal(made: Estimate, probe: Path | None) -> dict[str, Any]:
    """Groups with signal an hour and a dollar; on a CPU the run's own report says it."""
    on_cpu = made.scenario.recipe.engine.device == "cpu"
    rows = [] if on_cpu else [pace.to_json() for pace in paces(made, probe)]
    first = rows[0] if rows else {}
    return {
        "share_assumed": first.get("share"),
        "groups_per_hour": first.get("per_hour"),
        "groups_per_usd": first.get("per_usd"),
        "source": first.get("source"),
        "recipe": made.scenario.recipe.name,
        "paces": rows,
    }


def _stages(made: Estimate) -> dict[str, Any]:
    """Of a run in stages: what each takes."""
    rows = [
        {
            "name": stage.name,
            "kind": stage.kind,
            "seconds": {"step": stage.step_s, "total": stage.seconds},
            "steps": stage.steps,
        }
        for stage in made.plan.stages
    ]
    return {"stages": rows} if rows else {}


def _prompts(recipe: Recipe) -> str:
    source = "Open-RS with its prompt"
    return source if recipe.data.path is None else f"{source}, at most prompt.max_tokens"


def _suite_assumptions(recipe: Recipe) -> list[Assumption]:
    suites = suite_lengths()
    if not any(spec.suite in suites.over_training for spec in recipe.eval):
        return []
    ratios = ", ".join(f"{name} x{ratio:g}" for name, ratio in suites.over_training.items())
    return [Assumption("suite_lengths", ratios, f"uncut, over training lengths; {suites.source}")]


def _gpu(made: Estimate) -> dict[str, Any]:
    gpu, price = made.scenario.gpu, made.price
    return {
        "name": gpu.name,
        "memory_gib": gpu.usable_gib,
        "usd_per_hour": price.usd_per_hour if price else None,
        "price_source": price.source if price else None,
        "price_date": (price.date or None) if price else None,
    }


def _seconds(made: Estimate) -> dict[str, float]:
    times, plan = made.times, made.plan
    return {
        "setup": plan.setup_s,
        "baseline_eval": plan.baseline_s,
        "rollout": times.rollout_s,
        "reward": times.reward_s,
        "logprob": times.logprob_s,
        "update": times.update_s,
        "other": times.other_s,
        "step": plan.step_s,
        "step_low": made.step_band.low,
        "step_high": made.step_band.high,
        "checkpoint_evals": plan.step_evals_s,
        "final_eval": times.final_s,
        "save": plan.saves_s,
        "report": plan.report_s,
        "reserve": plan.reserve_s,
    }


def _usd(made: Estimate) -> dict[str, float | None]:
    return {
        "total": made.usd,
        "low": made.usd_of(made.total_band.low),
        "high": made.usd_of(made.total_band.high),
        "per_step": made.usd_of(made.times.step_s),
    }
