"""The user's command at the end of a run (`--on-finish`), such as one that stops the machine."""

import subprocess
import sys
from contextlib import suppress

from budgetrl.rundir import RunDir

STANDARD_ERROR = 2


def run_on_finish(command: str, run: RunDir) -> None:
    """Run a shell command in the run directory; what it prints goes to standard error.

    Not while another process writes the run's events: the run goes on there, and so does not end.
    """
    if run.is_locked():
        return
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    place = run.path if run.path.is_dir() else None
    code = subprocess.run(command, shell=True, cwd=place, stdout=STANDARD_ERROR).returncode
    if code != 0:
        sys.stderr.write(f"--on-finish ended with exit code {code}\n")
