"""`budgetrl eval`."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetrl.cli.options import Hours, Json, MovedModel, Offline, limits_of, quiet_libraries
from budgetrl.cli.output import print_found
from budgetrl.errors import AbortedError, BudgetError, ExitCode, UsageError

if TYPE_CHECKING:
    from budgetrl.display.progress import ProgressLine
    from budgetrl.evaluation.judge import Evaluated
    from budgetrl.evaluation.run import Progress


def eval_(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A run, a checkpoint or adapter folder, a model folder or its hub id.",
        ),
    ],
    suites: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            metavar="NAME|PATH",
            help="What to solve, such as amc23 or a file; else the run's own.",
        ),
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(
            "--samples",
            metavar="N|MIN..MAX",
            help="Per problem; a range: as needed. Else the recipe's for that suite, or 16.",
        ),
    ] = None,
    until_width: Annotated[
        float | None,
        typer.Option(
            "--until-width",
            metavar="POINTS",
            help="With a range: end when the 95 % interval of pass@1 is so narrow.",
        ),
    ] = None,
    ks: Annotated[
        str | None,
        typer.Option(
            "--k", metavar="LIST", help="k of pass@k, such as 1,8,16; else 1, or the recipe's."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", metavar="N", min=1, help="Of one completion; else the recipe's."
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            metavar="T",
            min=0.0,
            help="0 is greedy; else the recipe's for that suite, or 0.6.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", min=0, help="Of the sampling.")
    ] = None,
    think: Annotated[
        str | None,
        typer.Option(
            "--think",
            metavar="LIST",
            help="Limits of thinking, such as 256,512,1024: accuracy at each, and of the base.",
        ),
    ] = None,
    think_whole: Annotated[
        bool,
        typer.Option("--think-whole", help="With --think: all is thinking; no think tags."),
    ] = False,
    hours: Hours = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="RECIPE", help="Prompt and engine for a target of no run."
        ),
    ] = None,
    model: MovedModel = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for targets that are of no run.")
    ] = Path("evals"),
    offline: Offline = False,
    as_json: Json = False,
) -> int:
    """Evaluate a run, an adapter or a model: pass@k with intervals, every completion stored.

    The same call again continues where it was stopped; a time limit cuts rounds, never problems.
    """
    from budgetrl.display.output import aside
    from budgetrl.display.progress import ProgressLine, downloads
    from budgetrl.evaluation.judge import evaluate_target
    from budgetrl.evaluation.specs import suite_specs
    from budgetrl.evaluation.target import base_of, find_target
    from budgetrl.supervise.gpu_lock import gpu_for, hold_gpu

    started = time.monotonic()
    quiet_libraries()
    limit_s = limits_of(hours).wall_s
    with downloads() as follow:
        found = find_target(target, recipe, model, follow)

    def warn(what: str) -> None:
        sys.stderr.write(f"Warning: {target}: {what}.\n")

    for note in found.notes:
        warn(note)
    specs = suite_specs(
        found.recipe,
        suites or (),
        samples=_samples(samples),
        until_width=until_width,
        ks=_numbers("--k", ks),
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        think=_numbers("--think", think),
        think_whole=think_whole,
    )
    ends_at = None if limit_s is None else started + limit_s
    card = gpu_for(found.recipe)
    with _signals() as caught:
        over = _stop_check(ends_at, caught)
        with (
            hold_gpu(card, Path(target).absolute(), ends_at),
            aside(sys.stdout, sys.stderr),
            downloads(_ends_download(over, caught)) as follow,
            ProgressLine() as line,
        ):
            show = _progress(line)
            results = evaluate_target(found, specs, out, over, show, warn, follow)
            before = base_of(found) if think is not None and found.run is not None else None
            if before is not None and not over():
                results += evaluate_target(before, specs, out, over, show, None, follow)
    lines = (line for one in results for line in _lines(one))
    print_found(as_json, [one.to_json() for one in results], lines)
    if caught:
        sys.stderr.write("Stopped; the same command continues.\n")
        return ExitCode.TERMINATED if caught[0] == signal.SIGTERM else ExitCode.INTERRUPTED
    # As of a run whose budget buys no comparison: there is no number that a script could take.
    return ExitCode.REFUSED if all(one.result is None for one in results) else ExitCode.OK


def _numbers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise UsageError(f"{option} {text!r} is not a list of numbers such as 1,8,16.")
    return numbers


def _samples(text: str | None) -> int | tuple[int, int] | None:
    """ "4" or "2..32"."""
    if text is None:
        return None
    least, dots, most = text.partition("..")
    try:
        numbers = (int(least), int(most if dots else least))
    except ValueError:
        numbers = (0, 0)
    if numbers[0] < 1:
        raise UsageError(f"--samples {text!r} is neither a number nor a range such as 2..32.")
    return numbers if dots else numbers[0]


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals that ask to stop are noted once; a second one ends the process at once."""
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        caught.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_check(ends_at: float | None, caught: Sequence[int]) -> Callable[[], bool]:
    def over() -> bool:
        return bool(caught) or (ends_at is not None and time.monotonic() > ends_at)

    return over


def _progress(line: "ProgressLine") -> Callable[[str, "Progress"], None]:
    """How far a suite is."""
    from budgetrl.units import duration

    def show(suite: str, now: "Progress") -> None:
        whole = now.done >= now.total
        left = "" if whole else f", about {duration(now.remaining_s)} left"
        line.show(whole, lambda: f"{suite}: {now.done:,} of {now.total:,} completions{left}")

    return show


def _ends_download(over: Callable[[], bool], caught: Sequence[int]) -> Callable[[str], None]:
    """Ends a download where the evaluation would be ended."""

    def check(repo: str) -> None:
        if caught:
            raise AbortedError("stopped by Ctrl-C; what was downloaded is kept.")
        if over():
            raise BudgetError(
                f"the time was over before {repo} was downloaded; its parts are kept.",
                hint="Give more with --hours; the same command continues.",
            )

    return check


def _lines(one: "Evaluated") -> Iterator[str]:
    from budgetrl.account.text import interval_text, suite_name
    from budgetrl.evaluation.rounds import said_of
    from budgetrl.units import percent

    name, result = suite_name(one.protocol.suite), one.result
    if one.target.run is not None:
        name += f", {one.target.run.name} after {one.target.step:,} updates"
    if result is None:
        yield (
            f"{name}: not one round is complete yet; the same command continues, with more --hours "
            "or none if time was short."
        )
        return
    if one.equals_base:
        yield f"{name}: the adapter equals its base (every B is zero); this is the base's result."
    p = one.protocol
    yield (
        f"{name}: {result.problems} problems x {result.samples} samples, temperature "
        f"{p.temperature:g}, top_p {p.top_p:g}, {p.max_tokens:,} tokens, seed {p.seed}"
    )
    for k, value in result.pass_at.items():
        interval = interval_text(result.interval_95[k])
        yield f"  pass@{k:<3} {percent(value):>8}   95 % interval {interval}"
    if said := said_of(result.rounds):
        yield f"  {said}"
    if (thought := result.think) is not None and thought["tokens_mean"] is not None:
        yield (
            f"  thinking: at most {thought['max_tokens']:,} tokens, {thought['tokens_mean']:,.0f} "
            f"on average; {percent(thought['forced_share'])} ended by the limit, "
            f"{thought['appended_mean']:.1f} tokens appended"
        )
    shares = f"truncated {percent(result.truncated_share)}"
    shares += f", no answer {percent(result.unparsable_share)}"
    yield f"  {shares}, {result.completion_tokens_mean:,.0f} tokens on average"
    yield f"  {one.completions_file}"
