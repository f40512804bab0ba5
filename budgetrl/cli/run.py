"""`budgetrl run` and `budgetrl resume`."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from budgetrl.cli.options import (
    AcceptChanges,
    AllowCode,
    DisplayOption,
    Gpu,
    Hours,
    Json,
    MovedModel,
    Offline,
    OnFinish,
    Out,
    Price,
    RecipeRef,
    Sets,
    Until,
    Usd,
    accepted_of,
    end_here,
    limits_of,
    read_recipe,
)
from budgetrl.cli.output import print_found, print_json, shown_on
from budgetrl.errors import AbortedError, UsageError

if TYPE_CHECKING:
    from budgetrl.budget import Plan
    from budgetrl.data.rows import LoadedProblems
    from budgetrl.plan import Planned
    from budgetrl.recipe.schema import Recipe
    from budgetrl.supervise.run import Ended


class Force(StrEnum):
    """What a run may go on in spite of."""

    FIT = "fit"
    """The GPU's memory seems too small."""
    VERSIONS = "versions"
    """The installed versions were never tested together."""


def run(
    recipe: RecipeRef,
    hours: Hours = None,
    usd: Usd = None,
    price: Price = None,
    until: Until = None,
    gpu: Gpu = None,
    out: Out = Path("runs"),
    sets: Sets = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Sets recipe.seed.")
    ] = None,
    display: DisplayOption = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, estimate, print the plan; write nothing.")
    ] = False,
    force: Annotated[
        list[Force] | None,
        typer.Option(
            "--force",
            metavar="fit|versions",
            help="Start although it may not fit, or versions are untested.",
        ),
    ] = None,
    on_finish: OnFinish = None,
    allow_code: AllowCode = False,
    offline: Offline = False,
    as_json: Json = False,
) -> int:
    """Train a model inside a budget, from recipe to report.

    The budget clock is the bill's clock: it starts with this command and covers everything.
    """
    from budgetrl.display.base import open_display

    kind, stream = shown_on(as_json, display)
    limits = replace(limits_of(hours, usd, price), end=end_here(until))
    with (
        _told_when_interrupted() as heed,
        open_display("none" if dry_run else kind, stream, sys.stderr) as shown,
    ):
        if limits.end is not None:
            shown.message(limits.end.says)
        shown.message(f"planning {recipe}")
        # Imported under the first screen, because together they take half a second.
        from budgetrl.pace import slowness
        from budgetrl.plan import make_plan
        from budgetrl.usable_recipe import check_golds, try_own_rewards

        loaded = read_recipe(recipe, sets or (), seed, None if dry_run else shown.message)
        planned = make_plan(
            loaded,
            limits,
            gpu=gpu,
            dry_run=dry_run,
            force_fit=Force.FIT in (force or ()),
            force_versions=Force.VERSIONS in (force or ()),
            slow=1.0 if dry_run else slowness(),
        )
        if dry_run:
            try_own_rewards(loaded.recipe, allow_code)
            return _print_plan(planned, check_golds(loaded.recipe), as_json)
        from budgetrl.supervise.attempt import process_start
        from budgetrl.supervise.run import start_run

        heed()
        ended = start_run(
            planned,
            out,
            ["budgetrl", *sys.argv[1:]],
            shown,
            process_start(),
            on_finish=on_finish,
            allow_code=allow_code,
        )
    return _print_result(ended, as_json)


def resume(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN", help="Directory of a run, a study or a sweep.")
    ],
    hours: Hours = None,
    usd: Usd = None,
    until: Until = None,
    sets: Sets = None,
    model: MovedModel = None,
    display: DisplayOption = "auto",
    on_finish: OnFinish = None,
    allow_code: AllowCode = False,
    accept_changes: AcceptChanges = None,
    offline: Offline = False,
    as_json: Json = False,
) -> int:
    """Continue a run from its last complete checkpoint, with the budget that is left.

    --hours or --usd is a new allowance from now on; what was paid stays in the books.
    --set may change schedule, checkpoint, eval, budget and signal; all else is as it was, or the
    run is not continued.
    """
    from budgetrl.display.base import open_display
    from budgetrl.rundir import open_run
    from budgetrl.study.place import is_study
    from budgetrl.supervise.attempt import process_start
    from budgetrl.supervise.resume import continue_run

    kind, stream = shown_on(as_json, display)
    limits, accepted = limits_of(hours, usd), accepted_of(accept_changes)
    limits = replace(limits, end=end_here(until))
    if is_study(run_dir):
        from budgetrl.cli.trials import continue_study
        from budgetrl.study.state import open_study

        if not limits.is_open or sets or accepted or model:
            raise UsageError(
                "a study keeps what it was planned with: its budget, and what its runs stand on.",
                hint="Leave --hours, --usd, --set, --model and --accept-changes out.",
            )
        return continue_study(open_study(run_dir), display, as_json, allow_code=allow_code)
    with _told_when_interrupted() as heed, open_display(kind, stream, sys.stderr) as shown:
        if limits.end is not None:
            shown.message(limits.end.says)
        heed()
        ended = continue_run(
            open_run(run_dir),
            limits,
            shown,
            process_start(),
            on_finish=on_finish,
            allow_code=allow_code,
            sets=sets or (),
            accepted=accepted,
            model=model,
        )
    return _print_result(ended, as_json)


@contextmanager
def _told_when_interrupted() -> Iterator[Callable[[], None]]:
    """Ctrl-C before the run begins is told as errors are, so that --json has its document.

    Gives a function to call right before the run: some import may have swallowed the Ctrl-C.
    """
    noted: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    def heed() -> None:
        if noted:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield heed
    except BaseException:
        if noted:  # some imports make another error of it
            raise AbortedError("stopped by Ctrl-C; nothing was running.") from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _print_result(ended: "Ended", as_json: bool) -> int:
    if as_json:
        print_json(ended.result)
    if ended.error is not None:
        sys.stderr.write(f"{ended.error.type}: {ended.error.message} {ended.error.hint}\n")
    return ended.exit_code


def _stage_rows(made: "Plan") -> list[tuple[str, str]]:
    """The updates of each stage."""
    from budgetrl.units import duration

    return [
        (
            f"  {stage.name} ({stage.kind})",
            f"{stage.steps} of {duration(stage.step_s)}, {duration(stage.seconds)}"
            + ("" if stage.share is None else f" ({stage.share:.0%} of what is left)")
            + f"; {stage.remark}",
        )
        for stage in made.stages
    ]


def _learning_rows(recipe: "Recipe", problems: "LoadedProblems | None") -> list[tuple[str, str]]:
    """What is trained on, paid for and judged by: all of it, what `extends` brings included."""
    from budgetrl.account.text import scrub

    rewards = " + ".join(f"{one.weight:g} {one.name}" for one in recipe.rewards if one.weight)
    suites = ", ".join(spec.suite for spec in recipe.eval if spec.when)
    rows = [("rewards", rewards), ("judged by", suites)]
    if problems is not None:
        held, drawn = len(problems.problems), recipe.batch.prompts_per_step
        says = f"{held:,}"
        if problems.repeats:
            says += f", without {problems.repeats:,} that say the same as an earlier one"
        if problems.dropped:
            says += f", without {len(problems.dropped):,} that cannot be used"
        if held < drawn:
            says += f"; an update draws {drawn}, so the same ones again and again"
        rows.insert(0, ("problems", says))
    return [(name, scrub(value)) for name, value in rows if value]


def _print_plan(planned: "Planned", problems: "LoadedProblems | None", as_json: bool) -> int:
    from budgetrl.hub.pins import needs_of, to_download
    from budgetrl.plan import plan_document
    from budgetrl.units import duration, gib, usd

    made, recipe = planned.plan, planned.recipe
    rows = [
        ("setup", duration(made.setup_s)),
        ("baseline evaluation", duration(made.baseline_s)),
        ("updates", f"{made.steps} of {duration(made.step_s)}"),
        *(_stage_rows(made)),
        ("evaluations in training", duration(made.step_evals_s)),
        ("checkpoints", duration(made.saves_s)),
        ("reserve for the end", duration(made.reserve_s)),
        ("report", duration(made.report_s)),
        ("expected in all", f"{duration(made.total_s)} of {duration(made.budget_s)}"),
        ("expected bill", usd(made.total_usd)),
    ]
    missing = to_download(planned.pins)
    if not planned.pins and any(needs_of(recipe)):
        rows.insert(0, ("model hub", "not asked: ids, access and columns are not checked"))
    elif planned.pins:
        rows.insert(0, ("to download", gib(missing) if missing else "nothing, all is here"))
    if planned.memory is not None and planned.memory.utilization is not None:
        share = planned.memory.utilization
        rows.append(("vLLM's share of memory", f"{share:g} ({gib(planned.memory.reserved)})"))
    rows = [*_learning_rows(recipe, problems), *rows]
    lines = [f"Plan for {recipe.name} (nothing was written)", ""]
    lines += [f"  {name:<24} {value}" for name, value in rows]
    print_found(as_json, plan_document(planned), [*lines, "", f"  Times from {made.source}."])
    return 0
