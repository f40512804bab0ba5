"""Processes of budgetrl that begin warm: forked from one that has torch and its family imported.

    begin_warm(environment)      from now on `python -m budgetrl...` of this process and of all that
                                 come from it is forked, and not a new interpreter

Nothing but the imports is saved: command line, environment, standard streams, signals, session and
exit code are as after an exec, and every process is one of its own.
"""

import atexit
import importlib
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

WARM = ("budgetrl", "budgetrl.training")
"""Modules that are run as programs."""
IMPORTS = (
    "budgetrl.cli",
    "budgetrl.training.loop",
    "budgetrl.engine.plain",
    "budgetrl.report.plots",
)


class WarmPopen(subprocess.Popen[Any]):
    """As `Popen`; a Python program of budgetrl takes the place of the exec."""

    def __init__(self, args: Sequence[str], **options: Any) -> None:
        if not isinstance(args, str) and list(args[:2]) == [sys.executable, "-m"]:
            _, _, module, *arguments = args
            if module in WARM:
                kept = options.get("pass_fds", ())
                environment = options.get("env") or dict(os.environ)
                options["preexec_fn"] = partial(_become, module, arguments, environment, kept)
        super().__init__(args, **options)


def begin_warm(environment: Mapping[str, str]) -> None:
    """Import everything, and fork from now on.

    Args:
        environment: what libraries are to find when they are imported.
    """
    os.environ.update(environment)
    for name in IMPORTS:
        importlib.import_module(name)
    subprocess.Popen = WarmPopen  # type: ignore[misc]


def _become(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], kept: Collection[int]
) -> NoReturn:
    """Be the program, in a child between fork and exec."""
    try:
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in kept:
                with suppress(OSError):  # the folder's own
                    os.close(int(name))
        atexit._clear()  # what is to happen at this process's end is not that one's to do
        os.environ.clear()
        os.environ.update(environment)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  (for as long as we live)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.argv = [module, *arguments]
        code: Any = 0
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)
    finally:
        os._exit(70)
