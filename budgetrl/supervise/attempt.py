"""What was paid and trained so far, and what the next attempt of a run is given."""

import os
import time
from contextlib import suppress

from budgetrl.errors import OUT_OF_MEMORY_EXIT
from budgetrl.history import History
from budgetrl.processor import boot_id
from budgetrl.run_files import read_recipe, rehearsed_micro_batch
from budgetrl.rundir import HEARTBEAT, RunDir
from budgetrl.training.attempt import Attempt


def smaller_micro_batch(run: RunDir, used: int | None) -> int | None:
    """What to try when the GPU's memory was used up; None when there is nothing smaller.

    Args:
        run: says what the recipe has, and what the worker's rehearsal has left of it.
        used: what the last worker was given instead.
    """
    recipe = read_recipe(run)
    tried = min(filter(None, (used, rehearsed_micro_batch(run, recipe))))
    return recipe.with_micro_batch(tried).smaller_micro_batch()


def resumed_micro_batch(run: RunDir, history: History) -> int | None:
    """What a resumed run has instead of the recipe's: as before, or less if that was too much."""
    used = history.micro_batch
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
