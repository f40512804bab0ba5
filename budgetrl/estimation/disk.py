"""Disk that a run needs: environment, model, checkpoints, completions. Bytes."""

from dataclasses import dataclass

from budgetrl.estimation.memory import weight_bytes
from budgetrl.estimation.phases import Phases
from budgetrl.estimation.scenario import Scenario, suite_problems
from budgetrl.estimation.workload import Precision
from budgetrl.recipe.training_tables import OPTIMIZER_BYTES
from budgetrl.retention import num_kept
from budgetrl.types import EvalWhen

_ENVIRONMENT = {True: 16e9, False: 7e9}
"""A Python environment with and without vLLM, wheels of CUDA included; 1.5 GB on a CPU."""
_CPU_ENVIRONMENT = 1.5e9
_BYTES_PER_TOKEN = 6.0
"""A stored completion: about four characters per token, and its record."""
_FULL_CHECKPOINTS = 2
"""The newest two hold the optimiser; the best and the milestones are weights only."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes by part."""

    environment: float
    model: float
    checkpoints: float
    completions: float

    @property
    def total(self) -> float:
        """All parts."""
        return self.environment + self.model + self.checkpoints + self.completions


def disk_of(scenario: Scenario, phases: Phases, steps: int) -> Disk:
    """Disk of a run of this many updates."""
    recipe, trained = scenario.recipe, 4.0 * scenario.trained_params
    moments = OPTIMIZER_BYTES[recipe.optimizer.name] * scenario.trained_params
    full = min(_FULL_CHECKPOINTS, max(1, steps)) * (trained + moments)
    small = (1 + recipe.checkpoint.milestones) * trained
    stored = num_kept(recipe.checkpoint.keep_completions, steps)
    tokens = stored * recipe.completions_per_step * scenario.lengths().mean
    every = phases.times(None).step_evals_every
    for spec in recipe.eval:
        times = sum(when is not EvalWhen.STEP for when in spec.when)
        times += steps // every if every and EvalWhen.STEP in spec.when else 0
        tokens += times * suite_problems(spec) * spec.rounds.max * scenario.lengths().mean
    on_gpu = recipe.engine.device == "cuda"
    return Disk(
        environment=_ENVIRONMENT[scenario.vllm] if on_gpu else _CPU_ENVIRONMENT,
        model=weight_bytes(scenario.shape, Precision.BF16) + _teacher(scenario),
        checkpoints=full + small,
        completions=_BYTES_PER_TOKEN * tokens,
    )


def _teacher(scenario: Scenario) -> float:
    shape = scenario.teacher
    return 0.0 if shape is None else weight_bytes(shape, Precision.BF16)
