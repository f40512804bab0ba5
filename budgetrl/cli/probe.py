"""`budgetrl probe`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetrl.cli.options import Json, Offline, Sets, limits_of, quiet_libraries, read_recipe
from budgetrl.cli.output import print_found
from budgetrl.errors import ExitCode

if TYPE_CHECKING:
    from budgetrl.probe.run import Probe


def probe(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="What the money would be spent on.")
    ],
    hours: Annotated[
        str, typer.Option("--hours", metavar="TIME", help="What the probe itself may take.")
    ] = "20m",
    sets: Sets = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for what the probe keeps.")
    ] = Path("probes"),
    offline: Offline = False,
    as_json: Json = False,
) -> int:
    """Can RL help this model at all? Go, doubtful or no_go, for cents, before the money.

    Evaluates the base model in rounds and rolls out groups of the training data. The table of
    solve rates can be given to the run, as signal.solve_rates beside signal.order = "difficulty".
    """
    from budgetrl.display.output import aside
    from budgetrl.probe.run import probe as run_probe
    from budgetrl.rundir import RunDir
    from budgetrl.supervise.attempt import process_start

    started = process_start()
    limit_s = limits_of(hours).wall_s
    assert limit_s is not None
    quiet_libraries()
    loaded = read_recipe(recipe, sets or ())
    folder = out / RunDir.new_name(loaded.recipe.name)
    with aside(sys.stdout, sys.stderr):
        found = run_probe(
            loaded, limit_s, started, folder, lambda text: print(text, file=sys.stderr)
        )
    print_found(as_json, found.to_json(), _probe_lines(found))
    return ExitCode.OK


def _probe_lines(found: "Probe") -> Iterator[str]:
    from budgetrl.account.text import interval_text, suite_name
    from budgetrl.units import duration, percent, usd

    words = {"go": "Go", "doubtful": "Doubtful", "no_go": "No go"}
    yield f"{words[found.verdict.value]}: {found.recipe}"
    yield from (f"  - {reason}" for reason in found.why)
    for name, result in found.suites.items():
        for k, value in result.pass_at.items():
            interval = interval_text(result.interval_95[k])
            yield f"  {suite_name(name)} pass@{k}: {percent(value)}   95 % interval {interval}"
    groups = found.seen.to_json()
    yield (
        f"  training problems: pass@1 {percent(groups['pass_at_1'])}, format "
        f"{percent(groups['format_rate'])}, truncated {percent(groups['truncated_share'])}"
    )
    yield from _limit_lines(found)
    forecast = found.forecast
    yield (
        f"  the recipe's budget buys {forecast['steps']} updates of "
        f"{duration(forecast['step_s'])} ({usd(forecast['total_usd'])})"
    )
    if forecast["groups_with_signal_per_hour"] is not None:
        yield f"  groups with signal per hour: {forecast['groups_with_signal_per_hour']:,.0f}"
    yield from _warm_up_lines(found)
    yield f"  {found.folder}"


def _warm_up_lines(found: "Probe") -> Iterator[str]:
    """A warm-up for a cold model, as lines of a recipe."""
    from budgetrl.units import duration, usd

    warm_up = found.warm_up
    if warm_up is None:
        return
    cost = "its data say what it takes"
    if warm_up.seconds is not None:
        cost = f"about {duration(warm_up.seconds)}, {usd(warm_up.usd)}, out of the same budget"
    yield f"  A warm-up on worked solutions may help a model that shows none ({cost}):"
    yield ""
    yield from (f"    {line}".rstrip() for line in warm_up.lines.splitlines())
    yield ""


def _limit_lines(found: "Probe") -> Iterator[str]:
    """What sampling.max_tokens could be."""
    from budgetrl.probe.lengths import proposed
    from budgetrl.units import duration, percent

    if not found.limits:
        return
    best = proposed(found.limits)
    if best is None:
        longest = found.limits[-1]
        yield (
            f"  sampling.max_tokens: even {longest.max_tokens:,} cuts "
            f"{percent(longest.cut_share)} of the completions"
        )
    else:
        yield f"  sampling.max_tokens = {best:,} would do:"
    for one in found.limits:
        mark = "*" if one.max_tokens == best else " "
        yield (
            f"  {mark} {one.max_tokens:6,} tokens: {percent(one.cut_share)} cut, "
            f"{percent(one.accuracy)} right, an update {duration(one.step_s)}"
        )
