"""Options that several commands share, and their parsing."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from budgetrl.errors import UsageError
from budgetrl.units import parse_duration_s, parse_usd

if TYPE_CHECKING:
    from budgetrl.budget import Limits
    from budgetrl.deadline import End
    from budgetrl.recipe.load import LoadedRecipe

RecipeRef = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or the name of a bundled one: `budgetrl recipes list`.",
    ),
]
Hours = Annotated[
    str | None,
    typer.Option("--hours", metavar="TIME", help="Time limit: 24 (hours), 1.5h, 90m or 45s."),
]
Usd = Annotated[
    str | None, typer.Option("--usd", metavar="AMOUNT", help="Money limit, such as 5 or $5.")
]
Price = Annotated[
    str | None,
    typer.Option("--price", metavar="USD", help="Price of one hour in dollars, such as 0.40."),
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="TIME",
        help="End by 18:30 or 2026-12-01T06:00 at the latest; a Slurm job's end is known.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a recipe value, e.g. lora.rank=8; =unset removes an inherited one.",
    ),
]
Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        metavar="NAME|FILE",
        help="GPU to plan for, such as A40 or H100, or a .json file with its row; else the one "
        "that is here. `budgetrl estimate RECIPE --all-gpus` lists them.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of run directories.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")
]


def quiet_libraries() -> None:
    """Progress bars and warnings of libraries are not for people; before one is imported."""
    from budgetrl.supervise.worker import worker_environment

    os.environ.update(worker_environment())


def _go_offline(value: bool) -> None:
    if value:  # before huggingface_hub is imported, which reads it once
        os.environ["HF_HUB_OFFLINE"] = "1"


Offline = Annotated[
    bool,
    typer.Option(
        "--offline", help="Ask no model hub: its cache only.", callback=_go_offline, is_eager=True
    ),
]
PlanOnly = Annotated[bool, typer.Option("--plan", "--dry-run", help="Print the plan and stop.")]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Run the recipe's rewards of your own (module:function)."),
]
AcceptChanges = Annotated[
    str | None,
    typer.Option(
        "--accept-changes",
        metavar="LIST",
        help="Go on although these differ from before: of data,reward,model,versions.",
    ),
]
MovedModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PATH",
        help="Where the run's local base model lies now; it is compared by hash.",
    ),
]
OnFinish = Annotated[
    str | None,
    typer.Option(
        "--on-finish",
        metavar="CMD",
        help="Shell command to run at the very end, such as 'sudo poweroff'.",
    ),
]

DisplayOption = Annotated[
    Literal["auto", "live", "plain", "json", "none"],
    typer.Option(
        "--display",
        metavar="HOW",
        help="live, plain, json or none; auto is live on a terminal, else plain.",
    ),
]


def read_recipe(
    ref: str, sets: Sequence[str], seed: int | None = None, say: Callable[[str], None] | None = None
) -> "LoadedRecipe":
    """Load a recipe, and say in a line each what of it another value took the place of.

    Args:
        ref: path or bundled name.
        sets: values of --set.
        seed: value of --seed.
        say: where to; standard error where absent.

    Raises:
        RecipeError: the recipe is missing or invalid.
        UsageError: a --set that is none.
    """
    from budgetrl.recipe.load import load_recipe

    loaded = load_recipe(ref, sets, seed)
    for note in loaded.notes:
        (say or (lambda text: typer.echo(text, err=True)))(note)
    return loaded


def accepted_of(text: str | None) -> frozenset[str]:
    """The parts of an --accept-changes value.

    Raises:
        UsageError: there is no such part.
    """
    from budgetrl.evaluation.fingerprints import PARTS

    parts = frozenset(part.strip() for part in (text or "").split(",") if part.strip())
    if text is not None and not (parts and parts <= set(PARTS)):
        raise UsageError(
            f"--accept-changes {text!r}: names no part of a run, or more than those.",
            hint=f"Name one or more of {','.join(PARTS)}.",
        )
    return parts


def limits_of(hours: str | None, usd: str | None = None, price: str | None = None) -> "Limits":
    """What --hours, --usd and --price allow.

    Raises:
        UsageError: not a duration or an amount above zero.
    """
    from budgetrl.budget import Limits

    return Limits(
        _parsed("--hours", hours, parse_duration_s),
        _parsed("--usd", usd, parse_usd),
        _parsed("--price", price, parse_usd),
    )


def end_here(until: str | None) -> "End | None":
    """When somebody else ends this process: --until, or the batch job's end.

    Raises:
        UsageError: --until is no time to come.
    """
    from budgetrl.deadline import end_of
    from budgetrl.supervise.attempt import process_start

    return end_of(until, os.environ, time.time(), time.monotonic() - process_start())


def _parsed(flag: str, text: str | None, parse: Callable[[str], float]) -> float | None:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}.") from None
