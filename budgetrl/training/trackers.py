"""Forward step events to an experiment tracker; one that fails costs one warning, not the run.

The trackers are optional packages: tensorboard, wandb or trackio, chosen by `tracker.kind`. They
work in a thread of their own, so that one that waits for its server keeps no update waiting.

Each update is shown once, also after a kill: TensorBoard forgets what lies behind the update that
an attempt goes on from. wandb and trackio would keep both, so a later attempt is a run of its own
there, `<name>-2`, in the group `<name>`, and begins with the updates that count so far.
"""

import importlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from budgetrl.events import Event, Step
from budgetrl.history import History
from budgetrl.masking import masked_tree
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import RunDir
from budgetrl.types import Spend

Warn = Callable[[str, str], None]

BACKLOG = 1000
"""Steps that may wait for the tracker."""
LAST_WAIT_S = 10.0
HURRIED_WAIT_S = 3.0
"""That a tracker gets at most to send what is left; less when somebody stops the run."""


class Tracker(Protocol):
    """Takes the numbers of a step."""

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Store them."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class Row(NamedTuple):
    """The numbers of an update."""

    numbers: dict[str, float]
    step: int


class TrackerThread:
    """A tracker in its own thread, given up at its first fault.

    Args:
        open_tracker: makes the tracker; may fail, or never return, like any of its calls. None:
            there is no tracker.
        kind: its name, for the warning.
        warn: takes a code and a message; called by the methods here, never by the thread.
        earlier: updates of earlier attempts, which the tracker gets first.
    """

    def __init__(
        self,
        open_tracker: Callable[[], Tracker] | None,
        kind: str,
        warn: Warn,
        earlier: Sequence[Row] = (),
    ) -> None:
        self._kind, self._warn = kind, warn
        self._rows: queue.Queue[Row | None] = queue.Queue(BACKLOG)
        self._fault: str | None = None
        self._given_up = open_tracker is None
        self._earlier = earlier
        if open_tracker is not None:
            # A daemon: the process does not wait for it.
            self._thread = threading.Thread(target=self._serve, args=(open_tracker,), daemon=True)
            self._thread.start()

    def log(self, event: Step, spend: Spend) -> None:
        """Forward the numbers of a step event, which may carry no stamp yet."""
        self._put(Row(numbers_of(event, spend), event.step))

    def finish(self) -> None:
        """No more steps will come: the thread sends what is left."""
        self._put(None)

    def wait(self, remaining_s: float, hurried: bool) -> None:
        """Wait, after `finish`, until all is sent, with half of the remaining time at most."""
        if self._given_up:
            return
        limit_s = HURRIED_WAIT_S if hurried else LAST_WAIT_S
        self._thread.join(max(0.0, min(limit_s, remaining_s / 2)))
        if self._thread.is_alive() and self._fault is None:
            self._fault = "it did not finish in time, and may lack the last updates"
        self._tell_fault()

    def _put(self, row: Row | None) -> None:
        if self._given_up:
            return
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self._fault = f"{BACKLOG} updates wait for it"
        self._tell_fault()

    def _tell_fault(self) -> None:
        if self._fault is not None and not self._given_up:
            self._given_up = True
            self._warn("tracker", f"{self._kind} failed and is left out: {self._fault}")

    def _serve(self, open_tracker: Callable[[], Tracker]) -> None:
        try:
            tracker = open_tracker()
            for earlier in self._earlier:
                tracker.log(earlier.numbers, earlier.step)
            while (row := self._rows.get()) is not None:
                tracker.log(row.numbers, row.step)
            tracker.close()
        except Exception as error:  # whatever a tracker or its server raises must not end a run
            self._fault = f"{type(error).__name__}: {error}"


def numbers_of(event: Step, spend: Spend) -> dict[str, float]:
    """The numbers of a step event, nested ones with a slash: "phase_s/rollout"."""
    numbers = {"elapsed_s": spend.wall_s}
    if spend.usd is not None:
        numbers["spent_usd"] = spend.usd
    for key, value in event.model_dump(exclude={*Event.model_fields, "step"}).items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for name, part in parts:
            if isinstance(part, int | float) and not isinstance(part, bool):
                numbers[f"{key}/{name}" if name else key] = float(part)
    return numbers


def open_tracker(run: RunDir, recipe: Recipe, history: History, warn: Warn) -> TrackerThread:
    """The tracker of a recipe.

    Args:
        run: names it.
        recipe: says which.
        history: of the run, after this attempt was announced.
        warn: as of `TrackerThread`.
    """
    kind, name = recipe.tracker.kind, run.name
    if history.attempt > 1:
        name = f"{name}-{history.attempt}"
    goes_on = (history.steps[-1].step if history.steps else 0) if history.attempt > 1 else None
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: _Tensorboard(run, goes_on),
        "wandb": lambda: _RunBased("wandb", run, recipe, name=name, id=name, dir=str(run.path)),
        "trackio": lambda: _RunBased("trackio", run, recipe, name=name),
    }
    earlier = [
        Row(numbers_of(step, Spend(step.elapsed_s, 0.0, step.spent_usd)), step.step)
        for step in history.steps
    ]
    return TrackerThread(makers.get(kind), kind, warn, [] if kind == "tensorboard" else earlier)


class _Tensorboard:
    def __init__(self, run: RunDir, goes_on: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        forgotten = None if goes_on is None else goes_on + 1
        place = str(run.scratch("tensorboard"))
        self._writer: Any = SummaryWriter(log_dir=place, purge_step=forgotten)

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _RunBased:
    """wandb, and trackio, which copies its interface."""

    def __init__(self, module: str, run: RunDir, recipe: Recipe, **own: str) -> None:
        self._module: Any = importlib.import_module(module)
        self._module.init(
            project=recipe.tracker.project,
            group=run.name,
            config=masked_tree(recipe.model_dump(mode="json")),
            resume="allow",
            **own,
        )

    def log(self, numbers: dict[str, float], step: int) -> None:
        self._module.log(numbers, step=step)

    def close(self) -> None:
        self._module.finish()
