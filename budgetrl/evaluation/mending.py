"""Damaged evaluations of a run: looked for before anything is paid, set aside, made good.

An evaluation whose `.json` cannot be read is renamed to `<name>.json.damaged`. Its completions stay
where the name says which weights gave them (baseline, step_N), so that the evaluation is added up
from them again; those of a final evaluation go aside too, and it is made again.
"""

from collections.abc import Iterator
from pathlib import Path

from budgetrl.errors import DataError, NewerFormatError
from budgetrl.evaluation.rows import StoredEval, load_eval

RUN_EVALUATIONS = ("baseline", "final", "step_*")
"""Names of the evaluations that a run makes itself."""


def refuse_newer(evals: Path) -> None:
    """What another version wrote is not damaged, and must not be set aside.

    Raises:
        NewerFormatError: a newer budgetrl wrote one of the run's evaluations.
    """
    for file in _files(evals, ".json"):
        try:
            load_eval(file, with_rows=False)
        except NewerFormatError:
            raise
        except DataError:
            continue


def set_aside_damaged(evals: Path) -> list[str]:
    """Set damaged evaluations of a run aside; says what was found, one sentence each.

    Args:
        evals: the run's folder of suites, in which nobody else writes.
    """
    found = []
    for file in _files(evals, ".json"):
        name = f"{file.parent.name}/{file.name}"
        try:
            stored = load_eval(file)
        except DataError:
            _aside(file)
            if file.stem == "final":
                _aside(file.with_suffix(".jsonl"))
                found.append(f"evals/{name} is damaged: it is made again")
            else:
                found.append(f"evals/{name} is damaged: it is added up from its completions again")
        else:
            found += _cut(stored)
    for rows in _files(evals, ".jsonl"):
        # Nothing says any more which weights gave these.
        lost = rows.stem == "final" and not rows.with_suffix(".json").exists()
        if lost or rows.is_dir():
            _aside(rows)
    return found


def set_aside(file: Path) -> bool:
    """Rename an evaluation if it cannot be read; its completions stay. Whether it was so.

    Args:
        file: the `.json`, whose name says which weights it is of.

    Raises:
        NewerFormatError: a newer budgetrl wrote it.
    """
    try:
        if file.exists():
            load_eval(file, with_rows=False)
    except NewerFormatError:
        raise
    except DataError:
        _aside(file)
        return True
    return False


def _cut(stored: StoredEval) -> list[str]:
    recorded, held = stored.result.samples if stored.result else 0, stored.rounds()
    if held >= recorded:
        return []
    name = f"{stored.path.parent.name}/{stored.completions_file.name}"
    return [
        f"evals/{name} holds {held} complete of {recorded} recorded samples of each problem: "
        "what is missing is made again"
    ]


def _files(evals: Path, suffix: str) -> Iterator[Path]:
    for name in RUN_EVALUATIONS:
        yield from sorted(evals.glob(f"*/{name}{suffix}"))


def _aside(file: Path) -> None:
    aside, number = file.with_name(f"{file.name}.damaged"), 1
    while aside.exists() and (aside.is_dir() or file.is_dir()):  # which nothing replaces
        number += 1
        aside = file.with_name(f"{file.name}.{number}.damaged")
    if file.exists():
        file.replace(aside)
