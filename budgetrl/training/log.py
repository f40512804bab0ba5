"""The worker's side of the event file: phases as contexts, warnings, and the stamp of each line."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from budgetrl.evaluation.mending import set_aside_damaged
from budgetrl.event_file import EventWriter
from budgetrl.events import (
    Changed,
    Event,
    Phase,
    RunResumed,
    RunStarted,
    RunWarning,
    Stamp,
    Step,
)
from budgetrl.history import History
from budgetrl.ledger import Ledger
from budgetrl.losses import find_losses
from budgetrl.phases import PhaseName
from budgetrl.recipe.schema import Recipe
from budgetrl.retention import is_kept
from budgetrl.run_files import read_manifest, read_plan, written_recipe
from budgetrl.rundir import RunDir


class RunLog:
    """Writes the events of one attempt.

    Args:
        writer: of the run directory.
        ledger: its clock times the phases.
        expected_s: what the plan says phases take, by name.
    """

    def __init__(self, writer: EventWriter, ledger: Ledger, expected_s: dict[str, float]) -> None:
        self._writer = writer
        self._expected_s = expected_s
        self.ledger = ledger
        self.stage: str | None = None
        """That the run is in, if it has any."""
        self.history = History()
        """Of the run so far, once `announce` knows the earlier attempts."""

    def emit(self, event: Event) -> None:
        """Append one event."""
        if self.stage is not None:
            event = event.model_copy(update={"stage": self.stage})
        self._writer.write(event)
        if isinstance(event, Step):  # without its texts, which nobody asks for here
            event = event.model_copy(update={"sample": None})
        self.history.add(event)

    @contextmanager
    def phase(self, name: PhaseName, expected_s: float | None = None) -> Iterator[None]:
        """Events at the start and the end of a phase; an exception leaves it open.

        Args:
            name: of the phase.
            expected_s: what is known better than by the plan.
        """
        start = self.ledger.clock()
        expected_s = self._expected_s.get(name) if expected_s is None else expected_s
        self.emit(Phase(name=name, state="started", expected_s=expected_s))
        yield
        self.emit(Phase(name=name, state="ended", seconds=self.ledger.clock() - start))

    def warn(self, code: str, message: str, resolved: bool = False) -> None:
        """A warning, or with `resolved` the end of one."""
        self.emit(RunWarning(code=code, message=message, resolved=resolved))


def stamp_of(ledger: Ledger, attempt: int) -> Stamp:
    """Stamps of the present moment."""

    def stamp() -> dict[str, object]:
        spend = ledger.spend()
        return {"elapsed_s": spend.wall_s, "spent_usd": spend.usd, "attempt": attempt}

    return stamp


def announce(run: RunDir, recipe: Recipe, log: RunLog, before: History) -> None:
    """The first event of an attempt: a start, or a resumption."""
    log.history = before.copy()
    budget_s, price = log.ledger.budget.wall_s, log.ledger.budget.usd_per_hour
    if before.started is None:
        plan = read_plan(run).plan.to_json()
        log.emit(RunStarted(recipe=recipe.name, budget_s=budget_s, usd_per_hour=price, plan=plan))
    newest = run.newest_checkpoint()
    _mend_evaluations(run, log)
    if before.started is not None or newest is not None:
        paid_since = log.ledger.elapsed_s - before.elapsed_s
        last_t = time.time() if before.last_t is None else before.last_t
        gap_s = max(0.0, time.time() - last_t - paid_since)
        from_step = newest.step if newest else 0
        reached = max(run.stored_completions(), default=0)
        micro = recipe.batch.micro_batch
        wanted = written_recipe(run).batch.micro_batch
        smaller = micro if micro != wanted else None
        log.emit(
            RunResumed(
                from_step=from_step,
                budget_s=budget_s,
                gap_s=gap_s,
                micro_batch=smaller,
                reached=reached,
            )
        )
        manifest = read_manifest(run)
        changed = [change for entry in manifest.attempts for change in entry.changes]
        for change in changed[len(before.changes) :]:
            log.emit(Changed.model_validate(change))
        for note in manifest.hub_moved:
            log.warn("hub_moved", note)
        if unused := run.set_aside_after(from_step):
            log.warn(
                "checkpoints",
                f"the checkpoints after update {from_step} are damaged or cannot be resumed from; "
                f"they are kept as checkpoints/{', '.join(unused)}",
            )
        _tell_losses(run, log, from_step)
        _drop_unkept(run, recipe, from_step)
        if smaller is not None:
            log.warn(
                "micro_batch",
                f"the GPU's memory was used up: micro-batches of {micro} completions instead of "
                f"{wanted} from update {from_step + 1} on; the same updates up to rounding, slower",
            )


def _drop_unkept(run: RunDir, recipe: Recipe, from_step: int) -> None:
    """Of updates that are kept; a kill may have come between, or the rule is another now."""
    rule = recipe.checkpoint.keep_completions
    for step in run.stored_completions():
        if step <= from_step and not is_kept(rule, step, from_step):
            run.drop_completions(step)


def _mend_evaluations(run: RunDir, log: RunLog) -> None:
    if damaged := set_aside_damaged(run.evals):
        log.warn("damaged_evaluation", "; ".join(damaged))


def _tell_losses(run: RunDir, log: RunLog, from_step: int) -> None:
    """What is missing of the updates that are kept, said before it costs anything."""
    if lost := find_losses(run, log.history).up_to(from_step).sentences():
        log.warn("lost", "; ".join(lost))
