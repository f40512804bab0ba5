"""The recipe table about sweeps; `budgetrl run` ignores it."""

from typing import Any

from pydantic import Field

from budgetrl.recipe.base import Count, Positive, Table


class Sweep(Table):
    """[sweep]: what `budgetrl sweep` runs of this recipe; its flags come before."""

    grid: dict[str, Any] = Field(default_factory=dict)
    """Lists of values by flat key: "lora.rank" = [8, 64]."""
    seeds: Count = 1
    """Each combination runs with so many seeds, from 1 on."""
    hours: Positive | None = None
    """Hours of all trials on all cards together."""
    usd: Positive | None = None
    """Dollars of all trials together."""
    metric: str | None = None
    """Suite whose final pass@1 is the best; left out: the first [[eval]]."""
    asha: bool = False
    """End bad trials early: one in four goes on at each rung."""
