"""Slips of a first day: each ends with exit 2 or 3 and one sentence that says how to go on."""

import json
from pathlib import Path

import pytest
from run_builder import Story, build_run

from budgetrl.cli import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own, with one run in it."""
    monkeypatch.chdir(tmp_path)
    row = '{"problem": "Compute 1+1.", "answer": "2"}\n'
    (tmp_path / "twice.jsonl").write_text(2 * row)
    (tmp_path / "array.jsonl").write_text(f"[{row.strip()}]\n")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "runs").mkdir()
    return build_run(tmp_path / "runs", Story()).path


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run quickstart --dry-run --usd 1,50", "1.50"),
        ("run quickstart --dry-run --set schedule.learning_rate=1e9", "less than or equal to 1"),
        ("run quickstart --dry-run --set data.path=array.jsonl", "named .json"),
        ("grade empty.jsonl", 'one JSON object with texts as "completion" and "gold"'),
        ("grade twice.jsonl", 'one JSON object with texts as "completion" and "gold"'),
        ("grade missing.jsonl", "JSON lines"),
        ("export quickstart --to merged --out new", "budgetrl run quickstart"),
        ("compare twice.jsonl empty.jsonl", "twice.jsonl: no completions of an evaluation"),
        ("diagnose --data twice.jsonl", "--reward"),
        ("eval runs/{run} --recipe quikstart", "is of a run"),
        ("resume runs/{run}/recipe.toml", "Did you mean runs/{run}?"),
    ],
)
def test_a_slip_says_how_to_go_on(
    here: Path, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    assert main(line.format(run=here.name).split()) == 2
    assert says.replace("{run}", here.name) in capsys.readouterr().err
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[recipe]\nextends = "quickstart"\n', 'extends = ["quickstart"]'),
        ('[recipe]\nextends = ["quikstart"]\n', "Did you mean quickstart"),
        ("[data]\npath = train.jsonl\n", "text stands in quotes"),
        ('[recipe]\nextends = ["quickstart"]\n[rewards]\nname = "format"\n', "[[rewards]]"),
        (
            '[recipe]\nextends = ["quickstart"]\n[[eval]]\nsuite = "heldout"\nk = 9\n',
            "[[eval]] heldout k = 9: is a list, such as [9]",
        ),
        (
            '[recipe]\nextends = ["quickstart"]\n[[eval]]\nsuite = "heldout"\nsamples = "4"\n',
            "samples = '4': is neither a number nor a table",
        ),
    ],
)
def test_a_slip_in_a_recipe_says_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    assert main(["run", str(tmp_path / "mine.toml"), "--dry-run"]) == 2
    assert says in capsys.readouterr().err


def test_diagnose_looks_at_the_newest_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_dir"] == str(here.resolve())


def test_diagnose_without_any_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["diagnose"]) == 2
    assert "there is no run under runs" in capsys.readouterr().err


def test_a_plan_names_problems_rewards_and_suites(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ("--set", "data.path=twice.jsonl", "--set", "rewards.format.weight=0")
    assert main(["run", "quickstart", "--dry-run", *sets]) == 0
    rows = dict(
        line.strip().split("  ", 1)
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  ") and "  " in line.strip()
    )
    assert rows["problems"].strip().startswith("1, without 1 that say the same as an earlier one")
    assert rows["problems"].endswith("an update draws 16, so the same ones again and again")
    assert rows["rewards"].strip() == "1 accuracy"
    assert rows["judged by"].strip() == "heldout"


def test_a_cpu_recipe_on_a_named_card_says_what_is_planned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["estimate", "quickstart", "--gpu", "A40"]) == 0
    told = capsys.readouterr()
    assert "runs on a CPU" in told.err
    assert "math500" not in told.out and "the paper's 24 h are training" not in told.out
