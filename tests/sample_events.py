"""What a pretended run is made of: events with plausible numbers, its clock, its plan.

One `Driver` lets things happen in a run: `run_builder` tells it whole runs, with evaluations that
lie in files, and `synthetic_run` runs that go on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from budgetrl import events
from budgetrl.budget import usd_of
from budgetrl.event_file import EventWriter
from budgetrl.types import StopReason

PHASES = {"rollout": 1.6, "reward": 0.1, "logprob": 0.3, "update": 0.9, "other": 0.1}
SAVE_S = 0.3


class Clock:
    """Paid seconds that pass when told to."""

    def __init__(self, elapsed_s: float = 0.0, usd_per_hour: float | None = 0.4) -> None:
        self.elapsed_s, self.usd_per_hour, self.attempt = elapsed_s, usd_per_hour, 1

    def stamp(self) -> dict[str, Any]:
        usd = usd_of(self.elapsed_s, self.usd_per_hour)
        return {"elapsed_s": self.elapsed_s, "spent_usd": usd, "attempt": self.attempt}


class Driver:
    """What happens in a pretended run: time passes, and its events are written."""

    def __init__(self, writer: EventWriter, clock: Clock) -> None:
        self.write, self.clock = writer.write, clock

    def begin(self, name: Any, seconds: float, expected_s: float | None = None) -> None:
        """A phase that may not end."""
        self.write(events.Phase(name=name, state="started", expected_s=expected_s))
        self.clock.elapsed_s += seconds

    @contextmanager
    def phase(self, name: Any, seconds: float, expected_s: float | None = None) -> Iterator[None]:
        """What is written inside comes when its time is over."""
        self.begin(name, seconds, expected_s)
        yield
        self.write(events.Phase(name=name, state="ended", seconds=seconds))

    def update(self, event: events.Step, seconds: float) -> None:
        self.clock.elapsed_s += seconds
        self.write(event)

    def save(self, step: int, best: bool = False) -> None:
        self.clock.elapsed_s += SAVE_S
        path = f"checkpoints/step_{step:06d}"
        self.write(events.Checkpoint(step=step, path=path, seconds=SAVE_S, best=best))


def step_event(number: int, **changes: object) -> events.Step:
    """A complete step event."""
    values: dict[str, object] = {
        "step": number, "epoch": 0.1, "reward_mean": 0.5, "reward_std": 0.1, "accuracy_mean": 0.5,
        "format_mean": 1.0, "completion_tokens_mean": 30.0, "completion_tokens_max": 64,
        "truncated_share": 0.0, "entropy": 0.2, "entropy_kind": "exact", "kl": None, "loss": 0.0,
        "grad_norm": 0.1, "learning_rate": 1e-3, "groups": 2, "groups_with_signal": 1,
        "groups_resampled": 0, "completions": 16, "tokens": 480, "tokens_per_s": 240.0,
        "padding_share": 0.1, "phase_s": {"rollout": 1.0, "update": 0.5}, "grader": {"correct": 8},
        "sampling_logp_diff_mean": None, "gpu_peak_gib": None, "remaining_s": 50.0,
        "forecast_steps": 10,
    }  # fmt: skip
    return events.Step.model_validate(values | changes)


def evaluation_event(**changes: Any) -> events.Evaluation:
    """An evaluation as its recipe asks for it."""
    values = {
        "suite": "heldout", "truncated_share": 0.02, "unparsable_share": 0.1,
        "completion_tokens_mean": 44.0, "temperature": 0.6, "top_p": 0.95, "max_tokens": 128,
        "seconds": 20.0,
    }  # fmt: skip
    return events.Evaluation.model_validate(values | changes)


def ended(reason: str, steps: int, step_s: float = 3.0, **more: Any) -> events.RunFinished:
    """The last event of a run."""
    code = {"interrupted": 130, "failed": 130}.get(reason, 0)
    train_s = steps * step_s
    return events.RunFinished(
        stop_reason=StopReason(reason), exit_code=code, steps=steps, train_s=train_s, **more
    )


def plan_json(**changes: Any) -> dict[str, Any]:
    """The plan of `plan.json`."""
    return {
        "step_evals_s": 0.0, "usd_per_hour": 0.4, "source": "measured by an earlier run",
        "requested_steps": None, "notes": [], **changes,
    }  # fmt: skip


def times_json(**changes: float) -> dict[str, Any]:
    """The times of `plan.json`."""
    return {
        "imports_s": 4.5, "model_s": 1.0, "data_s": 0.5, "baseline_s": 9.0,
        **{f"{name}_s": s * 1.07 for name, s in PHASES.items()},
        "step_eval_s": 0.0, "step_evals_every": None, "final_s": 9.0, "save_s": 0.3,
        "saves_every_s": 60.0, "report_s": 3.0, "source": "measured by an earlier run", **changes,
    }  # fmt: skip
