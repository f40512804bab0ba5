"""`budgetrl watch` and `budgetrl runs`: look at runs, from their files alone."""

import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from budgetrl.cli.options import Json, Out
from budgetrl.errors import ExitCode


def watch(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Run or sweep; else the newest run under ./runs."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and leave.")] = False,
) -> None:
    """Look at a run, or at all trials of a sweep: running, finished, interrupted or crashed."""
    from budgetrl.display import watch as view
    from budgetrl.rundir import open_run
    from budgetrl.study.place import is_study

    sweep = Path(run) if run is not None and is_study(Path(run)) else None
    if sweep is not None and once:
        from budgetrl.study.watch import sweep_lines

        sys.stdout.writelines(f"{line}\n" for line in sweep_lines(sweep))
        return
    chosen = view.newest_run() if run is None else None if sweep else open_run(run)
    if once and chosen is not None:
        view.print_frame(chosen, sys.stdout)
        return
    caught: list[int] = []

    def leave(number: int) -> None:
        """Leaves the view before the process ends, so the terminal is put right."""
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def note(number: int, frame: FrameType | None) -> None:
        """The view leaves when it has drawn; at once if it is asked again.

        A handler may run inside a destructor, where Python drops what it raises.
        """
        caught.append(number)
        if len(caught) > 1:
            leave(number)

    def pause(seconds: float) -> None:
        if not caught:
            time.sleep(seconds)
        if caught:
            leave(caught[0])

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        if sweep is not None:
            from budgetrl.study.watch import watch_sweep

            watch_sweep(sweep, sys.stdout, pause)
        elif chosen is not None:
            view.watch(chosen, sys.stdout, sys.stderr, pause)
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.OK) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def runs(
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """List runs, oldest first: status, updates, spent, gain."""
    from budgetrl.account.text import scrub
    from budgetrl.display.runs_table import print_runs, run_json, runs

    found = runs(out)
    if as_json:
        print(json.dumps([run_json(view) for view in found], indent=1))
    elif found:
        print_runs(found, sys.stdout)
    else:
        where = scrub(str(out))
        print(f"No runs under {where}. Start one with `budgetrl run quickstart`.", file=sys.stderr)
