"""The learning rate of every update, through the real trainer loop, interrupted at every update."""

import gc
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from fake_clock import FakeClock

from budgetrl.budget import Budget
from budgetrl.ledger import Ledger
from budgetrl.recipe.schema import Schedule
from budgetrl.recipe.stage_tables import Stage, StageKind
from budgetrl.training.progress import Progress
from budgetrl.training.rates import RateCallback
from budgetrl.training.trainer import BudgetMixin

UPDATES = 5
UPDATE_S, SETUP_S, GAP_S = 7.0, 4.0, 1000.0
"""Of an update, of what comes before the first one of an attempt, and between two attempts."""
BUDGET_S = 50.0
RATE = 1e-3

SHAPES = ("constant", "linear", "cosine")
WARM_UPS = (0.0, 0.3)


@pytest.fixture(autouse=True, scope="module")
def little_garbage() -> Iterator[None]:
    """transformers collects garbage at every start, among the objects of all that is imported."""
    gc.freeze()
    yield
    gc.unfreeze()


class Linear(torch.nn.Module):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * x).square().mean()}


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return UPDATES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": torch.ones(1)}


class ScheduledTrainer(transformers.Trainer):  # type: ignore[misc, unused-ignore]
    """transformers' loop, optimiser and files, with the recipe's schedule."""

    parts: Any
    create_scheduler = BudgetMixin.create_scheduler
    rollouts = BudgetMixin.rollouts


class Attempt(transformers.TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Lets time pass, notes the rate that the optimiser uses, and stops after an update."""

    def __init__(self, clock: FakeClock, ledger: Ledger, stop_after: int) -> None:
        self.clock, self.ledger, self.stop_after = clock, ledger, stop_after
        self.used: list[float] = []
        self.rates: list[float] = []
        self.logged: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.used.append(self.ledger.elapsed_s / BUDGET_S)
        self.clock.now += UPDATE_S

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rates += {group["lr"] for group in kwargs["optimizer"].param_groups}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "learning_rate" in logs:
            self.logged.append(logs["learning_rate"])
        control.should_training_stop |= state.global_step == self.stop_after


def run(folder: Path, schedule: Schedule, interrupted_after: int | None) -> Attempt:
    """All updates of a run, in one attempt or in two; what both noted."""
    clock = FakeClock(100.0)
    whole = Attempt(clock, None, 0)  # type: ignore[arg-type]
    resume_from, paid_s = None, 0.0
    for stop_after in [UPDATES] if interrupted_after is None else [interrupted_after, UPDATES]:
        ledger = Ledger(Budget(BUDGET_S), clock, clock.now, paid_s)
        clock.now += SETUP_S
        attempt = Attempt(clock, ledger, stop_after)
        trainer = ScheduledTrainer(
            model=Linear(),
            args=transformers.TrainingArguments(
                output_dir=str(folder),
                max_steps=UPDATES,
                per_device_train_batch_size=1,
                learning_rate=RATE,
                lr_scheduler_type="constant",
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                ignore_data_skip=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=Rows(),
            callbacks=[RateCallback(1), attempt],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.parts = SimpleNamespace(
            recipe=SimpleNamespace(schedule=schedule, optimizer_steps=1),
            budget_used=used_share_of(ledger),
            progress=Progress(),
        )
        trainer.train(resume_from_checkpoint=resume_from)
        whole.used += attempt.used
        whole.rates += attempt.rates
        whole.logged += attempt.logged
        trainer._save_checkpoint(trainer.model, None)
        resume_from = str(folder / f"checkpoint-{stop_after}")
        paid_s = ledger.elapsed_s
        clock.now += GAP_S
    return whole


def used_share_of(ledger: Ledger) -> Callable[[], float]:
    return lambda: ledger.used_share


def shape_at(shape: str, along: float) -> float:
    """The factor after the warm-up, falling to a tenth."""
    falls = {"constant": 1.0, "linear": 1 - along, "cosine": (1 + math.cos(math.pi * along)) / 2}
    return 1.0 if shape == "constant" else 0.1 + 0.9 * falls[shape]


def wanted_by_steps(shape: str, warm_up: float) -> list[float]:
    """Update k of n warms up to k/n of the way; what falls, falls from (k - 1)/n on."""
    factors = []
    for number in range(1, UPDATES + 1):
        before = (number - 1) / UPDATES
        if before < warm_up:
            factors.append(min(1.0, number / (warm_up * UPDATES)))
        else:
            factors.append(shape_at(shape, (before - warm_up) / (1 - warm_up)))
    return [RATE * factor for factor in factors]


def wanted_by_budget(shape: str, warm_up: float, used: list[float]) -> list[float]:
    """A function of the share that is used when the update starts."""
    return [
        RATE * (x / warm_up if x < warm_up else shape_at(shape, (x - warm_up) / (1 - warm_up)))
        for x in used
    ]


@pytest.mark.parametrize(("shape", "warm_up"), list(itertools.product(SHAPES, WARM_UPS)))
@pytest.mark.parametrize("by", ["steps", "budget"])
def test_each_update_has_the_rate_of_the_recipe_wherever_the_run_was_interrupted(
    shape: str, warm_up: float, by: str, tmp_path: Path
) -> None:
    """Twelve schedules, each in one attempt and in two, interrupted after each update."""
    tables = {"shape": shape, "warmup_share": warm_up, "min_share": 0.1, "by": by}
    schedule = Schedule.model_validate(
        tables | {"learning_rate": RATE, "stop_after_steps": UPDATES}, strict=False
    )
    for interrupted_after in (None, *range(1, UPDATES)):
        made = run(tmp_path / f"{interrupted_after}", schedule, interrupted_after)
        wanted = (
            wanted_by_steps(shape, warm_up)
            if by == "steps"
            else wanted_by_budget(shape, warm_up, made.used)
        )
        assert made.rates == pytest.approx(wanted, abs=1e-12 * RATE)
        assert made.logged == made.rates
        assert min(made.rates) > 0


def test_all_that_is_left_is_the_budgets_to_end_and_not_the_stages() -> None:
    """A last stage with `share = 1.0` ends as "budget", so that an allowance goes on with it."""
    whole = Progress(Stage(name="rl", kind=StageKind.GRPO, share=1.0))
    half = Progress(Stage(name="rl", kind=StageKind.GRPO, share=0.5))
    for progress in (whole, half):
        progress.begin(0.0)
        progress.watch_time(progress.allotted_s(58.0, left_s=2.0) - 58.0, step_s=5.0)
    assert (whole.over, half.over) == (False, True)
    assert half.allotted_s(58.0, left_s=2.0) == 30.0
