"""What all recipe tables share: the strict base model, number types, and closed sets of names."""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Rank = int | Literal["full"]
"""Of an adapter; or "full": all weights are trained, and there is none."""
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Adapter ranks that vLLM can serve."""

_MOST = 10**9
"""Above every sensible value, and small enough that no product of a few overflows."""
Positive = Annotated[float, Field(gt=0, le=_MOST, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=_MOST)]


class Table(BaseModel):
    """Base of all recipe tables: no unknown keys, no changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def but(self, values: Mapping[str, Any]) -> Self:
        """The same with other values, by flat names such as "lora.rank"; nobody checks them."""
        made = self
        for key, value in values.items():
            name, _, inner = key.partition(".")
            whole = getattr(made, name).but({inner: value}) if inner else value
            made = made.model_copy(update={name: whole})
        return made


class RewardName(StrEnum):
    """Rewards that budgetrl brings; `module:function` names a user's own."""

    ACCURACY = "accuracy"
    """1 if the boxed answer equals the gold answer, else 0."""
    FORMAT = "format"
    """1 if the completion is `<think>...</think>` and then an answer, else 0."""
    COSINE = "cosine"
    """Length-scaled accuracy of Open-RS and Tina."""
    SIGNED = "signed"
    """+1 for a right answer, -1 otherwise (DeepScaleR)."""
    SOFT_OVERLONG = "soft_overlong"
    """Penalty for completions near the token limit (DAPO)."""


REWARD_PARAMETERS: Mapping[RewardName, frozenset[str]] = {
    RewardName.ACCURACY: frozenset(),
    RewardName.FORMAT: frozenset(),
    RewardName.COSINE: frozenset(
        ("max_tokens", "min_correct", "max_correct", "min_wrong", "max_wrong")
    ),
    RewardName.SIGNED: frozenset(),
    RewardName.SOFT_OVERLONG: frozenset(("max_tokens", "cache_tokens")),
}
"""What `parameters` of a [[rewards]] may hold: numbers."""


class SuiteName(StrEnum):
    """Evaluation suites known by name."""

    MATH500 = "math500"
    """500 problems of the MATH test split."""
    AIME24 = "aime24"
    """AIME 2024, both papers, 30 problems."""
    AIME25 = "aime25"
    """AIME 2025, both papers, 30 problems."""
    AMC23 = "amc23"
    """AMC 12 2023, 40 problems."""


class AlphaPolicy(StrEnum):
    """How lora_alpha follows from the rank."""

    FIXED = "fixed"
    """`lora.alpha`, whatever the rank: the scale alpha/r falls with the rank."""
    EQUAL_RANK = "equal_rank"
    """alpha = r: scale 1 at every rank."""
    FOUR_X_RANK = "4x_rank"
    """alpha = 4 r: scale 4 at every rank (Tina)."""
    RSLORA = "rslora"
    """`lora.alpha` with scale alpha / sqrt(r)."""


class EngineName(StrEnum):
    """Ways to run a model."""

    PLAIN = "plain"
    """transformers and PEFT, on a CPU or with CUDA."""
    UNSLOTH = "unsloth"
    """Unsloth's kernels with vLLM in the same process, on one NVIDIA GPU."""
    SCRIPTED = "scripted"
    """Replays completions from a file: no model, evaluation only."""


def rank_order(rank: Rank | None) -> float:
    """For sorting: unknown ones first, all weights last."""
    return math.inf if rank == "full" else rank or 0.0


def rank_name(rank: Rank | None) -> str:
    """For people."""
    return "all weights" if rank == "full" else f"rank {'?' if rank is None else rank}"
