"""`budgetrl replicate`, and what `sweep` shares with it."""

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from budgetrl.cli.options import (
    DisplayOption,
    Hours,
    Json,
    Offline,
    Price,
    Usd,
    end_here,
    limits_of,
)
from budgetrl.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from budgetrl.display.base import DisplayKind, GuardedDisplay
    from budgetrl.recipe.base import AlphaPolicy, Rank
    from budgetrl.study.execute import Pool
    from budgetrl.study.plan import SweepPlan
    from budgetrl.study.state import StudyDir


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
        typer.Option("--ranks", metavar="LIST", help="Adapter ranks, such as 8,64,256,full."),
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
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="NAME|FILE", help="GPU to plan for.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan and stop.")] = False,
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
    from budgetrl.study.place import is_study
    from budgetrl.study.plan import plan_sweep
    from budgetrl.study.state import StudyDir, open_study
    from budgetrl.supervise.attempt import process_start
    from budgetrl.units import duration

    started = process_start()
    chosen = family_of(family)
    limits = limits_of(hours, usd, price)
    if limits.is_open and chosen.budget is not None:
        limits = limits_of(chosen.budget, None, price)
    limits = replace(limits, end=None if plan else end_here(None))
    policies = [chosen.alpha] if alpha is None else _alphas(alpha)
    config: dict[str, Any] = {
        "family": chosen.name,
        "ranks": _ranks(ranks) if ranks is not None else list(chosen.ranks),
        "seeds": seeds,
        "alpha": [policy.value for policy in policies],
        "split": split,
    }
    if chosen.budget is None:
        config["recipe"] = chosen.recipes[0]
    if out is not None and is_study(out) and not plan:
        study = open_study(out)
        study.check_config(config)
        return run_study(study, started, gpu, display, as_json)
    specs = arms_of(chosen, config["ranks"], seeds, policies)
    made = plan_sweep(specs, limits, split=split, gpu=gpu, dry_run=plan)
    if plan:
        return _print_plan(made, config, as_json)
    sys.stderr.write(
        f"{len(specs)} arms in {duration(made.budget.wall_s)}, "
        f"about {duration(made.trials[0].budget_s)} each\n"
    )
    study = StudyDir.create(out or new_folder("studies", chosen.name), made, config)
    return run_study(study, started, gpu, display, as_json)


def usage_of_json(as_json: bool, display: "DisplayKind") -> None:
    """Both want standard output.

    Raises:
        UsageError: they are given together.
    """
    if as_json and display == "json":
        raise UsageError(
            "--json and --display json both want standard output.", hint="Leave one of them out."
        )


def continue_study(
    path: Path, started: float, display: "DisplayKind", as_json: bool, *, allow_code: bool
) -> int:
    """What `budgetrl resume` does with the directory of a sweep or study."""
    from budgetrl.study.state import open_study

    return run_study(open_study(path), started, None, display, as_json, allow_code=allow_code)


def run_study(
    study: "StudyDir",
    started: float,
    gpu: str | None,
    display: "DisplayKind",
    as_json: bool,
    pool: "Pool | None" = None,
    *,
    allow_code: bool = False,
) -> int:
    """Run what is left of a sweep or study where it shall run, and print how it came out."""
    from budgetrl.display.base import open_display
    from budgetrl.study.execute import ThisProcess, run_sweep
    from budgetrl.study.rows import is_sweep, trial_line

    kind: DisplayKind = "plain" if as_json and display == "auto" else display
    stream = sys.stderr if as_json else sys.stdout

    def opened() -> "GuardedDisplay":
        return open_display(kind, stream, sys.stderr)

    def say(index: int, news: str) -> None:
        if kind in ("auto", "live", "plain"):
            stream.write(f"{trial_line(study, index, news)}\n")
            stream.flush()

    with ExitStack() as held:
        held.enter_context(study.held())
        if pool is None and study.on != "local":
            from budgetrl.study.cluster import open_cluster

            recipe = study.trials[0].spec.load().recipe
            most, cuda = len(study.trials), recipe.engine.device == "cuda"
            pool = held.enter_context(open_cluster(study.on, cuda=cuda, most=most))
            pool.check(study.path, recipe.checkpoint.mirror)
        here = ThisProcess(opened)
        code = run_sweep(
            study,
            pool or here,
            opened,
            started,
            gpu=gpu,
            allow_code=allow_code,
            say=say if pool else None,
        )
    if is_sweep(study):
        from budgetrl.study.sweep_report import print_sweep, sweep_document

        document, shown = sweep_document(study), print_sweep
    else:
        from budgetrl.study.report import study_document

        document, shown = study_document(study), _print_study
    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        shown(document)
    sys.stdout.flush()  # Ray may end the process when it is let go, if this machine's part is gone
    return code


def _print_study(document: Mapping[str, Any]) -> None:
    from budgetrl.units import duration

    lines = [
        f"{arm['recipe']}, {_trained(arm)}, seed {arm['seed']}: "
        f"{arm['status']}, {arm['steps']} updates, {duration(arm['spent']['wall_s'])}"
        for arm in document["arms"]
    ]
    lines += [f"{claim['claim']}: {claim['verdict']}" for claim in document["claims"]]
    budget = document["budget"]
    lines.append(f"{duration(budget['spent_s'])} of {duration(budget['wall_s'])} were used.")
    page = Path(document["study_dir"]) / "report" / "report.html"
    lines.append(str(page) if page.exists() else f"budgetrl report {document['study_dir']}")
    sys.stdout.write("\n".join(lines) + "\n")


def _print_plan(made: "SweepPlan", config: dict[str, Any], as_json: bool) -> int:
    from dataclasses import asdict

    from budgetrl.study.plan import plan_rows
    from budgetrl.units import duration, usd

    rows = plan_rows(made)
    if as_json:
        document = {
            "schema_version": 1,
            "config": config,
            "arms": rows,
            "budget": asdict(made.budget),
            "total_s": made.total_s,
            "detectable": made.detectable(),
        }
        sys.stdout.write(json.dumps(document) + "\n")
        return ExitCode.OK
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(
        Column("arm", overflow="fold"),
        "rank",
        "alpha/r",
        "seed",
        "budget",
        "updates",
        "s/update",
        "dollars",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for row in rows:
        table.add_row(
            row["recipe"].replace("-", "-\n"), str(row["rank"]), _scale(row), str(row["seed"]),
            duration(row["budget_s"]), str(row["planned_steps"]), f"{row['step_s']:.1f}",
            usd(row["expected_usd"]),
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"In all about {duration(made.total_s)} of {duration(made.budget.wall_s)}; "
        f"times from {made.trials[0].plan.source}."
    )
    for suite, least in made.detectable().items():
        console.print(
            f"On {suite} a difference below about {100 * least:.1f} points is noise, "
            "before what seeds add."
        )
    if (
        len({row["lora_scale"] for row in rows} - {None}) > 1
        and "equal_rank" not in config["alpha"]
    ):
        console.print(
            "The arms differ in scale (alpha/r) as well as in rank: add --alpha fixed,equal_rank "
            "to say anything of the rank itself."
        )
    return ExitCode.OK


def new_folder(kind: str, name: str) -> Path:
    """A folder that no other sweep has."""
    import secrets
    import time

    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return Path(kind) / f"{name.replace('/', '-')}--{stamp}--{secrets.token_hex(3)}"


def _scale(row: Mapping[str, Any]) -> str:
    return "-" if row["lora_scale"] is None else f"{row['lora_scale']:.3g}"


def _trained(row: Mapping[str, Any]) -> str:
    from budgetrl.recipe.base import rank_name

    scale = "" if row["lora_scale"] is None else f" (scale {_scale(row)})"
    return f"{rank_name(row['rank'])}{scale}"


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
