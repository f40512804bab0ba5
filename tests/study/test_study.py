"""Studies: how a budget is split over arms, what is claimed, what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from run_builder import Story, build_run

from budgetrl.budget import MIN_UPDATES, Limits
from budgetrl.cli import main
from budgetrl.errors import UsageError
from budgetrl.recipe.base import AlphaPolicy
from budgetrl.recipe.load import load_recipe
from budgetrl.study.arms import FAMILIES, arms_of, family_of
from budgetrl.study.claims_report import _whole_run
from budgetrl.study.plan import plan_sweep
from budgetrl.study.report import study_document, write_study_report
from budgetrl.study.specs import Asked
from budgetrl.study.state import StudyDir, Sweep, open_study

FIXED = (AlphaPolicy.FIXED,)


def budgetrl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "budgetrl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def asked(family: str, *ranks: int, split: Any = "time") -> Asked:
    grid = {"lora.rank": list(ranks), "lora.alpha_policy": ["fixed"]}
    return Asked(family=family, grid=grid, split=split)


def gpu_plan(hours: float, split: Any = "time") -> Sweep:
    specs = arms_of(FAMILIES["qwen3"], (8, 64, 256), 1, FIXED)
    wanted = asked("qwen3", 8, 64, 256, split=split)
    return plan_sweep(wanted, specs, Limits(hours * 3600), gpu="A40", dry_run=True)


# --- the plan


def test_equal_time_is_what_every_arm_gets_besides_the_one_baseline() -> None:
    made = gpu_plan(24)
    baselines = [arm.row.baseline_s for arm in made.arms]
    assert baselines[0] > 0 and baselines[1:] == [0.0, 0.0]
    own = {
        round(arm.row.budget_s - baseline, 6)
        for arm, baseline in zip(made.arms, baselines, strict=True)
    }
    assert len(own) == 1
    whole = sum(arm.row.budget_s for arm in made.arms) + made.report_s
    assert whole == pytest.approx(made.budget.wall_s)
    assert made.total_s <= made.budget.wall_s


def test_equal_steps_are_the_most_that_every_arm_can_make() -> None:
    made = gpu_plan(24, "steps")
    steps = {arm.spec.load().recipe.schedule.stop_after_steps for arm in made.arms}
    assert steps == {arm.row.planned_steps for arm in made.arms} and min(steps) > MIN_UPDATES
    seconds = [arm.row.budget_s for arm in made.arms]
    assert seconds[2] - made.arms[2].row.baseline_s > seconds[1], "rank 256 is slower"
    assert sum(seconds) + made.report_s <= made.budget.wall_s + 1e-6


def test_any_recipe_can_be_replicated_within_its_own_budget(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[recipe]\nextends = ["quickstart"]\nname = "mine"\n[lora]\nalpha_policy = "4x_rank"\n'
    )
    family = family_of(str(mine))
    assert (family.name, family.ranks, family.budget) == ("mine", (8, 32, 128), None)
    arms = arms_of(family, (8, 32), 1, [family.alpha])
    made = [arm.load().recipe for arm in arms]
    assert [(r.lora.rank, r.lora.resolved_alpha, r.name) for r in made] == [
        (8, 32.0, "mine"),
        (32, 128.0, "mine"),
    ]
    assert arms[0].label == "mine, rank 8, alpha_policy 4x_rank, seed 1"
    assert family_of("deepscaler_8k").recipes == ("deepscaler_8k",)
    assert family_of("deepscaler_8k").ranks == (8, 64, 256)
    study = plan_sweep(asked("mine", 8, 32), arms, Limits())
    assert study.budget.wall_s == pytest.approx(made[0].budget.hours * 3600)


def test_an_arms_plan_is_what_an_estimate_of_its_budget_says() -> None:
    arm = gpu_plan(24).arms[0].row
    done = budgetrl(
        "estimate", "qwen3_r8", "--gpu", "A40", "--hours", f"{arm.budget_s:.3f}s", "--json"
    )
    estimated = json.loads(done.stdout)
    assert arm.planned_steps == estimated["steps"]["affordable"]
    assert arm.step_s == pytest.approx(estimated["seconds"]["step"])


def test_seeds_come_last_and_alpha_policies_make_arms_of_equal_scale() -> None:
    both = (AlphaPolicy.FIXED, AlphaPolicy.EQUAL_RANK)
    arms = arms_of(FAMILIES["deepscaler"], (8, 256), 2, both)
    assert [arm.seed for arm in arms] == [1] * 4 + [2] * 4
    scales = [arm.load().recipe.lora.scale for arm in arms[:4]]
    assert scales == [16.0, 0.5, 1.0, 1.0]
    other = arms_of(FAMILIES["qwen3"], (32,), 1, FIXED)[0]
    assert (other.recipe, other.load().recipe.lora.rank) == ("qwen3_r64", 32)


# --- a study directory


@pytest.fixture
def study(tmp_path: Path) -> StudyDir:
    """Three arms on a CPU recipe: one finished, one crashed, one never begun."""
    specs = arms_of(FAMILIES["quickstart"], (8, 32, 128), 1, FIXED)
    made = plan_sweep(asked("quickstart", 8, 32, 128), specs, Limits(3600))
    study = StudyDir.create(tmp_path / "study", made)
    study.update(0, run=build_run(study.path, Story(rank=8, steps=80)).name)
    study.update(1, run=build_run(study.path, Story(rank=32, end=None)).name)
    study.update(2, error="BudgetError: nothing is left")
    return study


def test_a_study_is_read_back_and_goes_on_as_it_began(study: StudyDir) -> None:
    again = open_study(study.path)
    assert [again.status(arm) for arm in again.trials] == ["finished", "crashed", "failed"]
    assert again.trials == study.trials
    assert again.paid_s() == pytest.approx(study.paid_in_arms_s())
    with pytest.raises(UsageError, match="another configuration") as caught:
        again.check(asked("quickstart", 8))
    assert "budgetrl resume" in caught.value.hint


def test_a_studys_report_names_claims_arms_and_what_failed(study: StudyDir) -> None:
    files = write_study_report(study)
    page = (study.path / "report" / "report.html").read_text()
    assert study.path / "report" / "report.md" in files
    for text in ("supported", "nothing is left", "has crashed", "alpha/r"):
        assert text in page
    document = study_document(study)
    assert [arm["status"] for arm in document["arms"]] == ["finished", "crashed", "failed"]
    assert set(document["baseline"]) == {"heldout"}
    assert document["table1"]["rows"] and document["claims"]
    for row in document["table1"]["rows"]:
        assert all(cell is None or isinstance(cell["value"], float) for cell in row[2:]), row
    assert document["arms"][0]["lora_scale"] == 8.0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("qwen4",), 2, "Did you mean qwen3"),
        (("absent.toml",), 2, "is no family, and no recipe"),
        (("qwen3", "--gpu", "A40", "--hours", "1", "--plan"), 3, "not even one arm fits"),
        (("qwen3", "--gpu", "A40", "--hours", "4", "--plan"), 3, "2 of 3 arms fit"),
        (("qwen3", "--ranks", "8,12", "--gpu", "A40", "--plan"), 2, "rank"),
        (("quickstart", "--ranks", "8,8"), 2, "--ranks"),
        (("quickstart", "--alpha", "big"), 2, "equal_rank"),
        (("qwen3",), 3, "quickstart"),
    ],
)
def test_bad_studies_are_refused_and_leave_nothing(
    arguments: tuple[str, ...], code: int, words: str, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    done = budgetrl("replicate", *arguments, "--out", str(out))
    assert done.returncode == code, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()


def test_a_plan_tells_its_arms_apart_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["replicate", "miniature", "--ranks", "8", "--plan"]) == 0
    told = capsys.readouterr().out
    assert [name for name in ("generalist", "cold", "specialist") if name not in told] == []


@pytest.mark.parametrize(
    ("recipe", "updates"),
    [("qwen3_r8", None), ("quickstart", 60), ("laptop_smollm2", 40)],
)
def test_a_whole_run_is_the_papers_the_recipes_or_what_the_plan_gave(
    recipe: str, updates: int | None
) -> None:
    study: Any = SimpleNamespace(
        trials=[SimpleNamespace(row=SimpleNamespace(planned_steps=n)) for n in (40, 35)]
    )
    runs = [SimpleNamespace(recipe=load_recipe(recipe).recipe)]
    model: Any = SimpleNamespace(arms=[SimpleNamespace(runs=runs)])
    assert _whole_run(study, model) == updates
