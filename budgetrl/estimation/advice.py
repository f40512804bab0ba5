"""What to change: to make a recipe fit a GPU, or to get more out of the same money.

    advise(estimate)     -> ["batch.micro_batch = 4: fits, +1.6 s per update", ...]

Every line is an estimate of the changed recipe, not a rule of thumb; changes of the algorithm say
so. Nothing here is applied: recipes change by hand or by --set.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from budgetrl.errors import HardwareError
from budgetrl.estimation.cpu_memory import cpu_memory
from budgetrl.estimation.estimate import Estimate, estimate
from budgetrl.estimation.memory import Verdict
from budgetrl.recipe.schema import EngineName, Recipe, RewardName
from budgetrl.units import GIB, duration

_WORTH = 0.03
"""Share of a step below which a saving is not worth a line."""
_MAX_LINES = 5


@dataclass(frozen=True, slots=True)
class Change:
    """Values of a recipe to set, and what that means."""

    values: Mapping[str, Any]
    note: str = ""

    @property
    def text(self) -> str:
        """As it would stand behind --set."""
        return ", ".join(f"{key} = {_toml(value)}" for key, value in self.values.items())


def advise(made: Estimate) -> list[str]:
    """What would make it fit, or what would give more."""
    if made.scenario.recipe.engine.device == "cpu":
        return [] if made.fits else _to_fit_here(made)
    return _to_fit(made) if not made.fits else _to_gain(made)


def _again(made: Estimate, change: Change) -> Estimate:
    recipe = made.scenario.recipe.but(change.values)
    return estimate(recipe, made.scenario.gpu, made.budget, price=made.price)


def _to_fit(made: Estimate) -> list[str]:
    """The smallest changes after which it fits: single ones, or else pairs and all together."""
    recipe, gpu = made.scenario.recipe, made.scenario.gpu
    needed = Change({})
    if recipe.model.dtype == "bfloat16" and not gpu.bf16:
        needed = Change({"model.dtype": "float16"})
    if needed.values and _again(made, needed).fits:
        return [_fit_line(made, needed)]
    singles = [Change({**needed.values, **change.values}, change.note) for change in _savers(made)]
    fitting = [change for change in singles if _again(made, change).fits]
    if not fitting:
        fitting = _combined(made, singles)
    if not fitting:
        return [f"nothing that budgetrl can change makes it fit {gpu.usable_gib:.0f} GiB"]
    return [_fit_line(made, change) for change in fitting[:_MAX_LINES]]


def _to_fit_here(made: Estimate) -> list[str]:
    """The smallest micro-batch with which it fits a CPU's memory, or else all that saves some."""
    recipe, values = made.scenario.recipe, dict[str, Any]()
    steps: list[dict[str, Any]] = (
        [{"engine.eval_batch": 32}] if recipe.engine.eval_batch > 32 else []
    )
    smaller = recipe.smaller_micro_batch()
    while smaller is not None:
        steps.append({"batch.micro_batch": smaller})
        smaller = recipe.with_micro_batch(smaller).smaller_micro_batch()
    if not recipe.engine.gradient_checkpointing:
        steps.append({"engine.gradient_checkpointing": True})
    for step in steps:
        values |= step
        other = cpu_memory(replace(made.scenario, recipe=recipe.but(values)))
        if other.verdict is not Verdict.NO:
            return [f"{Change(values).text}: fits ({other.peak / GIB:.1f} GiB)"]
    return [f"nothing that budgetrl can change makes it fit {made.memory.usable / GIB:.0f} GiB"]


def _combined(made: Estimate, singles: list[Change]) -> list[Change]:
    """Changes added one after the other until it fits."""
    values: dict[str, Any] = {}
    for change in singles:
        values |= {key: value for key, value in change.values.items() if key not in values}
        if _again(made, Change(values)).fits:
            return [Change(values)]
    return []


def _savers(made: Estimate) -> Iterator[Change]:
    """Changes that save memory, the harmless ones first."""
    recipe = made.scenario.recipe
    if recipe.engine.gpu_memory_utilization is not None and made.memory.utilization is not None:
        needed = _again(made, Change({"engine.gpu_memory_utilization": None})).memory
        yield Change({"engine.gpu_memory_utilization": needed.utilization}, "what vLLM needs")
    teacher = recipe.teacher
    if made.memory.teacher and teacher is not None and not teacher.load_in_4bit:
        yield Change({"teacher.load_in_4bit": True})
    micro = recipe.batch.micro_batch
    while micro > 1:
        micro //= 2
        yield Change({"batch.micro_batch": micro})
    if recipe.engine.name is EngineName.UNSLOTH and not recipe.engine.standby:
        yield Change({"engine.standby": True})
    if not recipe.engine.gradient_checkpointing:
        yield Change({"engine.gradient_checkpointing": True})
    if recipe.optimizer.name == "adamw":
        yield Change({"optimizer.name": "adamw_8bit"})
    if recipe.engine.name is EngineName.UNSLOTH and recipe.engine.max_num_seqs > 64:
        yield Change({"engine.max_num_seqs": 64})
    tokens = recipe.sampling.max_tokens
    for share in (0.75, 0.5):
        shorter = max(64, int(tokens * share) // 64 * 64)
        yield Change({"sampling.max_tokens": shorter}, "other lengths than the recipe's")
    if not (recipe.model.load_in_4bit or recipe.lora.is_full):
        yield Change({"model.load_in_4bit": True}, "another base model in effect")
    for rank in () if recipe.lora.is_full else (64, 16, 8):
        if rank < recipe.lora.adapter_rank:
            yield Change({"lora.rank": rank}, "another arm of the study")


def _fit_line(made: Estimate, change: Change) -> str:
    other = _again(made, change)
    difference = other.times.step_s - made.times.step_s
    price = f"{'+' if difference >= 0 else '-'}{duration(abs(difference))} per update"
    tight = ", tight" if other.memory.verdict is Verdict.TIGHT else ""
    note = f"; {change.note}" if change.note else ""
    return f"{change.text}: fits{tight} ({other.memory.peak / GIB:.1f} GiB), {price}{note}"


def _to_gain(made: Estimate) -> list[str]:
    """Changes that buy more updates, the largest gain first."""
    gains = []
    for change in _faster(made.scenario.recipe):
        other = _again(made, change)
        saved = made.times.step_s - other.times.step_s
        if other.fits and saved > _WORTH * made.times.step_s:
            gains.append((saved, change, other))
    gains.sort(key=lambda gain: -gain[0])
    lines = [_gain_line(made, *gain) for gain in gains[:_MAX_LINES]]
    return [*_remarks(made), *lines, *_order(made.scenario.recipe)]


def _faster(recipe: Recipe) -> Iterator[Change]:
    if recipe.grpo.beta > 0:
        yield Change({"grpo.beta": 0.0}, "no KL term, so no reference pass")
    if recipe.signal.skip == "off":
        skip = {"signal.skip": "accuracy"}
        yield Change(skip, "if half the groups have no signal; changes the algorithm")
    if recipe.engine.gradient_checkpointing and recipe.completions_per_update % 2 == 0:
        values = {"engine.gradient_checkpointing": False, "batch.micro_batch": 2}
        yield Change(values, "three passes instead of four, for memory")
    if recipe.completions_per_update % (4 * recipe.batch.micro_batch) == 0:
        yield Change({"batch.micro_batch": 4 * recipe.batch.micro_batch})
    if recipe.batch.prompts_per_step >= 8 and recipe.batch.prompts_per_step % 2 == 0:
        half = recipe.batch.prompts_per_step // 2
        group, updates = recipe.grpo.num_generations, recipe.batch.updates_per_rollout
        if half % updates == 0 and half * group % (updates * recipe.batch.micro_batch) == 0:
            yield Change({"batch.prompts_per_step": half}, "more updates from fewer answers each")


def _order(recipe: Recipe) -> Iterator[str]:
    """What changes no second of an update, but what it teaches."""
    if recipe.signal.order == "uniform" and RewardName.ACCURACY in recipe.reward_names:
        yield (
            'signal.order = "difficulty": more groups with right and wrong answers in the same '
            "time; overlays/most_learning is all of it together"
        )


def _gain_line(made: Estimate, saved: float, change: Change, other: Estimate) -> str:
    share = saved / made.times.step_s
    text = f"{change.text}: {duration(saved)} less per update ({share:.0%})"
    if made.affordable_steps is not None and other.affordable_steps is not None:
        text += f", {other.affordable_steps} instead of {made.affordable_steps} updates"
    return f"{text}; {change.note}" if change.note else text


def _remarks(made: Estimate) -> list[str]:
    """What stands out about this plan."""
    lines = []
    if made.scenario.gpu.compute_capability.startswith("gfx"):
        lines.append(
            "this is an AMD card: `scripts/install.sh gpu` installs CUDA packages, and no set for "
            "ROCm was tried"
        )
    if made.memory.waves > 1.3:
        room, wanted = made.memory.kv_room / GIB, made.memory.kv_wanted / GIB
        lines.append(
            f"the KV cache has room for {room:.0f} of {wanted:.0f} GiB: completions run in "
            f"about {made.memory.waves:.1f} waves"
        )
    requested, affordable = made.requested_steps, made.affordable_steps
    if affordable is not None and requested is not None and 0 < affordable < requested:
        missing = (requested - affordable) * made.times.step_s
        lines.append(f"all {requested} updates would take about {duration(missing)} more")
    if made.evaluation_s > 0.15 * made.plan.total_s:
        share = made.evaluation_s / made.plan.total_s
        lines.append(
            f"evaluations take {share:.0%} of the run: fewer eval samples or a longer every_steps "
            "leave more for updates"
        )
    return lines


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def refuse_unfit(made: Estimate) -> None:
    """Stop before a run that cannot fit.

    Raises:
        HardwareError: it does not fit; names the numbers and the smallest changes that would.
    """
    if made.fits:
        return
    ways = advise(made)[:3]
    hint = "Fits with " + "; or ".join(way.replace(": fits", "") for way in ways) + "."
    if ways and ways[0].startswith("nothing"):
        hint = f"{ways[0][:1].upper()}{ways[0][1:]}; `budgetrl estimate --all-gpus` shows which do."
    reason = made.memory.reason
    raise HardwareError(
        f"{made.scenario.recipe.name} on {made.scenario.gpu.name}: {reason}.",
        hint=f"{hint} `budgetrl run --force fit` starts it all the same.",
    )
