"""`budgetrl replicate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from budgetrl.cli.options import (
    DisplayOption,
    Gpu,
    Hours,
    Json,
    Offline,
    PlanOnly,
    Price,
    Usd,
    limits_of,
)
from budgetrl.cli.trials import begin
from budgetrl.errors import UsageError

if TYPE_CHECKING:
    from budgetrl.recipe.base import AlphaPolicy, Rank


def replicate(
    family: Annotated[
        str,
        typer.Argument(
            metavar="FAMILY|RECIPE",
            help="deepscaler, qwen2.5_instruct, llama3.2, qwen2.5_math, qwen3; on a CPU: "
            "quickstart, miniature; or any recipe, by name or path.",
        ),
    ],
    ranks: Annotated[
        str | None,
        typer.Option(
            "--ranks",
            metavar="LIST",
            help="Adapter ranks, such as 8,64,256,full; else the family's, which the plan shows.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Seeds 1 to N.")] = 1,
    alpha: Annotated[
        str | None,
        typer.Option(
            "--alpha",
            metavar="LIST",
            help="Rules for alpha: fixed (the paper's), equal_rank, 4x_rank, rslora; else the "
            "recipe's own. Without equal_rank nothing is said of the rank itself.",
        ),
    ] = None,
    split: Annotated[
        Literal["time", "steps"],
        typer.Option("--split", help="Equal seconds or equal updates for every arm."),
    ] = "time",
    hours: Hours = None,
    usd: Usd = None,
    price: Price = None,
    gpu: Gpu = None,
    plan: PlanOnly = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Study directory; an existing one goes on."),
    ] = None,
    display: DisplayOption = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> int:
    """Does a higher-rank adapter help this model? Several arms, one budget, one report.

    Every arm is a normal run. The plan says what each gets and which differences the evaluation
    can tell from noise. The same command with --out, or `budgetrl resume DIR`, continues.
    """
    from budgetrl.study.arms import arms_of, family_of
    from budgetrl.study.specs import Asked

    chosen = family_of(family)
    limits = limits_of(hours, usd, price)
    if limits.is_open and chosen.budget is not None:
        limits = limits_of(chosen.budget, None, price)
    policies = [chosen.alpha] if alpha is None else _alphas(alpha)
    of = _ranks(ranks) if ranks is not None else list(chosen.ranks)
    asked = Asked(
        family=chosen.name,
        grid={"lora.rank": of, "lora.alpha_policy": [policy.value for policy in policies]},
        seeds=seeds,
        split=split,
        recipe=chosen.recipes[0] if chosen.budget is None else None,
    )
    return begin(
        asked, arms_of(chosen, of, seeds, policies), limits, display,
        out=out, gpu=gpu, plan=plan, as_json=as_json,
    )  # fmt: skip


def _ranks(text: str) -> "list[Rank]":
    try:
        ranks: list[Rank] = [
            "full" if part.strip() == "full" else int(part) for part in text.split(",")
        ]
    except ValueError:
        ranks = []
    numbers = [rank for rank in ranks if rank != "full"]
    if not ranks or min(numbers, default=1) < 1 or len(set(ranks)) < len(ranks):
        raise UsageError(
            f"--ranks {text!r} is not a list of different ranks such as 8,64,256, or full."
        )
    return ranks


def _alphas(text: str) -> "list[AlphaPolicy]":
    from budgetrl.recipe.base import AlphaPolicy

    names = text.split(",")
    known = [policy.value for policy in AlphaPolicy]
    if not all(name in known for name in names) or len(set(names)) < len(names):
        raise UsageError(f"--alpha {text!r}: takes a list of {', '.join(known)}.")
    return [AlphaPolicy(name) for name in names]
