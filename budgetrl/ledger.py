"""What a run has paid, over all attempts: clock --> elapsed, remaining. Clocks are arguments."""

from collections.abc import Callable
from dataclasses import dataclass

from budgetrl.budget import Budget
from budgetrl.types import Spend

Clock = Callable[[], float]
"""Monotonic seconds."""


@dataclass(slots=True)
class Ledger:
    """What this run has paid: process life, summed over attempts.

    Args:
        budget: the limit.
        clock: monotonic seconds.
        started: the clock's reading when this attempt began to cost.
        paid_before_s: paid by earlier attempts.
        reserved_s: kept for what follows the worker (report, exit).
    """

    budget: Budget
    clock: Clock
    started: float
    paid_before_s: float = 0.0
    reserved_s: float = 0.0
    train_s: float = 0.0

    @property
    def elapsed_s(self) -> float:
        """Paid so far, over all attempts."""
        return self.paid_before_s + self.clock() - self.started

    @property
    def used_share(self) -> float:
        """Share of the budget that is paid, over all attempts."""
        return self.elapsed_s / self.budget.wall_s

    @property
    def deadline(self) -> float:
        """The clock's reading at which the worker must be gone."""
        return self.started + self.budget.wall_s - self.paid_before_s - self.reserved_s

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; may be negative."""
        return self.deadline - self.clock()

    def charge_training(self, seconds: float) -> None:
        """Count seconds as training (a part of the elapsed time)."""
        self.train_s += seconds

    def spend(self) -> Spend:
        """What was paid."""
        elapsed = self.elapsed_s
        return Spend(elapsed, self.train_s, self.budget.usd_of(elapsed))
