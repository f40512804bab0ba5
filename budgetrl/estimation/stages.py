"""What each stage of a run takes: seconds of its updates, memory, and how the budget is divided.

    staged = estimate_stages(recipe, base)       one StageEstimate for each of [[stages]]
    plan = plan_stages(times, staged, budget)    PhaseTimes and Plan of the whole run

A GRPO stage is estimated as a run of its own recipe, a distillation too, with its teacher's passes
besides. Of an SFT stage the tokens are known before it
begins, so its estimate is the surest of a plan.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from budgetrl.budget import EXIT_S, Budget, PhaseTimes, Plan, StagePlan, divided, plan
from budgetrl.errors import HardwareError
from budgetrl.estimation.adapters import adapter_of
from budgetrl.estimation.cpu_profile import planned_phases
from budgetrl.estimation.cpu_time import Machine, Passes, seconds, training
from budgetrl.estimation.demonstrations import DemonstrationLengths, demonstration_lengths
from budgetrl.estimation.estimate import Estimate, estimate, estimate_cpu, known_factors
from budgetrl.estimation.machine import this_machine, user_cache_dir
from budgetrl.estimation.memory import MemoryEstimate, Verdict
from budgetrl.estimation.scenario import Scenario, make_scenario, memory_of
from budgetrl.estimation.teaching import host_source, on_host, teaching_s
from budgetrl.estimation.terms import Band, total
from budgetrl.estimation.training_time import step_overhead, supervised
from budgetrl.estimation.workload import Update
from budgetrl.hardware import Gpu
from budgetrl.phases import UPDATE_PHASES
from budgetrl.recipe.schema import Recipe, Stage, StageKind
from budgetrl.units import gib

_UPDATE = tuple(f"{name}_s" for name in UPDATE_PHASES)
_OTHER_S = 0.01
"""Of an SFT update on a CPU, besides its passes."""


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """One stage."""

    stage: Stage
    recipe: Recipe
    """Its own."""
    times: PhaseTimes
    memory: MemoryEstimate | None
    """None: as the run's."""
    lengths: DemonstrationLengths | None = None
    """Of an SFT stage."""

    @property
    def together(self) -> int | None:
        """Completions that vLLM's cache holds at their expected length; None without vLLM.

        The cache has one size for the whole run, and vLLM's scheduler lets in what fits, so a stage
        of shorter answers has more of them at once.
        """
        if self.memory is None or not self.memory.reserved or self.lengths is not None:
            return None
        most = min(self.recipe.completions_per_step, self.recipe.engine.max_num_seqs)
        return int(most * min(1.0, self.memory.kv_room / self.memory.kv_wanted))

    @property
    def remark(self) -> str:
        """What is special in it, for people."""
        need = "" if self.memory is None else f", up to {gib(self.memory.peak)}"
        if self.lengths is None:
            at_once = "" if self.together is None else f", {self.together} at once"
            answers = f"completions up to {self.recipe.sampling.max_tokens} tokens{at_once}{need}"
            taught = self.stage.kind is StageKind.DISTILL and on_host(self.recipe)
            return f"{answers}; teacher.device = cpu: {host_source()}" if taught else answers
        about = f"{self.lengths.kept_share:.0%} of the rows within {self.recipe.sft.max_tokens}"
        return f"{about} tokens{need} ({self.lengths.source})"


Estimated = Callable[[Recipe], Estimate]
"""What a GRPO recipe takes, on the GPU or processor that is planned for."""


def stages_on(
    recipe: Recipe, card: Gpu | None, estimated: Estimated | None = None
) -> list[StageEstimate]:
    """What each stage takes on a GPU, or on this machine's processor; nothing without stages.

    Args:
        recipe: of the run.
        card: that is planned for; None: this machine's processor.
        estimated: as `estimate_stages`; None: by what earlier runs there measured.

    Raises:
        DataError, ModelError, RecipeError: as `estimate_stages`.
    """
    cache = user_cache_dir()

    def known(part: Recipe) -> Estimate:
        if card is None:
            return estimate_cpu(planned_phases(part, cache))
        return estimate(part, card, measured=known_factors(part, card, cache))

    if not recipe.stages:
        return []
    machine = None if card else this_machine(recipe)
    return estimate_stages(recipe, estimated or known, card, machine)


def estimate_stages(
    recipe: Recipe, estimated: Estimated, gpu: Gpu | None, machine: Machine | None
) -> list[StageEstimate]:
    """What each stage takes.

    Args:
        recipe: of the run.
        estimated: estimates the recipe of a GRPO stage.
        gpu: that is planned for; None: a CPU.
        machine: that CPU.

    Raises:
        DataError: demonstrations that cannot be used, or too few within the window.
        ModelError, RecipeError: as `estimate`.
    """
    made = []
    for stage, part in zip(recipe.stages, recipe.parts, strict=True):
        if stage.kind is StageKind.SFT:
            made.append(_sft(stage, part, estimated, gpu, machine))
        else:
            whole = estimated(part)
            times = whole.times
            if stage.kind is StageKind.DISTILL:
                taught_s = _taught_s(whole, times.update_s, gpu, machine)
                times = replace(times, update_s=taught_s, early_step_s=None)
            made.append(StageEstimate(stage, part, times, whole.memory))
    return made


def _taught_s(whole: Estimate, update_s: float, gpu: Gpu | None, machine: Machine | None) -> float:
    """Seconds of an update with its teacher's passes, as earlier distillations here took them.

    What updates of GRPO took says nothing of it: how many of their groups had signal is in that.
    """
    if machine is None:
        return update_s + teaching_s(whole.scenario, gpu, None)
    passes_s = teaching_s(whole.scenario, None, _machine_of(whole, machine))
    factors = whole.phases.measured
    own = factors.get("update") or 1.0
    return (update_s / own + passes_s) * factors.get("distill", 1.0)


def _machine_of(made: Estimate, machine: Machine) -> Machine:
    """The machine that measured factors are over the formulas of."""
    return replace(machine, gflops=made.phases.gflops or machine.gflops)


def as_completions(part: Recipe) -> Recipe:
    """An SFT stage as memory sees it: completions that fill its window, and no reference."""
    window = part.sft.max_tokens
    room = max(1, window - part.prompt.max_tokens)
    sampling = {"sampling.max_tokens": room, "sampling.expected_tokens": None}
    batch = {"batch.micro_batch": part.sft.micro_batch, "batch.updates_per_rollout": 1}
    return part.but({**sampling, **batch, "grpo.beta": 0.0})


def _sft(
    stage: Stage, part: Recipe, estimated: Estimated, gpu: Gpu | None, machine: Machine | None
) -> StageEstimate:
    lengths = demonstration_lengths(part)
    # Of a run of GRPO everything but the update is the same: evaluations, checkpoints.
    base = estimated(part)
    if gpu is None:
        assert machine is not None
        measured = base.phases.measured.get("sft", 1.0)  # not GRPO's, as `_taught_s` says
        there = _machine_of(base, machine)
        update_s = measured * learning_s(part, base.scenario, lengths, there)
        other_s, memory = _OTHER_S, None
    else:
        rows = part.sft.rows_per_step
        passes, padded = lengths.passes(rows, part.sft.micro_batch * part.sft.max_tokens)
        scenario = make_scenario(as_completions(part), gpu)
        memory = memory_of(scenario)
        mean = lengths.mean - lengths.prompt_tokens
        square = lengths.mean_square - 2 * lengths.prompt_tokens * mean - lengths.prompt_tokens**2
        learnt = Update(
            sequences=rows,
            prompt_tokens=lengths.prompt_tokens,
            mean=mean,
            mean_square=max(mean**2, square),
            longest_in_micro=padded - lengths.prompt_tokens,
            micro_batches=passes,
            adapter_params=scenario.adapter_params,
            precision=scenario.precision,
            checkpointing=part.engine.gradient_checkpointing,
            reference=False,
            padded=not scenario.vllm,
            trainer=scenario.trainer,
        )
        update_s = total(supervised(learnt, scenario.shape, gpu, scenario.constants))
        other_s = total(step_overhead(False, scenario.constants))
    times = _with_update(base.times, {"update_s": update_s, "other_s": other_s})
    times = replace(times, tokens_mean=None)
    return StageEstimate(stage, part, times, memory, lengths)


def learning_s(
    part: Recipe, scenario: Scenario, lengths: DemonstrationLengths, machine: Machine
) -> float:
    """Seconds of the passes of an SFT update on a CPU, by the formulas."""
    rows = part.sft.rows_per_step
    passes, padded = lengths.passes(rows, part.sft.micro_batch * part.sft.max_tokens)
    work = Passes(
        rows=rows,
        micro_batches=passes,
        prompt_tokens=lengths.prompt_tokens,
        completion_tokens=padded - lengths.prompt_tokens,
        adapter=adapter_of(part),
        checkpointing=part.engine.gradient_checkpointing,
    )
    return total(seconds(training(work, scenario.shape), machine))


def plan_stages(
    times: PhaseTimes,
    staged: Sequence[StageEstimate],
    budget: Budget,
    *,
    exit_s: float,
    rounds: int,
) -> tuple[PhaseTimes, Plan]:
    """The run's times and plan, with updates of the stages' mean length.

    Args:
        times: of everything but updates.
        staged: as `estimate_stages` makes them.
        budget: the limit.
        exit_s: as in `budget.plan`.
        rounds: as in `budget.plan`.
    """
    empty = plan(_with_update(times, {}), budget, 0, exit_s=exit_s)
    left_s = budget.wall_s - empty.setup_s - empty.baseline_s - empty.reserve_s - empty.report_s
    parts = divided(max(0.0, left_s), [_asked(one, times) for one in staged])
    count = sum(part.steps for part in parts)
    mean = _mean_times(times, staged, parts) if count else staged[0].times
    wanted = [one.requested for one in parts]
    known = [steps for steps in wanted if steps is not None]
    requested = sum(known) if len(known) == len(wanted) else None
    made = plan(mean, budget, count or requested, exit_s=exit_s, rounds=rounds)
    whole = made.affordable_steps if count in (0, requested) else min(count, made.affordable_steps)
    return mean, replace(
        made, stages=tuple(parts), requested_steps=requested, affordable_steps=whole
    )


def _asked(one: StageEstimate, run: PhaseTimes) -> StagePlan:
    """A stage with its share of evaluations, and of the checkpoints of the run."""
    times, stop = one.times, one.recipe.schedule.stop_after_steps
    every = times.step_evals_every
    evals_s = times.step_eval_s / every if every else 0.0
    saves_s = run.save_s * times.step_s / run.saves_every_s if run.saves_every_s else 0.0
    return StagePlan(
        name=one.stage.name,
        kind=one.stage.kind.value,
        step_s=times.step_s + evals_s + saves_s,
        share=one.stage.share,
        requested=stop,
        remark=one.remark,
    )


def _mean_times(
    times: PhaseTimes, staged: Sequence[StageEstimate], parts: Sequence[StagePlan]
) -> PhaseTimes:
    """An update of the run: the stages', by how many each makes."""
    count = sum(part.steps for part in parts)
    pairs = list(zip(staged, parts, strict=True))
    mean = {
        name: sum(getattr(one.times, name) * part.steps for one, part in pairs) / count
        for name in _UPDATE
    }
    return _with_update(times, mean)


def _with_update(times: PhaseTimes, seconds_of: Mapping[str, float]) -> PhaseTimes:
    """Times with another update; phases of it that are not given take none."""
    update: dict[str, Any] = {name: seconds_of.get(name, 0.0) for name in _UPDATE}
    return replace(times, **update, early_step_s=None)


def stage_documents(staged: Sequence[StageEstimate], made: Plan) -> list[dict[str, Any]]:
    """For plan.json: each stage's plan, and the times that its forecasts begin with."""
    return [
        asdict(part) | {"times": asdict(one.times)}
        for one, part in zip(staged, made.stages, strict=True)
    ]


def refuse_unfit(staged: Sequence[StageEstimate]) -> None:
    """Stop before a run of which a stage cannot fit.

    Raises:
        HardwareError: it does not; names the stage and what would help.
    """
    for one in staged:
        if one.memory is None or one.memory.verdict is not Verdict.NO:
            continue
        name, sft = one.stage.name, one.lengths is not None
        passes = "sft.micro_batch" if sft else "batch.micro_batch"
        window = "sft.max_tokens" if sft else "sampling.max_tokens"
        raise HardwareError(
            f"stage {name} does not fit: {one.memory.reason}.",
            hint=f"Lower stages.{name}.{window} or stages.{name}.{passes}; "
            "`budgetrl run --force fit` starts it all the same.",
        )


def in_stages(made: Estimate, staged: Sequence[StageEstimate]) -> Estimate:
    """An estimate of a run in stages, from that of its recipe as a single GRPO stage.

    Updates are the stages' mean; the bands keep their width in proportion, and memory is that of
    the stage that needs most.
    """
    if not staged or made.budget is None:
        return made
    times, whole = plan_stages(made.times, staged, made.budget, exit_s=EXIT_S, rounds=1)
    slower = times.step_s / made.times.step_s if made.times.step_s else 1.0
    count = whole.affordable_steps
    band = made.affordable_band
    if band is not None and made.affordable_steps:
        band = Band(*(count * end / made.affordable_steps for end in (band.low, band.high)))
    longer = whole.total_s / made.plan.total_s
    memories = [one.memory for one in staged if one.memory is not None]
    return replace(
        made,
        times=times,
        plan=whole,
        requested_steps=whole.requested_steps,
        affordable_steps=count,
        affordable_band=band,
        step_band=Band(made.step_band.low * slower, made.step_band.high * slower),
        total_band=Band(
            min(whole.total_s, made.total_band.low * longer),
            min(made.budget.wall_s, max(whole.total_s, made.total_band.high * longer)),
        ),
        memory=max([made.memory, *memories], key=lambda held: held.peak),
    )
