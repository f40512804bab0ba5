"""`budgetrl compare` sets like against like, and refuses the rest by name."""

import json
from pathlib import Path

import pytest
from run_builder import Story, Suite, build_run

from budgetrl.cli import main
from budgetrl.errors import DataError, ProtocolError
from budgetrl.report.compare import compare


def test_a_run_against_its_own_baseline_is_its_own_difference(tmp_path: Path) -> None:
    run = build_run(tmp_path)
    found = compare(run.path, run.path / "evals/heldout/baseline.json")
    recorded = next(e for e in run.events() if e.kind == "run_finished").difference["heldout"]
    assert found["heldout"][1].difference == pytest.approx(recorded.pass_at[1])
    assert found["heldout"][1].interval_95 == pytest.approx(recorded.interval_95[1])
    back = compare(run.path / "evals/heldout/baseline.jsonl", run.path)
    assert back["heldout"][1].difference == pytest.approx(-recorded.pass_at[1])


def test_json_of_the_command_is_the_contract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = build_run(tmp_path, Story(rank=8))
    b = build_run(tmp_path, Story(rank=256, suites={"heldout": Suite(samples=3, ks=(1, 2))}))
    assert main(["compare", str(a.path), str(b.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"heldout"}
    assert set(found["heldout"]) == {"1"}
    assert set(found["heldout"]["1"]) == {"difference", "interval_95", "samples"}
    assert found["heldout"]["1"]["samples"] == 3


def test_two_protocols_are_refused_and_the_difference_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = build_run(tmp_path)
    b = build_run(tmp_path, Story(temperature=1.0, eval_seed=3))
    assert main(["compare", str(a.path), str(b.path)]) == 2
    shown = capsys.readouterr().err
    assert "temperature (0.6 and 1.0)" in shown
    assert "seed (1000 and 3)" in shown


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    a = build_run(tmp_path)
    other = build_run(tmp_path, Story(suites={"aime24": Suite()}))
    with pytest.raises(ProtocolError, match="no suite in common: heldout and aime24"):
        compare(a.path, other.path)
    crashed = build_run(tmp_path, Story(end=None))
    with pytest.raises(DataError, match="no final evaluation"):
        compare(a.path, crashed.path)
    with pytest.raises(DataError, match="cannot be read"):
        compare(a.path, tmp_path / "nothing.json")
