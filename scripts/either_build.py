"""What the benches take of budgetrl that commit 2efa2f2, which they also run, has elsewhere."""

from typing import Any

from budgetrl.engine.base import Request

try:
    from budgetrl.engine.merging import lora_layers, merged
    from budgetrl.processor import cpu_model
    from budgetrl.rewards.pool import GradingPool
    from budgetrl.training.stage import TrainerParts
except ImportError:
    from budgetrl.estimation.cpu import cpu_model
    from budgetrl.rewards.worker import GradingPool

    from budgetrl.engine.plain import lora_layers, merged
    from budgetrl.training.trainer import TrainerParts

__all__ = ["GradingPool", "TrainerParts", "cpu_model", "lora_layers", "merged", "request"]


def request(problem_id: str, prompt_ids: tuple[int, ...], sample: int, seed: int) -> Request:
    """One completion that is wanted; the older build takes the prompt's text as well."""
    text: dict[str, Any] = {"prompt": ""} if "prompt" in Request.__slots__ else {}
    return Request(problem_id, prompt_ids=prompt_ids, sample=sample, seed=seed, **text)
