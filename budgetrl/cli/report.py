"""`budgetrl report` and `budgetrl compare`."""

from pathlib import Path
from typing import Annotated

import typer

from budgetrl.cli.options import Json
from budgetrl.cli.output import print_found


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run directories, or one study or sweep.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for the files; else the run's report/."),
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Any of html,md,json.")
    ] = "html,md,json",
    as_json: Json = False,
) -> None:
    """Write what a run did, cost and achieved, as one page; several runs side by side.

    Works for running, interrupted and crashed runs too, from their files alone.
    """
    from budgetrl.report.write import write_report
    from budgetrl.rundir import open_run
    from budgetrl.study.place import is_study

    wanted = [name.strip() for name in formats.split(",") if name.strip()]
    if len(runs) == 1 and is_study(runs[0]):
        from budgetrl.study.report import write_study_report
        from budgetrl.study.state import open_study

        files = write_study_report(open_study(runs[0]), out, wanted)
    else:
        files = write_report([open_run(run) for run in runs], out, wanted)
    names = [str(file) for file in files]
    print_found(as_json, {"files": names}, names)


def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="A run, an evaluation's .json, or its completions.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="What it is compared with.")],
    as_json: Json = False,
) -> None:
    """Difference A - B in pass@k, paired over the same problems and rounds.

    Evaluations under different protocols are refused.
    """
    from budgetrl.account.outcome import COMPARED, difference_sentence
    from budgetrl.report.compare import compare as compare_evaluations

    found = compare_evaluations(a, b)
    lines = (
        f"{difference_sentence(suite, part, k, COMPARED)} (first {part.samples} samples of each)"
        for suite, by_k in found.items()
        for k, part in by_k.items()
    )
    document = {
        suite: {k: part.to_json() for k, part in by_k.items()} for suite, by_k in found.items()
    }
    print_found(as_json, document, lines)
