"""budgetrl: the most reinforcement learning out of one rented GPU and a fixed budget.

Public names are loaded when they are first used, so `import budgetrl` is instant.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "AlphaPolicy": "budgetrl.recipe.schema",
    "Budget": "budgetrl.budget",
    "BudgetError": "budgetrl.errors",
    "BudgetRLError": "budgetrl.errors",
    "DataError": "budgetrl.errors",
    "Engine": "budgetrl.engine.base",
    "HardwareError": "budgetrl.errors",
    "HubError": "budgetrl.hub.errors",
    "ModelError": "budgetrl.errors",
    "ProtocolError": "budgetrl.errors",
    "Recipe": "budgetrl.recipe.schema",
    "RecipeError": "budgetrl.errors",
    "RefusedError": "budgetrl.errors",
    "RewardError": "budgetrl.errors",
    "RunDirError": "budgetrl.errors",
    "RunResult": "budgetrl.api",
    "StopReason": "budgetrl.types",
    "TrainingError": "budgetrl.errors",
    "UsageError": "budgetrl.errors",
    "Verdict": "budgetrl.types",
    "build_reward": "budgetrl.rewards.registry",
    "compare": "budgetrl.report.compare",
    "detect_gpu": "budgetrl.hardware",
    "estimate": "budgetrl.api",
    "evaluate": "budgetrl.api",
    "grade": "budgetrl.rewards.pool",
    "list_recipes": "budgetrl.recipe.load",
    "list_runs": "budgetrl.rundir",
    "load_recipe": "budgetrl.recipe.load",
    "open_engine": "budgetrl.engine",
    "open_run": "budgetrl.rundir",
    "paired_difference": "budgetrl.evaluation.passk",
    "pass_at_k": "budgetrl.evaluation.passk",
    "resume": "budgetrl.api",
    "train": "budgetrl.api",
    "wilson_interval": "budgetrl.evaluation.passk",
    "write_report": "budgetrl.report",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'budgetrl' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
