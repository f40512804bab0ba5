"""`compare`: two runs or evaluations against each other, or an error that says why not."""

from os import PathLike
from pathlib import Path

from budgetrl.errors import DataError, ProtocolError
from budgetrl.evaluation.compare import describe_differences, difference
from budgetrl.evaluation.rows import StoredEval, load_eval
from budgetrl.rundir import open_run
from budgetrl.types import Difference


def compare(a: str | PathLike[str], b: str | PathLike[str]) -> dict[str, dict[int, Difference]]:
    """Paired difference a - b in pass@k, by suite and k.

    Args:
        a: a run (its final evaluations; the baseline where nothing was trained), or either file
            of an evaluation.
        b: the same.

    Raises:
        RunDirError, DataError: a side is missing, or holds no evaluation.
        ProtocolError: no suite in common, or the protocols differ; names the fields.
    """
    side_a, side_b = _evaluations(Path(a)), _evaluations(Path(b))
    suites = [suite for suite in side_a if suite in side_b]
    if not suites:
        raise ProtocolError(
            f"{a} and {b} have no suite in common: {_names(side_a)} and {_names(side_b)}."
        )
    differing = {
        suite: describe_differences(side_a[suite].protocol, side_b[suite].protocol)
        for suite in suites
        if side_a[suite].protocol != side_b[suite].protocol
    }
    if differing:
        listed = "; ".join(f"{suite}: {fields}" for suite, fields in differing.items())
        raise ProtocolError(
            f"{a} and {b} must not be compared, their protocols differ in {listed}.",
            hint="Evaluate both under one protocol with `budgetrl eval`.",
        )
    return {suite: difference(side_a[suite], side_b[suite]) for suite in suites}


def _evaluations(path: Path) -> dict[str, StoredEval]:
    """The evaluations that a path stands for, by suite."""
    if not path.is_dir():
        stored = load_eval(path)
        return {stored.protocol.suite: stored}
    run = open_run(path)
    finished = run.last_finish()
    untrained = finished is not None and finished.steps == 0 and finished.final is not None
    name = "baseline" if untrained else "final"
    files = run.eval_files(name)
    if not files:
        raise DataError(
            f"{path}: this run has no final evaluation.",
            hint=f"Make one with `budgetrl eval {path}`, or name a file under {path}/evals.",
        )
    found = [load_eval(file) for file in files]
    return {stored.protocol.suite: stored for stored in found}


def _names(side: dict[str, StoredEval]) -> str:
    return ", ".join(side) or "none"
