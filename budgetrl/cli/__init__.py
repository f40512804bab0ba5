"""The command line: one module per family of verbs; this one joins them and prints errors.

Commands parse, call one function and render. Everything heavy is imported inside commands, so
that `budgetrl --help` answers at once.
"""

import atexit
import contextlib
import errno
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

import budgetrl
from budgetrl.cli import (
    bench as bench_commands,
    diagnose as diagnose_commands,
    doctor as doctor_commands,
    estimate as estimate_commands,
    eval as eval_commands,
    export as export_commands,
    grade as grade_commands,
    probe as probe_commands,
    recipes as recipe_commands,
    replicate as replicate_commands,
    report as report_commands,
    run as run_commands,
    sweep as sweep_commands,
    watch as watch_commands,
)
from budgetrl.cli.look import Command, Group
from budgetrl.cli.output import print_json
from budgetrl.display.output import silence
from budgetrl.errors import BudgetRLError, ExitCode
from budgetrl.garbage import search_seldom

EXIT_HOOKS_S = 5.0
"""What the exit hooks of libraries may take after an error."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

app = typer.Typer(
    name="budgetrl",
    cls=Group,
    help="The most reinforcement learning out of one GPU and a fixed budget.",
    epilog="Start here: budgetrl run quickstart   (a laptop is enough)\n\n"
    "Exit codes: 0 done, 1 failed (the run, the hub, the network), 2 a mistake in what was given, "
    "3 refused, 130 and 143 stopped and saved",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"budgetrl {budgetrl.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,
) -> None:
    pass


for command in (
    run_commands.run,
    run_commands.resume,
    estimate_commands.estimate,
    probe_commands.probe,
    bench_commands.bench,
    replicate_commands.replicate,
    sweep_commands.sweep,
    watch_commands.watch,
    watch_commands.runs,
    diagnose_commands.diagnose,
    eval_commands.eval_,
    report_commands.report,
    report_commands.compare,
    export_commands.export,
    grade_commands.grade,
    doctor_commands.doctor,
):
    app.command(name=command.__name__.rstrip("_"), cls=Command)(command)
app.add_typer(recipe_commands.app, name="recipes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. As the whole process (no arguments) it also ends it.

    Libraries start threads and ask questions: a refusal waits for neither.
    """
    if arguments is not None:
        return _whole_command(arguments)
    if sys.stdin is not None and not sys.stdin.isatty():
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  (for as long as we live)
    search_seldom()
    code = _whole_command(None)
    if code != ExitCode.OK and "torch" in sys.modules:
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    """End the process whatever threads or exit hooks of libraries may still wait for."""
    hooks = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    hooks.start()
    hooks.join(EXIT_HOOKS_S)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _whole_command(arguments: Sequence[str] | None) -> int:
    _open_closed_streams()
    code: int = ExitCode.OK
    try:
        code = _command(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        pass  # the reader has what it wanted (`| head`)
    except OSError as error:
        if error.errno not in FULL:
            raise
        code = ExitCode.FAILED
        where = f"{error.filename}: " if error.filename else ""
        hint = "Free some space, or send the output elsewhere."
        with contextlib.suppress(OSError):
            sys.stderr.write(f"OutputError: {where}no space left for the output. {hint}\n")
    for stream in (sys.stdout, sys.stderr):
        silence(stream)
    return code


def _open_closed_streams() -> None:
    """A standard stream that is closed (`>&-`) is as /dev/null, for child processes too."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free number, so in this order each gets its own.
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, mode))


def _command(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Like --version, --debug and --json work wherever they stand.
    debug, as_json = "--debug" in given, "--json" in given
    if debug:
        given.remove("--debug")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # "?" where there is no UTF-8
            stream.reconfigure(errors="replace")
    streams = sys.stdout, sys.stderr
    try:
        outcome = app(given, prog_name="budgetrl", standalone_mode=False)
        return outcome if isinstance(outcome, int) else ExitCode.OK
    except typer.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:  # how typer and rich say that nobody reads any more
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        sys.stdout, sys.stderr = streams
        raise BrokenPipeError from None
    except BudgetRLError as error:
        if debug:
            traceback.print_exc()
        return _failed(error.name, error.message, error.hint, int(error.exit_code), as_json)
    except typer.TyperException as error:
        hint = "`budgetrl --help` shows all commands."
        context = getattr(error, "ctx", None)
        if context is not None:
            hint = f"`{context.command_path} --help` shows what is possible."
        message = error.format_message()
        if not message:  # nothing but a group of commands was given, and its help is shown
            return ExitCode.USER
        message += "" if message.endswith((".", "?")) else "."
        return _failed("UsageError", message, hint, ExitCode.USER, as_json)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except FileNotFoundError:
        if _in_a_folder():
            raise
        if debug:
            traceback.print_exc()
        gone = "the current folder is gone."
        return _failed("UsageError", gone, "cd to one that exists.", ExitCode.USER, as_json)


def _in_a_folder() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _failed(kind: str, message: str, hint: str, exit_code: int, as_json: bool) -> int:
    if as_json:
        error = {"type": kind, "message": message, "hint": hint, "exit_code": int(exit_code)}
        print_json({"error": error})
    from budgetrl.account.text import scrub  # `--help` does without its patterns

    between = "\n" if "\n" in message else " "
    lines = f"{kind}: {message}{between}{hint}".rstrip().split("\n")
    sys.stderr.write("".join(f"{x if x.isprintable() else scrub(x)}\n" for x in lines))
    return exit_code
