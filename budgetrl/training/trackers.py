"""Forward step events to an experiment tracker; one that fails costs one warning, not the run.

The trackers are optional packages: tensorboard, wandb or trackio, chosen by `tracker.kind`.
"""

from collections.abc import Callable
from typing import Any, Protocol

from budgetrl.events import Step
from budgetrl.recipe.schema import Recipe
from budgetrl.rundir import RunDir

Warn = Callable[[str, str], None]


class Tracker(Protocol):
    """Takes the numbers of a step."""

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Store them."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class TrackerGuard:
    """A tracker that is given up at its first fault.

    Args:
        open_tracker: makes the tracker; may fail like any of its calls.
        kind: its name, for the warning.
        warn: takes a code and a message.
    """

    def __init__(self, open_tracker: Callable[[], Tracker], kind: str, warn: Warn) -> None:
        self._kind, self._warn = kind, warn
        self._tracker: Tracker | None = None
        self._guarded(lambda: self._open(open_tracker))

    def log(self, event: Step) -> None:
        """Forward the numbers of a step event."""
        tracker = self._tracker
        if tracker is not None:
            numbers = numbers_of(event)
            self._guarded(lambda: tracker.log(numbers, event.step))

    def close(self) -> None:
        """Send what is left."""
        if self._tracker is not None:
            self._guarded(self._tracker.close)

    def _open(self, open_tracker: Callable[[], Tracker]) -> None:
        self._tracker = open_tracker()

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever a tracker or its server raises must not end a run
            self._tracker = None
            self._warn("tracker", f"{self._kind} failed and is left out: {error}")


def numbers_of(event: Step) -> dict[str, float]:
    """The numbers of a step event, nested ones with a slash: "phase_s/rollout"."""
    numbers: dict[str, float] = {}
    for key, value in event.model_dump().items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for name, part in parts:
            if isinstance(part, int | float) and not isinstance(part, bool):
                numbers[f"{key}/{name}" if name else key] = float(part)
    return numbers


def open_tracker(run: RunDir, recipe: Recipe, warn: Warn) -> TrackerGuard | None:
    """The tracker of a recipe; None without one."""
    kind = recipe.tracker.kind
    if kind == "none":
        return None
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: _Tensorboard(run),
        "wandb": lambda: _RunBased("wandb", run, recipe),
        "trackio": lambda: _RunBased("trackio", run, recipe),
    }
    return TrackerGuard(makers[kind], kind, warn)


class _Tensorboard:
    def __init__(self, run: RunDir) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(log_dir=str(run.path / "tensorboard"))

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _RunBased:
    """wandb, and trackio, which copies its interface."""

    def __init__(self, module: str, run: RunDir, recipe: Recipe) -> None:
        import importlib

        self._module: Any = importlib.import_module(module)
        self._module.init(
            project=recipe.tracker.project, name=run.name, config=recipe.model_dump(mode="json")
        )

    def log(self, numbers: dict[str, float], step: int) -> None:
        self._module.log(numbers, step=step)

    def close(self) -> None:
        self._module.finish()
