"""The recipe's learning rate in torch's terms: set anew at the start of each update.

Not the rate itself: see `training.schedule`. Nothing of it is saved, so a resumed run has the rate
that its recipe and its budget say, whatever the optimiser's file holds.
"""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Rates(LRScheduler):
    """Sets the rate that a function gives.

    Args:
        optimizer: all of its parameters get the same rate.
        rate: of the update that is about to be made.
    """

    def __init__(self, optimizer: Optimizer, rate: Callable[[], float]) -> None:
        self._rate = rate
        super().__init__(optimizer)
        self.begin_step()

    def step(self, epoch: int | None = None) -> None:
        """Called by transformers after each optimiser step, which may be amid a step."""

    def begin_step(self) -> None:
        """Set the rate of this moment."""
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._last_lr = [rate] * len(self.optimizer.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the rate is a function of the run."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes nothing over."""


class RateCallback(TrainerCallback):
    """Sets the rate at the start of each step, before its rollout.

    Args:
        optimizer_steps: of one step, which all have its rate.
    """

    def __init__(self, optimizer_steps: int) -> None:
        self._optimizer_steps = optimizer_steps

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        lr_scheduler: Any = None,
        **_: Any,
    ) -> None:
        """An optimiser step starts."""
        if state.global_step % self._optimizer_steps == 0:
            lr_scheduler.begin_step()
