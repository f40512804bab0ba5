"""What happens after each update: the step's event, evaluations, checkpoints, and whether to go on.

The only place with TRL's log keys. Runs inside the trainer as a transformers callback.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from budgetrl.budget import PhaseTimes
from budgetrl.errors import TrainingError
from budgetrl.events import PlanEvent, Step
from budgetrl.forecast import Decision, Forecaster
from budgetrl.ledger import Ledger
from budgetrl.processor import peak_rss_gib
from budgetrl.recipe.schema import Recipe
from budgetrl.rewards.registry import check_faults, fault_lines
from budgetrl.rundir import RunDir
from budgetrl.training.alarms import Alarms, Watch, no_signal
from budgetrl.training.evals import Evaluator
from budgetrl.training.log import RunLog
from budgetrl.training.opening import end_margin_s
from budgetrl.training.progress import Progress
from budgetrl.training.recorder import StepRecord
from budgetrl.training.saving import Best, Saver
from budgetrl.training.stage import TrainerParts
from budgetrl.training.stopper import Stopper
from budgetrl.training.trackers import TrackerThread
from budgetrl.types import EvalWhen, StopReason, Verdict

MAX_EMPTY_UPDATES = 3
"""Updates in a row without any signal that end a run."""
MAX_BAD_UPDATES = 3
"""Updates in a row with non-finite gradients that end a run."""
CLIPPED = "clip_ratio/region_mean"
"""TRL's share of clipped tokens."""
PLAN_EVERY = 10
"""Updates between two plan events."""


@dataclass(slots=True)
class StepCallback(TrainerCallback):
    """Follows a training update by update."""

    run: RunDir
    recipe: Recipe
    parts: TrainerParts
    log: RunLog
    forecaster: Forecaster
    evaluator: Evaluator
    alarms: Alarms
    watch: Watch
    stopper: Stopper
    tracker: TrackerThread
    trainer: Any = None
    saver: Saver = field(init=False)
    stop_reason: StopReason | None = None
    rollout_deadline: float = float("inf")
    _bad_updates: int = 0
    _empty_updates: int = 0
    _fractions_done: set[tuple[str, float]] = field(default_factory=set)
    _optimizer_time: AbstractContextManager[None] | None = None
    _logs: list[dict[str, Any]] = field(default_factory=list)
    """Of the optimiser steps of the running step."""

    def __post_init__(self) -> None:
        clock = self.parts.clock
        self.saver = Saver(
            self.run, self.recipe, self.log, clock, self.forecaster, self.stopper, self.state
        )

    @property
    def ledger(self) -> Ledger:
        """What was paid."""
        return self.log.ledger

    @property
    def progress(self) -> Progress:
        """How far the run is in its stage."""
        return self.parts.progress

    @property
    def used_share(self) -> float:
        """Of the budget, or of what a stage may take of it: what a schedule by budget follows."""
        if self.progress.stage is None:
            return self.ledger.used_share
        now = self.ledger.clock()
        taken_s = self.progress.taken_s(now)
        return taken_s / max(1e-9, min(self.allotted_s(now), taken_s + self.left_s()))

    @property
    def steps(self) -> int:
        """Updates made so far, over all attempts."""
        return int(self.trainer.rollouts)

    def begin(self) -> bool:
        """Called once, right before training; False when not one update fits."""
        self.saver.begin()
        self.progress.begin(self.ledger.clock())
        self.parts.clock.take()
        decision = self.decide()
        self._allow_rollout(decision)
        if not decision.go_on:
            self.stop_reason = StopReason.BUDGET
        return decision.go_on

    def replan(self, times: PhaseTimes) -> None:
        """Take over corrected times of the updates to come."""
        self.forecaster.planned_step_s = times.step_s
        self.forecaster.planned_early_s = times.early_step_s
        self._emit_plan(0, self.decide())

    def rollout_is_over(self) -> bool:
        """Whether the running rollout has used up its time."""
        return self.ledger.clock() > self.rollout_deadline

    def decide(self, extra_s: float = 0.0) -> Decision:
        """Whether one more update fits."""
        return self.forecaster.decide(self.ledger.remaining_s - end_margin_s(), extra_s)

    def allotted_s(self, now: float) -> float:
        """Seconds that the stage may take in all; infinite where nothing limits it."""
        return self.progress.allotted_s(now, self.left_s())

    def left_s(self) -> float:
        """What is left of the training time, in seconds."""
        return self.ledger.remaining_s - end_margin_s() - self.forecaster.reserve_s

    # --- transformers' hooks

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """What the libraries did to begin is no part of an update."""
        self.parts.clock.take()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Gradients that are not finite are dropped, so that the update changes nothing."""
        self._optimizer_time = self.parts.clock.time("update")
        self._optimizer_time.__enter__()
        gradients = [p.grad for p in self.trainer.model.parameters() if p.grad is not None]
        if all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            self._bad_updates = 0
            return
        self._bad_updates += 1
        self.log.warn("non_finite", f"update {self.steps + 1}: gradients are not finite")
        for parameter in self.trainer.model.parameters():
            parameter.grad = None

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The other end of the optimiser's time."""
        assert self._optimizer_time is not None
        self._optimizer_time.__exit__(None, None, None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """An optimiser step is finished and its numbers are known; with the last one, the step."""
        state.log_history.clear()
        if logs is None or "grad_norm" not in logs:
            return control
        self._logs.append(logs)
        if len(self._logs) < self.recipe.optimizer_steps:
            return control
        step = self.steps
        self._record(step, merged_logs(self._logs))
        self._logs.clear()
        if self._bad_updates >= MAX_BAD_UPDATES:
            newest = self.run.newest_checkpoint()
            raise TrainingError(
                f"{MAX_BAD_UPDATES} updates in a row had gradients that are not finite; "
                f"the last good checkpoint is {newest.path.name if newest else 'none'}.",
                hint=f"Go on more slowly: `budgetrl resume {self.run.path} "
                f"--set schedule.learning_rate={self.recipe.schedule.learning_rate / 3:.1g}`.",
            )
        self._evaluate_if_due(step)
        decision = self.decide(self.saver.cost_s(step))
        complete = self.progress.over or step == self._stop_after
        if self.stopper.requested():
            self.stop_reason = self.stopper.reason
        elif self.stop_reason is None and not complete and not decision.go_on:
            self.stop_reason = StopReason.BUDGET
        elif self.saver.due(step) and not self.progress.over:  # its end is saved with it
            self.save("interval")
        self._allow_rollout(self.decide())
        control.should_training_stop |= self.stop_reason is not None or self.progress.over
        return control

    # --- the parts of a step's end

    def save(self, reason: str) -> None:
        """A checkpoint of the last finished update."""
        self.saver.save(self.trainer, reason)

    def state(self) -> dict[str, Any]:
        """What a resumed run takes over by `restore`."""
        rates = self.parts.sampler.rates
        return {
            "best": asdict(self.saver.best),
            "paid_s": self.ledger.elapsed_s,
            "train_s": self.ledger.train_s,
            "threads": self.recipe.engine.threads,
            "fractions_done": sorted(self._fractions_done),
            "empty_updates": self._empty_updates,
            "solve_rates": None if rates is None else rates.to_json(),
        } | ({"stage": self.progress.to_json(self.ledger.clock())} if self.progress.stage else {})

    def take_over(self, before: "StepCallback") -> None:
        """Go on after the stage before this one."""
        self.saver.saved_step, self.saver.best = before.saver.saved_step, before.saver.best
        self.stop_reason = before.stop_reason
        self._fractions_done = before._fractions_done
        self.forecaster.after(before.forecaster)

    def restore(self, step: int, state: Mapping[str, Any]) -> None:
        """Take over what the checkpoint of a step holds in its `state.json`."""
        self.saver.saved_step = step
        self.forecaster.untrained = step == 0
        # A best value under another protocol is not comparable with what follows.
        self.saver.best = Best() if self.evaluator.renew else Best(**state["best"])
        self._fractions_done = {(suite, share) for suite, share in state["fractions_done"]}
        # A run that was stopped for want of signal and is resumed all the same has another chance.
        empty = state["empty_updates"]
        stopped = empty >= MAX_EMPTY_UPDATES and self.recipe.signal.on_empty == "stop"
        self._empty_updates = 0 if stopped else empty
        if self.parts.sampler.rates is not None and state["solve_rates"] is not None:
            self.parts.sampler.rates.restore(state["solve_rates"])

    def _record(self, step: int, logs: dict[str, Any]) -> None:
        record = self.parts.record
        assert record is not None
        phases = self.parts.clock.take()
        wall = sum(phases.values())
        self.ledger.charge_training(wall)
        fields = record.event_fields()
        drawn = bool(record.breakdowns)
        # Demonstrations say nothing of how long the model's own answers are.
        tokens = fields["completion_tokens_mean"] if drawn else None
        self.forecaster.observe(wall, phases["rollout"], tokens)
        decision = self.decide()
        stored_bytes = self.saver.store(step, record) if drawn else None
        event = Step(
            step=step,
            epoch=self.parts.sampler.epoch(self.progress.batch_of(step)),
            kl=logs.get("kl"),
            loss=logs.get("loss"),
            grad_norm=logs["grad_norm"],
            learning_rate=logs["learning_rate"],
            optimizer_steps=self.recipe.optimizer_steps,
            clip_share=logs.get(CLIPPED) if self.recipe.optimizer_steps > 1 else None,
            tokens_per_s=fields["tokens"] / wall if wall > 0 else 0.0,
            phase_s=phases,
            gpu_peak_gib=_gpu_peak_gib(),
            peak_rss_gib=peak_rss_gib() if self.recipe.engine.device == "cpu" else None,
            remaining_s=self.ledger.remaining_s + self.ledger.reserved_s,
            forecast_steps=decision.forecast_steps,
            stored_bytes=stored_bytes,
            sample=dict(record.sample()),
            **fields,
        )
        self.log.emit(event)
        self.tracker.log(event, self.ledger.spend())
        if drawn:
            self._heed(step, record, fields)
        now = self.ledger.clock()
        self.progress.note(step, {**fields, "loss": logs.get("loss")}, self._stop_after)
        left_s = self.allotted_s(now) - self.progress.taken_s(now)
        self.progress.watch_time(left_s, self.forecaster.expected_step_s)
        if step % PLAN_EVERY == 0 or step <= 5:
            self._emit_plan(step, decision)

    @property
    def _stop_after(self) -> int | None:
        return self.recipe.schedule.stop_after_steps

    def _heed(self, step: int, record: StepRecord, fields: Mapping[str, Any]) -> None:
        """What completions and their rewards say of the run's health."""
        for alarm in (*self.alarms.observe(record), *self.watch.observe(step)):
            self.log.warn(*alarm)
        if faults := fault_lines(record.breakdowns):
            self.log.warn("reward", f"update {step}: no reward, because {'; '.join(faults)}")
        check_faults(record.breakdowns)
        self._learn_difficulty(record)
        self._watch_signal(fields)

    def _learn_difficulty(self, record: StepRecord) -> None:
        rates = self.parts.sampler.rates
        if rates is None:
            return
        for problem, group in zip(record.problems, record.groups(), strict=True):
            solved = sum(b.verdict is Verdict.CORRECT for b in group)
            rates.observe(problem, solved, sum(b.verdict is not Verdict.ERROR for b in group))

    def _watch_signal(self, fields: Mapping[str, Any]) -> None:
        """Updates without any signal burn the budget: warn, then stop (recipe [signal])."""
        if "kl_teacher" in fields:
            return  # every answer teaches, right or wrong
        self._empty_updates = 0 if fields["groups_with_signal"] else self._empty_updates + 1
        if self._empty_updates == MAX_EMPTY_UPDATES:
            self.log.warn("no_signal", no_signal(MAX_EMPTY_UPDATES, fields["accuracy_mean"]))
            if self.recipe.signal.on_empty == "stop":
                self.stop_reason = StopReason.NO_SIGNAL

    def _emit_plan(self, step: int, decision: Decision) -> None:
        stop = None if self.progress.stage is not None else self._stop_after
        fitting = decision.forecast_steps
        steps = fitting if stop is None else min(fitting, stop - step)
        step_s = self.forecaster.expected_step_s
        ends = self.ledger.elapsed_s + steps * step_s + self.forecaster.expected_end_s
        self.log.emit(
            PlanEvent(
                step=step,
                step_s=step_s,
                reserve_s=decision.reserve_s,
                remaining_s=self.ledger.remaining_s,
                forecast_steps=decision.forecast_steps,
                forecast_low=decision.forecast_low,
                forecast_high=decision.forecast_high,
                ends_at_s=ends + self.ledger.reserved_s,
            )
        )

    def _evaluate_if_due(self, step: int) -> None:
        due = [suite for suite in self._due_suites(step) if not self.stopper.requested()]
        for suite in due:
            if not self._affords_evaluation(suite):
                self.log.warn(
                    "skipped_evaluation", f"{suite} at step {step}: no budget left for it"
                )
                continue
            with self.parts.clock.elsewhere(), self.log.phase("evaluation"):
                results = self.evaluator.evaluate("step", step, self._over, only=suite)
            for alarm in self.watch.observe(step, evaluated=True):
                self.log.warn(*alarm)
            if suite == self.recipe.select.suite and suite in results:
                self.saver.note_best(self.trainer, results[suite].pass_at[1])
        every = self.recipe.entropy.every_steps
        entropy_due = every is not None and step % every == 0
        if entropy_due and self.decide(self.forecaster.pessimistic_step_s).go_on:
            with self.parts.clock.elsewhere(), self.log.phase("entropy"):
                self.evaluator.entropy("step", step, self._over)

    def _due_suites(self, step: int) -> list[str]:
        due = []
        used = self.ledger.used_share
        for spec in self.recipe.eval:
            if EvalWhen.STEP not in spec.when:
                continue
            crossed = {
                (spec.suite, share)
                for share in spec.at_fractions
                if share <= used and (spec.suite, share) not in self._fractions_done
            }
            self._fractions_done |= crossed
            by_steps = spec.every_steps is not None and step % spec.every_steps == 0
            if by_steps or crossed:
                due.append(spec.suite)
        return due

    def _affords_evaluation(self, suite: str) -> bool:
        """An evaluation must leave one update and the reserve (DESIGN.md, one arithmetic)."""
        expected_s = self.evaluator.seconds.get(suite, self.forecaster.baseline_eval_s)
        return self.decide(expected_s).go_on

    def _allow_rollout(self, decision: Decision) -> None:
        self.rollout_deadline = self.ledger.clock() + decision.rollout_limit_s

    def _over(self) -> bool:
        return self.stopper.requested() or self.decide().reserve_s >= self.ledger.remaining_s


def merged_logs(logs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """TRL's logs of the optimiser steps of one step: means of what each of them has."""
    means = {}
    for key in ("loss", "grad_norm", "kl", CLIPPED):
        if values := [one[key] for one in logs if one.get(key) is not None]:
            means[key] = fmean(values)
    return {**logs[0], **means}


def _gpu_peak_gib() -> float | None:
    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_allocated()) / (1 << 30)
