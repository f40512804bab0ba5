"""What `sweep`, `replicate` and `resume` share: plan a sweep, run it, say how it came out."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetrl.cli.options import end_here
from budgetrl.cli.output import print_json, shown_on
from budgetrl.errors import ExitCode, RefusedError

if TYPE_CHECKING:
    from budgetrl.budget import Limits
    from budgetrl.display.base import DisplayKind, GuardedDisplay
    from budgetrl.recipe.schema import Recipe
    from budgetrl.study.cluster import Cluster
    from budgetrl.study.execute import Pool
    from budgetrl.study.specs import Asked, TrialSpec
    from budgetrl.study.state import StudyDir, Sweep


def begin(
    asked: "Asked",
    specs: "Sequence[TrialSpec]",
    limits: "Limits",
    display: "DisplayKind",
    *,
    out: Path | None,
    gpu: str | None,
    plan: bool,
    as_json: bool,
    on: str = "local",
    allow_code: bool = False,
) -> int:
    """Plan a sweep, and run it unless only the plan is asked for; one that exists goes on.

    Args:
        asked: what the trials are made from.
        specs: the trials.
        limits: of all of them together.
        display: how runs are shown.
        out: the sweep's directory; None: a new one.
        gpu: name of the GPU to plan for.
        plan: print the plan and stop.
        as_json: one JSON document on standard output.
        on: local, ray, or the address of a Ray cluster.
        allow_code: whether rewards of the user may be imported.
    """
    from budgetrl.rundir import RunDir
    from budgetrl.study.asha import rule_words
    from budgetrl.study.place import is_study
    from budgetrl.study.plan import plan_sweep
    from budgetrl.study.state import StudyDir, open_study
    from budgetrl.units import duration

    shown_on(as_json, display)  # refuses what cannot be, before anything is planned
    if out is not None and is_study(out) and not plan:
        study = open_study(out)
        study.check(asked)
        return continue_study(study, display, as_json, on=on, gpu=gpu, allow_code=allow_code)
    limits = replace(limits, end=None if plan else end_here(None))
    with ExitStack() as held:
        recipe = specs[0].load().recipe
        pool = _cluster(held, on, recipe, len(specs))
        made = plan_sweep(
            asked, specs, limits, gpu=gpu, dry_run=plan or pool is not None,
            slots=1 if pool is None else pool.slots,
        )  # fmt: skip
        if plan:
            return _print_plan(made, as_json)
        sys.stderr.write(
            f"{len(specs)} {asked.trials}, {made.slots} at a time, in "
            f"{duration(made.budget.wall_s)} of {'all cards' if pool else 'this machine'}\n"
        )
        if made.rungs:
            sys.stderr.write(f"{rule_words(made.rungs)}\n")
        made.on = on
        kind = "sweeps" if asked.is_sweep else "studies"
        study = StudyDir.create(out or Path(kind) / RunDir.new_name(asked.family), made)
        if pool is not None:
            try:
                pool.check(study.path, recipe.checkpoint.mirror)
            except RefusedError:
                study.discard()
                raise
        return continue_study(study, display, as_json, gpu=gpu, allow_code=allow_code, pool=pool)


def continue_study(
    study: "StudyDir",
    display: "DisplayKind",
    as_json: bool,
    *,
    on: str | None = None,
    gpu: str | None = None,
    allow_code: bool = False,
    pool: "Pool | None" = None,
) -> int:
    """Run what is left of a sweep or study where it shall run, and print how it came out."""
    from budgetrl.display.base import open_display
    from budgetrl.display.output import aside
    from budgetrl.study.execute import Sweeping, ThisProcess
    from budgetrl.study.watch import trial_line
    from budgetrl.supervise.attempt import process_start

    kind, stream = shown_on(as_json, display)

    def opened() -> "GuardedDisplay":
        return open_display(kind, stream, sys.stderr)

    def say(index: int, news: str) -> None:
        if kind in ("auto", "live", "plain"):
            stream.write(f"{trial_line(study, index, news)}\n")
            stream.flush()

    with ExitStack() as held:
        held.enter_context(study.held())
        # Ray prints what its nodes complain of, whatever it is told.
        shown = held.enter_context(aside(sys.stdout, sys.stderr)) if as_json else sys.stdout
        if pool is None:
            study.note(on=on or study.sweep.on)
            recipe = study.trials[0].spec.load().recipe
            cluster = _cluster(held, study.sweep.on, recipe, len(study.trials))
            if cluster is not None:
                cluster.check(study.path, recipe.checkpoint.mirror)
                pool = cluster
        code = Sweeping(
            study, pool or ThisProcess(opened), process_start(),
            gpu=gpu, allow_code=allow_code, say=say if pool else None,
        ).run(opened)  # fmt: skip
        from budgetrl.study.report import study_document  # matplotlib comes with it

        document = study_document(study)
        lines = [json.dumps(document)] if as_json else _outcome_lines(study, document)
        shown.writelines(f"{line}\n" for line in lines)
        shown.flush()  # Ray may end the process when it is let go, if its node is gone
    return code


def _cluster(held: ExitStack, on: str, recipe: "Recipe", most: int) -> "Cluster | None":
    """The pool of a Ray cluster, while it is held; None for this process."""
    if on == "local":
        return None
    from budgetrl.study.cluster import open_cluster

    return held.enter_context(open_cluster(on, cuda=recipe.engine.device == "cuda", most=most))


def _outcome_lines(study: "StudyDir", document: Mapping[str, Any]) -> Iterator[str]:
    from budgetrl.study.best_report import best_words
    from budgetrl.study.watch import bill_words, trial_lines

    yield from trial_lines(study)
    if document.get("best"):
        yield best_words(document["best"], str(study.config.metric))
    yield from document.get("notes", ())
    yield from (f"{claim['claim']}: {claim['verdict']}" for claim in document.get("claims", ()))
    yield f"{bill_words(study)} were used."
    page = study.path / "report" / "report.html"
    yield str(page) if page.exists() else f"budgetrl report {study.path}"


def _print_plan(made: "Sweep", as_json: bool) -> int:
    asked = made.config
    rows = [trial.plan_row(index) for index, trial in enumerate(made.arms)]
    if as_json:
        document = {
            "schema_version": 1,
            "config": asdict(asked),
            asked.trials: rows,
            "budget": asdict(made.budget),
            "slots": made.slots,
            "rungs": list(made.rungs),
            "wall_s": made.wall_s,
            "total_s": made.total_s,
            "total_usd": made.budget.usd_of(made.total_s),
            "detectable": dict(made.detectable),
            "smallest_detectable_difference": made.detectable.get(str(asked.metric)),
            "over_seeds": made.detectable_over_seeds,
        }
        print_json(document)
        return ExitCode.OK
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    from budgetrl.report.best import short_keys, value_word
    from budgetrl.units import duration, usd

    keys = list(dict.fromkeys(key for row in rows for key in row["values"]))
    heads = [*short_keys(keys), "alpha/r", "seed", "budget", "updates", "s/update", "dollars"]
    table = Table(Column("recipe", overflow="fold"), *heads, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(
            row["recipe"].replace("-", "-\n"),
            *(value_word(row["values"].get(key, "-")) for key in keys),
            "-" if row["lora_scale"] is None else f"{row['lora_scale']:.3g}",
            str(row["seed"]), duration(row["budget_s"]), str(row["planned_steps"]),
            f"{row['step_s']:.1f}", usd(row["expected_usd"]),
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    for line in _plan_lines(made):
        console.print(line)
    return ExitCode.OK


def _plan_lines(made: "Sweep") -> Iterator[str]:
    """What a plan costs, and can tell."""
    from budgetrl.study.asha import rule_words
    from budgetrl.units import duration, usd

    asked = made.config
    bill = made.budget.usd_of(made.total_s)
    yield (
        f"{len(made.arms)} {asked.trials}, {made.slots} at a time: about {duration(made.wall_s)}, "
        f"{duration(made.total_s)} of {duration(made.budget.wall_s)} are paid"
        f"{'' if bill is None else f' ({usd(bill)})'}; times from {made.source}."
    )
    if made.rungs:
        yield rule_words(made.rungs)
    judged = [suite for suite in made.detectable if asked.metric in (None, suite)]
    for suite in judged:
        yield (
            f"On {suite} a difference between two points below about "
            f"{100 * made.detectable[suite]:.1f} points is "
            "sampling noise, before what seeds add."
        )
    yield (
        "One seed says nothing of the spread between seeds, 5 to 15 points on AIME24 at 1.5B "
        "(arXiv 2504.07086): add --seeds 3 or more."
        if made.detectable_over_seeds is None
        else f"Where seeds spread by 5 points, {asked.seeds} of them tell differences above about "
        f"{100 * made.detectable_over_seeds:.1f} points (Student's t; arXiv 2504.07086 saw 5 to "
        "15 on AIME24)."
    )
    scales = {trial.row.lora_scale for trial in made.arms} - {None}
    if len(scales) > 1 and "equal_rank" not in asked.grid.get("lora.alpha_policy", ["equal_rank"]):
        yield (
            "The arms differ in scale (alpha/r) as well as in rank: add --alpha fixed,equal_rank "
            "to say anything of the rank itself."
        )
