"""What one attempt of a run may use, and what was paid."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from budgetrl.budget import Budget, Ledger
from budgetrl.documents import read_plan, read_recipe
from budgetrl.errors import OUT_OF_MEMORY_EXIT
from budgetrl.events import RunResumed, Stamp
from budgetrl.history import History
from budgetrl.rundir import HEARTBEAT, MANIFEST, RunDir, boot_id


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one worker process may use."""

    budget: Budget
    started: float
    """Monotonic seconds at which this supervisor began to cost."""
    paid_s: float
    """Paid by earlier supervisors."""
    reserved_s: float
    """For report and exit."""
    save_s: float
    """What a checkpoint takes, by the plan."""
    grace_s: float
    number: int = 1
    allow_code: bool = False
    micro_batch: int | None = None
    """Where memory was short: completions per forward pass, instead of the recipe's."""
    trained_s: float = 0.0
    """Training seconds of earlier workers."""

    @property
    def deadline(self) -> float:
        """Monotonic seconds at which the worker is ended."""
        return self.end - self.reserved_s

    @property
    def end(self) -> float:
        """Monotonic seconds at which the budget is used up."""
        return self.started + self.budget.wall_s - self.paid_s

    @classmethod
    def first(cls, run: RunDir, started: float, *, allow_code: bool) -> Self:
        """The first attempt of a planned run."""
        planned = read_plan(run)
        return cls(
            budget=planned.budget,
            started=started,
            paid_s=0.0,
            reserved_s=planned.reserved_s,
            save_s=planned.times.save_s,
            grace_s=planned.grace_s,
            allow_code=allow_code,
        )

    def stamp(self) -> Stamp:
        """Stamps events of the supervisor with the present moment."""
        ledger = Ledger(self.budget, time.monotonic, self.started, self.paid_s)
        return lambda: {
            "elapsed_s": ledger.elapsed_s,
            "spent_usd": ledger.spend().usd,
            "attempt": self.number,
        }


def smaller_micro_batch(run: RunDir, used: int | None) -> int | None:
    """What to try when the GPU's memory was used up; None when there is nothing smaller.

    Args:
        run: says what the recipe has, and what the worker's rehearsal has left of it.
        used: what the last worker was given instead.
    """
    recipe = read_recipe(run)
    rehearsed = (run.read_json(MANIFEST) or {}).get("micro_batch")
    tried = min(filter(None, (recipe.batch.micro_batch, used, rehearsed)))
    return recipe.with_micro_batch(tried).smaller_micro_batch()


def resumed_micro_batch(run: RunDir, history: History) -> int | None:
    """What a resumed run has instead of the recipe's: as before, or less if that was too much."""
    resumptions = [event for event in run.events() if isinstance(event, RunResumed)]
    used = resumptions[-1].micro_batch if resumptions else None
    error = history.errors[-1] if history.errors else None
    if error and error.exit_code == OUT_OF_MEMORY_EXIT and error.attempt == history.attempt:
        return smaller_micro_batch(run, used) or used
    return used


def process_start() -> float:
    """Monotonic seconds at which this process began, which is before Python's first line."""
    try:
        with open("/proc/self/stat", encoding="ascii") as file:
            ticks = float(file.read().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        age = time.process_time()
    return time.monotonic() - max(0.0, age)


def heartbeat(run: RunDir, attempt: Attempt, now: float, trained_s: float) -> None:
    """Write down what was paid and trained; a full disk does not end a run."""
    beat = {
        "paid_s": attempt.paid_s + now - attempt.started,
        "train_s": trained_s,
        "attempt": attempt.number,
        "t": time.time(),
        "pid": os.getpid(),
        "boot": boot_id(),
    }
    with suppress(OSError):
        run.write_json(HEARTBEAT, beat)
