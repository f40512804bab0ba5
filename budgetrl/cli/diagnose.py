"""`budgetrl diagnose`: what is wrong with a run, or with a reward of your own."""

import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from budgetrl.cli.options import Json
from budgetrl.cli.output import print_found
from budgetrl.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from budgetrl.diagnosis.findings import Finding
    from budgetrl.rewards.battery import Attacked, Verdicted
    from budgetrl.rundir import RunDir


def diagnose(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run: going on, finished, interrupted or crashed; else the newest under ./runs.",
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option("--reward", metavar="MODULE:FUNCTION", help="Attack a reward of your own."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE", help="Problems with golds, for --reward."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Say what is wrong with a run, with the evidence and what to do next.

    The rules are those that warn while a run goes on; each looks at the run's numbers alone. With
    --reward it attacks a reward instead: answers that deserve nothing, right ones in other forms.
    """
    if run is not None and reward is not None:
        raise UsageError(
            "give either a run, or --reward MODULE:FUNCTION with --data FILE.",
            hint="For example: budgetrl diagnose runs/NAME",
        )
    if reward is not None:
        return _reward(reward, data, as_json)
    if data is not None:
        raise UsageError(
            "--data is for --reward; a run has its own.",
            hint="Leave it out, or give --reward MODULE:FUNCTION too.",
        )
    return _run(run, as_json)


def _run(place: str | None, as_json: bool) -> int:
    from budgetrl.account.text import counted, updates
    from budgetrl.diagnosis.findings import CAUSES, diagnose as find
    from budgetrl.display.watch import newest_run
    from budgetrl.history import read_history
    from budgetrl.losses import find_losses
    from budgetrl.run_files import read_recipe
    from budgetrl.rundir import open_run

    folder = newest_run() if place is None else open_run(place)
    history = read_history(folder)
    status = folder.status_of(history.finished)
    findings = find(history, read_recipe(folder), status)
    healthy = all(one.severity == "info" for one in findings)
    missing = find_losses(folder, history).sentences()
    document = {
        "run_dir": str(folder.path),
        "status": status,
        "findings": [_with_files(one, folder) for one in findings],
        "healthy": healthy,
        "missing": missing,
    }
    made = history.steps[-1].step if history.steps else 0
    wrong = sum(one.severity != "info" for one in findings)
    said = "no rule finds anything wrong" if healthy else counted(wrong, "finding")
    lines = [f"{folder.name}, {status} after {updates(made)}: {said}."]
    lines += [line for what in missing for line in _wrapped(f"Not seen: {_sentence(what)}", "")]
    for one in findings[:CAUSES]:
        lines += ["", *_shown(one, folder)]
    if others := [f"{one.name} (from update {one.since_step})" for one in findings[CAUSES:]]:
        lines += ["", *_wrapped(f"Also: {', '.join(others)}.", "")]
    print_found(as_json, document, lines)
    return ExitCode.OK


def _with_files(one: "Finding", folder: "RunDir") -> dict[str, Any]:
    values = one.to_json()
    file = folder.completions_file(one.since_step)
    if file.is_file():
        values["evidence"]["completions"] = file.relative_to(folder.path).as_posix()
    return values


def _shown(one: "Finding", folder: "RunDir") -> list[str]:
    when = f"from update {one.since_step} on" if one.rule else f"after update {one.since_step}"
    lines = _wrapped(f"[{one.severity}] {one.name}, {when}: {_sentence(one.says)}", "")
    lines += _wrapped(f"What to do: {_sentence(one.advice)}")
    if one.rule:
        lines += _wrapped(f"Rule: {one.rule}.")
    file = folder.completions_file(one.since_step)
    if file.is_file():
        lines.append(f"  Completions of that update: {file}")
    return lines


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    from budgetrl.account.text import scrub

    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    more = indent or "  "
    return textwrap.wrap(
        scrub(text), width, initial_indent=indent, subsequent_indent=more,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _reward(name: str, data: str | None, as_json: bool) -> int:
    from budgetrl.data.rows import load_problems
    from budgetrl.recipe.schema import Data
    from budgetrl.rewards.battery import attack
    from budgetrl.rewards.own_files import find_function, is_own
    from budgetrl.rewards.pool import GradingPool

    if not is_own(name):
        raise UsageError(
            f"--reward {name}: not MODULE:FUNCTION.", hint="For example: my_rewards:score"
        )
    if data is None:
        raise UsageError("--reward needs problems with golds.", hint="Give --data FILE.")
    if not data.startswith("asset:") and not Path(data).exists():
        raise UsageError(f"--data {data}: no such file.")
    file = find_function(name)
    with GradingPool() as pool:
        pool.start()
        problems = load_problems(Data(path=data), pool.gold_problems).problems
        found = attack(name, file, problems, pool)
    print_found(as_json, found.to_json(), _told(name, found))
    return ExitCode.OK


def _told(name: str, found: "Attacked") -> list[str]:
    lines = [
        f"{name}: {found.cases} cases; right answers get {found.right:.3g}, wrong ones "
        f"{found.wrong:.3g} on average.",
        *_listed("gets credit that it does not deserve", found.false_credit),
        *_listed("is right and gets none", found.missed),
        *_listed("has no value", found.errors),
    ]
    if len(lines) == 1:
        lines.append("No false credit, nothing missed, no errors.")
    return lines


def _listed(what: str, found: "list[Verdicted]") -> list[str]:
    """One line for each kind of case, with an example."""
    from budgetrl.account.text import scrub

    kinds: dict[str, list[Verdicted]] = {}
    for one in found:
        kinds.setdefault(one.case.name, []).append(one)
    return [
        scrub(f"  {kind!r} {what} ({len(ones)} times): {ones[0].why}; such as "
              f"{ones[0].case.completion[:60]!r} for gold {ones[0].case.problem.answer!r}")
        for kind, ones in kinds.items()
    ]  # fmt: skip
