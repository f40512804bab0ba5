"""Several runs become the paper's tables: seeds averaged, ranks side by side, marks where due."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from run_builder import Story, Suite, build_run

from budgetrl.account.evaluated import read_run
from budgetrl.recipe.load import list_recipes, load_recipe
from budgetrl.report.arms import arms_of
from budgetrl.report.paper_tables import table_1, table_2
from budgetrl.report.several import models_of
from budgetrl.report.write import write_report
from budgetrl.rundir import RunDir

MODELS = ("deepscaler", "qwen2.5_instruct", "llama3.2", "qwen2.5_math", "qwen3")
AIME = Suite(30, 16, 0.25, 0.35, ks=(1, 8, 16))
AMC = Suite(40, 16, 0.5, 0.6, ks=(1, 8, 16))


def paper_story(model: str, rank: int, **changed: Any) -> Story:
    """A run of one of the paper's recipes."""
    recipe = load_recipe(f"{model}_r{rank}").recipe
    tables = {
        name: recipe.model_dump(mode="json")[name] for name in ("paper", "expected", "select")
    }
    suites = {"math500": Suite(50, 1, 0.4, 0.5, ks=(1,), every=5)}
    suites |= {"aime24": AIME, "aime25": AIME, "amc23": AMC}
    values = {
        "model": recipe.model.id, "rank": rank, "alpha": 128.0, "steps": 10, "tables": tables,
        "entropy": (0.8, 0.8 - rank / 512), "suites": suites,
    }  # fmt: skip
    return Story(**(values | changed))


@pytest.mark.skipif("deepscaler_r8" not in list_recipes(), reason="no paper recipes")
def test_tables_1_and_2_have_the_papers_shape(tmp_path: Path) -> None:
    runs = [build_run(tmp_path, paper_story(m, r)) for m in MODELS for r in (8, 64, 256)]
    runs += [build_run(tmp_path, paper_story(m, r, seed=2)) for m in MODELS for r in (8, 256)]
    assert len(runs) == 25
    write_report(runs, tmp_path / "out")

    models = models_of(arms_of(map(read_run, runs)))
    first, second = table_1(models), table_2(models)
    assert first is not None
    assert second is not None
    assert list(first.super_head) == [("", 2), ("AIME24", 3), ("AIME25", 3), ("AMC23", 3)]
    assert list(first.head) == ["Model", "config", *["@1", "@8", "@16"] * 3]
    assert len(first.rows) == 5 * 4
    configs = [row[1].text for row in first.rows]
    assert configs[2] == "paper: final, rank 256"
    assert configs[6] == "paper: final, best rank, unstated"
    baseline = [(cell.text, cell.marks) for cell in first.rows[0][2:]]
    assert baseline[0] == ("28.9", "\u2020")
    assert baseline[1] == ("53.6", "")
    assert {text for text, marks in baseline if marks} == {"28.9", "62.5", "45.2", "92.2"}
    assert any("16.6 cannot come from 16 samples of 30" in line for line in first.footnotes)
    assert list(second.head) == ["Model", "", "rank 8", "rank 64", "rank 256"]
    assert [cell.text for cell in second.rows[0][2:]] == ["-6.7", "-2.7", "-27.0"]
    assert [cell.text for cell in second.rows[1][2:]] == ["-2.0", "-15.6", "-62.5"]


def test_seeds_are_averaged_with_an_interval_over_seeds(tmp_path: Path) -> None:
    runs = [build_run(tmp_path, Story(seed=seed, steps=4)) for seed in (1, 2, 3)]
    (arm,) = arms_of(map(read_run, runs))
    gains = [read_run(run).differences["heldout"][1].difference for run in runs]
    gain = arm.gain("heldout", 1)
    assert gain is not None
    assert gain.value == pytest.approx(sum(gains) / 3)
    assert gain.seeds == 3
    assert gain.interval_95 is not None
    assert gain.interval_95[0] < min(gains)
    baseline = arm.passes("heldout", "baseline", 1)
    assert baseline is not None
    own = read_run(runs[0]).evaluation("baseline", "heldout")
    assert own is not None
    assert baseline.interval_95 == own.interval_95[1]  # one base model, not three


def test_seeds_that_agree_exactly_are_not_certain(tmp_path: Path) -> None:
    suites = {"heldout": Suite(12, 2, 0.0, 1.0)}
    runs = [build_run(tmp_path, Story(seed=seed, steps=2, suites=suites)) for seed in (1, 2)]
    (arm,) = arms_of(map(read_run, runs))
    gain = arm.gain("heldout", 1)
    assert gain is not None
    assert (gain.value, gain.seeds, gain.interval_95) == (1.0, 2, None)


def learning_rate(value: float) -> dict[str, Any]:
    return {"schedule": {"learning_rate": value}}


def test_only_seeds_of_one_recipe_and_protocol_are_averaged(tmp_path: Path) -> None:
    same = [Story(steps=2), Story(steps=2, seed=2, name="again", usd_per_hour=1.0)]
    others = [
        Story(steps=2, tables=learning_rate(0.01)),
        Story(steps=2, tables={"data": {"path": "other.jsonl"}}),
        Story(steps=2, temperature=1.0),
    ]
    runs = [build_run(tmp_path, story) for story in (*same, *others)]
    arms = arms_of(map(read_run, runs))
    assert [[run.seed for run in arm.runs] for arm in arms] == [[1, 2], [1], [1], [1]]
    assert len({arm.label for arm in arms}) == 4
    assert "learning_rate 0.01" in arms[1].label


def test_arms_that_are_trained_in_other_ways_say_so_first(tmp_path: Path) -> None:
    made = load_recipe("quickstart_distill").recipe.model_dump(mode="json")
    taught = {name: made[name] for name in ("teacher", "stages", "schedule")}
    runs = [build_run(tmp_path, Story(steps=2, tables=tables)) for tables in ({}, taught)]
    arms = arms_of(map(read_run, runs))
    assert arms[0].apart.startswith("stages grpo, ")
    assert arms[1].apart.startswith("stages distill, ")


def test_another_grader_makes_another_arm(tmp_path: Path) -> None:
    runs = [build_run(tmp_path, Story(steps=2, seed=seed)) for seed in (1, 2)]
    for file in runs[1].path.glob("evals/*/*.json"):
        file.write_text(file.read_text().replace('"exact-1"', '"exact-2"'))
    arms = arms_of(map(read_run, runs))
    assert [arm.apart for arm in arms] == ["grader exact-1", "grader exact-2"]


def test_a_run_named_twice_counts_once_and_a_note_says_so(tmp_path: Path) -> None:
    run, other = (build_run(tmp_path, Story(steps=2, seed=seed)) for seed in (1, 2))
    copy = RunDir(Path(shutil.copytree(run.path, tmp_path / "copy")))
    write_report([run, other, RunDir(run.path), copy], tmp_path / "out")
    assert (
        "2 of the runs were named before, or are copies" in (tmp_path / "out/report.md").read_text()
    )
    found = json.loads((tmp_path / "out/report.json").read_text())["runs"]
    assert [one["run"] for one in found] == [run.name, other.name]


def test_a_cell_says_how_many_seeds_and_samples_it_has(tmp_path: Path) -> None:
    stories = [Story(steps=2, seed=1), Story(steps=2, seed=2), Story(steps=2, seed=3, end=None)]
    runs = [read_run(build_run(tmp_path, story)) for story in stories]
    table = table_1(models_of(arms_of(runs)))
    assert table is not None
    notes = {row[1].text: row[1].note for row in table.rows}
    assert notes["ours: baseline"] == "n = 4, 3 seeds"
    assert notes["ours: final, rank 64"] == "n = 4, 2 seeds"


def test_an_interval_over_two_seeds_stays_within_what_is_possible(tmp_path: Path) -> None:
    runs = [build_run(tmp_path, Story(steps=2, seed=seed)) for seed in (1, 2)]
    (arm,) = arms_of(map(read_run, runs))
    gain = arm.gain("heldout", 1)
    assert gain is not None and gain.interval_95 is not None
    assert -1 <= gain.interval_95[0] < gain.interval_95[1] <= 1


def test_ranks_at_different_scales_are_different_arms(tmp_path: Path) -> None:
    stories = [Story(rank=8, alpha=8.0, steps=2), Story(rank=8, alpha=128.0, steps=2)]
    arms = arms_of(read_run(build_run(tmp_path, story)) for story in stories)
    assert [arm.scale for arm in arms] == [1.0, 16.0]


def test_another_protocol_in_a_column_is_marked(tmp_path: Path) -> None:
    usual = [build_run(tmp_path, Story(rank=rank, steps=2)) for rank in (8, 64)]
    hotter = build_run(tmp_path, Story(rank=256, steps=2, temperature=1.0))
    table = table_1(models_of(arms_of(map(read_run, [*usual, hotter]))))
    assert table is not None
    marked = [row[1].text for row in table.rows if any(cell.marks for cell in row[2:])]
    assert marked == ["ours: final, rank 256"]
    assert "another protocol than the rest of the column (temperature)" in table.footnotes[0]


def test_report_of_several_runs_names_the_unfinished_ones(tmp_path: Path) -> None:
    done = build_run(tmp_path, Story(steps=2))
    crashed = build_run(tmp_path, Story(steps=2, rank=8, end=None))
    write_report([done, crashed], tmp_path / "out")
    html = (tmp_path / "out/report.html").read_text()
    assert f"{crashed.name} has crashed" in html
    assert len(json.loads((tmp_path / "out/report.json").read_text())["runs"]) == 2


def test_a_long_runs_report_is_quick_and_small(tmp_path: Path) -> None:
    run: RunDir = build_run(tmp_path, Story(steps=1000, suites={"heldout": Suite(every=50)}))
    write_report([run])
    assert (run.path / "report/report.html").stat().st_size < 3_000_000
