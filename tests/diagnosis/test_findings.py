"""What `budgetrl diagnose` says of a run that ended before its time, and in which order."""

import json
import shutil
from pathlib import Path

import pytest

from budgetrl.account.evaluated import read_run
from budgetrl.cli import main
from budgetrl.diagnosis.findings import diagnose
from budgetrl.events import Error
from budgetrl.history import History
from budgetrl.recipe.load import load_recipe
from budgetrl.report.document import Listing
from budgetrl.report.sections import run_document
from budgetrl.rundir import open_run
from budgetrl.types import RunStatus

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "example_run"


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The example run as a kill after update 14 leaves it, its accuracy lost since update 8."""
    run = tmp_path / "killed"
    shutil.copytree(EXAMPLE, run)
    (run / "result.json").unlink()
    lines = []
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["kind"] == "step" and event["step"] > 8:
            event |= {"accuracy_mean": 0.05, "reward_mean": 0.1}
        lines.append(json.dumps(event))
        if event["kind"] == "step" and event["step"] == 14:
            break
    (run / "events.jsonl").write_text("\n".join(lines) + "\n")
    return run


def test_a_killed_run_is_told_of_with_what_was_wrong_before(
    killed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(killed)]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].startswith("killed, crashed after 14 updates: ")
    heads = [line for line in lines if line.startswith("[")]
    assert heads[0].startswith("[stop] crashed, after update 14: its processes ended")
    assert heads[1].startswith("[stop] accuracy_fell, from update ")
    assert "What to do: `budgetrl resume`" in text
    assert all(len(line) <= 100 for line in lines if str(killed) not in line)
    assert main(["diagnose", str(killed), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], document["healthy"]) == ("crashed", False)


def test_a_report_says_near_its_top_what_went_wrong_and_a_healthy_one_does_not(
    killed: Path,
) -> None:
    document = run_document(read_run(open_run(str(killed))))
    sections = {section.title: section for section in document.sections}
    assert list(sections)[:3] == ["At a glance", "What went wrong", "Outcome"]
    listing = sections["What went wrong"].blocks[0]
    assert isinstance(listing, Listing)
    assert any("(accuracy_fell)" in text and "What to do" in text for _, text in listing.items)
    healthy = run_document(read_run(open_run(str(EXAMPLE))))
    assert "What went wrong" not in [section.title for section in healthy.sections]


def test_an_error_says_why_a_run_ended() -> None:
    recipe, history = load_recipe("quickstart").recipe, History()
    assert diagnose(history, recipe) == []
    [crashed] = diagnose(history, recipe, RunStatus.CRASHED)
    assert crashed.name == "crashed" and "begins anew" in crashed.advice
    history.errors.append(Error(type="ModelError", message="no such file", hint="Look."))  # type: ignore[call-arg]
    assert [one.name for one in diagnose(history, recipe, RunStatus.CRASHED)] == ["error"]
