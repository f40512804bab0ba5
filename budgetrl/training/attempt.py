"""What one attempt of a run may use: the supervisor makes it, and its worker reads it as JSON."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Self

from budgetrl.budget import Budget
from budgetrl.ledger import Ledger
from budgetrl.run_files import read_plan
from budgetrl.rundir import RunDir

WRITES_AT_END = 4
"""Files that a supervisor writes at a worker's end in any case: a heartbeat before it and one after
it, the last events and the result. On a slow disk they are what takes the time."""


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
    on_finish: str | None = None
    """Shell command at every end; the worker runs it if its supervisor is gone."""
    supervisor: int | None = None
    """Process id of the worker's supervisor; None: the worker's parent."""

    @property
    def deadline(self) -> float:
        """Monotonic seconds at which the worker is ended."""
        return self.end - self.reserved_s

    @property
    def end(self) -> float:
        """Monotonic seconds at which the budget is used up."""
        return self.started + self.budget.wall_s - self.paid_s

    @classmethod
    def first(
        cls, run: RunDir, started: float, *, allow_code: bool, on_finish: str | None = None
    ) -> Self:
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
            on_finish=on_finish,
        )

    def ledger(self) -> Ledger:
        """What was paid and is left, at every moment."""
        return Ledger(
            self.budget,
            time.monotonic,
            self.started,
            self.paid_s,
            self.reserved_s,
            self.trained_s,
        )

    def to_json(self) -> str:
        """What the worker reads from its standard input."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` has made."""
        fields = json.loads(text)
        return cls(**fields | {"budget": Budget(**fields["budget"])})
