"""The recipe table about sweeps; `budgetrl run` ignores it."""

from typing import Any

from pydantic import Field

from budgetrl.recipe.base import Count, Positive, Table


class Sweep(Table):
    """[sweep]: what `budgetrl sweep` runs of this recipe; its flags come before."""

    grid: dict[str, Any] = Field(default_factory=dict)
    """Lists of values by flat key: "lora.rank" = [8, 64]."""
    seeds: Count = 1
    hours: Positive | None = None
    """Of all trials on all cards together."""
    usd: Positive | None = None
    metric: str | None = None
    """Suite of the final evaluation whose pass@1 is the best."""
    asha: bool = False
