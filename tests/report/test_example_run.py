"""The committed example stays readable: a real run, its evaluations and its report."""

import re
from pathlib import Path

import pytest

from budgetrl.account.ending import differences
from budgetrl.account.evaluated import read_run
from budgetrl.checkpoint_files import damaged_files
from budgetrl.history import read_history
from budgetrl.report.write import write_report
from budgetrl.rundir import open_run
from budgetrl.types import RunStatus

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/example_run"


def test_the_example_is_a_whole_run() -> None:
    run = open_run(EXAMPLE)
    evaluated = read_run(run)
    assert evaluated.status is RunStatus.FINISHED
    assert list(evaluated.notes) == []
    assert evaluated.recipe is not None
    assert evaluated.steps == len(evaluated.history.steps) > 20
    (checkpoint,) = run.checkpoints()
    assert list(damaged_files(checkpoint)) == []


def test_its_recorded_difference_follows_from_its_verdicts() -> None:
    finished = read_history(open_run(EXAMPLE)).finished
    assert finished is not None
    assert finished.difference is not None
    again = differences(EXAMPLE / "evals", finished.difference)
    for suite, recorded in finished.difference.items():
        assert again[suite].pass_at == pytest.approx(recorded.pass_at)
        assert again[suite].samples == recorded.samples


def test_its_report_says_what_the_files_say(tmp_path: Path) -> None:
    write_report([open_run(EXAMPLE)], tmp_path, ["md"])
    fresh, committed = (tmp_path / "report.md").read_text(), EXAMPLE / "report/report.md"
    sentence = re.search(r"\*\*.* points pass@1 on heldout, 95 % interval .*\*\*", fresh)
    assert sentence
    assert sentence[0] in committed.read_text()


def test_it_tells_nothing_of_the_machine() -> None:
    for file in EXAMPLE.rglob("*"):
        if file.suffix in (".json", ".jsonl", ".toml", ".md", ".html"):
            assert not re.search(r"(?<![\w.])/(home|root|tmp|Users)/", file.read_text()), file
