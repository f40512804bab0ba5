"""A distillation that is killed goes on to the same bits, and tells of its teacher."""

from pathlib import Path

import pytest
import test_stages as stages
import torch

from budgetrl.history import read_history
from budgetrl.report.write import write_report
from budgetrl.rundir import RunDir
from budgetrl.types import StopReason

DISTIL = """
[recipe]
extends = ["quickstart_distill"]
name = "three"
[lora]
rank = 8
dropout = 0.1
[data]
limit = 12
[batch]
prompts_per_step = 2
micro_batch = 4
[sampling]
max_tokens = 24
[checkpoint]
every_steps = 2
[entropy]
prompts = 0
[[eval]]
suite = "heldout"
path = "short.jsonl"
samples = 1
k = [1]
[[stages]]
name = "distill"
kind = "distill"
steps = 5
"""
LAST, MANY = 5, 10**9


@pytest.fixture(autouse=True)
def its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "THREE", DISTIL)


def taught(run: RunDir) -> list[tuple[float | None, float | None]]:
    return [(one.kl_teacher, one.top1_agreement) for one in read_history(run).steps]


def test_killed_anywhere_it_makes_the_same_updates(tmp_path: Path) -> None:
    straight = stages.make(tmp_path / "straight")
    never = stages.KilledAt(MANY)
    assert stages.attempt(straight, stopper=never).stop_reason is StopReason.COMPLETED
    assert len(taught(straight)) == LAST
    assert all(kl is not None and kl > 0 for kl, _ in taught(straight))
    run = stages.make(tmp_path / "killed")
    with pytest.raises(stages.Killed):
        stages.attempt(run, stopper=stages.KilledAt(3 * (MANY - never.left) // 5))
    reached = len(read_history(run).steps)
    assert 0 < reached < LAST
    assert stages.attempt(run).stop_reason is StopReason.COMPLETED
    assert stages.series(run) == stages.series(straight), f"killed after {reached} updates"
    assert taught(run) == taught(straight)
    before, now = stages.adapter(straight, LAST), stages.adapter(run, LAST)
    assert before.keys() == now.keys()
    assert all(torch.equal(before[name], now[name]) for name in before)


def test_answers_that_are_all_wrong_teach_all_the_same_and_the_report_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GRPO has nothing to learn from them and ends after three such updates."""
    monkeypatch.setattr(stages, "THREE", DISTIL.replace("max_tokens = 24", "max_tokens = 3"))
    run = stages.make(tmp_path)
    assert stages.attempt(run).stop_reason is StopReason.COMPLETED
    history = read_history(run)
    assert [step.groups_with_signal for step in history.steps] == [0] * LAST
    assert all(step.entropy_kind == "exact" and step.entropy for step in history.steps)
    assert "no_signal" not in history.warnings
    write_report([run])
    page = (run.path / "report" / "report.md").read_text()
    assert r"Teacher: asset:tiny/quickstart with adapter asset:tiny/teacher, float32" in page
    assert "Loss: reverse KL to the teacher on the model's own answers" in page
    for curve in ("kl_teacher", "top1_agreement", "entropy", "length"):
        assert f"figures/curve_{curve}.svg" in page
    assert "signal" not in page.partition("## The bill")[0]
