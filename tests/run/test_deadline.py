"""Ends that no budget moves: --until, a batch job's end, and what they make of a budget."""

import os
import stat
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from budgetrl.budget import Budget, Limits
from budgetrl.cli import main
from budgetrl.deadline import End, end_of
from budgetrl.errors import BudgetError, UsageError
from budgetrl.recipe.load import load_recipe
from budgetrl.supervise.resume import new_budget

NOW = datetime(2026, 11, 30, 17, 0).timestamp()


def left(until: str | None, environment: dict[str, str] | None = None) -> float:
    end = end_of(until, environment or {}, NOW, age_s=2.0)
    assert end is not None
    return end.wall_s


def test_times_are_read_as_people_write_them() -> None:
    assert left("18:30") == pytest.approx(2 + 5400)
    assert left("16:00") == pytest.approx(2 + 23 * 3600)
    assert left("2026-11-30T17:10:30") == pytest.approx(2 + 630)
    assert left(str(int(NOW) + 60)) == pytest.approx(62)
    assert end_of(None, {}, NOW, 2.0) is None
    for text in ("soon", "25:00", "2026-11-30T16:00", "12"):
        with pytest.raises(UsageError, match="--until"):
            left(text)


def test_the_sooner_of_until_and_the_job_counts_and_says_so() -> None:
    job = {"SLURM_JOB_END_TIME": str(int(NOW) + 3600), "SLURM_JOB_ID": "7"}
    end = end_of(None, job, NOW, 2.0)
    assert end is not None and end.source == "scheduler"
    assert "SLURM_JOB_END_TIME" in end.says and "1 h 00 m" in end.says
    assert left("17:30", job) == pytest.approx(2 + 1800)
    assert left("19:00", job) == pytest.approx(2 + 3600)


def test_an_older_slurm_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "squeue"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def answer(line: str) -> End | None:
        squeue.write_text(f'#!/bin/sh\n[ "$*" = "-h -j 42 -o %e" ] && echo "{line}"\n')
        squeue.chmod(squeue.stat().st_mode | stat.S_IXUSR)
        return end_of(None, {"SLURM_JOB_ID": "42"}, NOW, 0.0)

    end = answer("2026-11-30T18:00:00")
    assert end is not None and end.wall_s == pytest.approx(3600) and "squeue" in end.says
    assert answer("N/A") is None
    assert end_of(None, {"SLURM_JOB_ID": "43"}, NOW, 0.0) is None
    assert end_of(None, {"SLURM_JOB_ID": "$(reboot)"}, NOW, 0.0) is None


def test_an_end_shortens_a_budget_and_never_lengthens_it() -> None:
    recipe = load_recipe("quickstart").recipe  # 4 minutes, 20 s of grace
    short, long = End(120.0, "scheduler", "x"), End(7200.0, "scheduler", "x")
    assert Limits(end=long).budget_for(recipe, None) == Limits().budget_for(recipe, None)
    capped = Limits(end=short).budget_for(recipe, None)
    assert capped is not None and (capped.wall_s, capped.source) == (100.0, "scheduler")
    explicit = Limits(3600.0, end=short).budget_for(recipe, None)
    assert explicit is not None and explicit.wall_s == 100.0
    free = Limits(60.0, end=short).budget_for(recipe, None)
    assert free is not None and (free.wall_s, free.source) == (60.0, "command line")
    without = recipe.model_copy(
        update={"budget": recipe.budget.model_copy(update={"hours": None, "usd": None})}
    )
    alone = Limits(end=short).budget_for(without, None)
    assert alone is not None and alone.wall_s == 100.0
    with pytest.raises(BudgetError, match="20 s are kept"):
        Limits(end=End(15.0, "scheduler", "x")).budget_for(recipe, None)


def test_a_resumed_run_has_what_is_left_of_both() -> None:
    attempt: Any = SimpleNamespace(budget=Budget(1000.0), paid_s=300.0, grace_s=20.0)
    end = End(220.0, "scheduler", "x")
    assert new_budget(attempt, Limits(end=end)).wall_s == 500.0
    assert new_budget(attempt, Limits(3600.0, end=end)).wall_s == 500.0
    assert new_budget(attempt, Limits(100.0, end=end)).wall_s == 400.0
    assert new_budget(attempt, Limits(end=replace(end, wall_s=9e9))) == attempt.budget


def test_the_command_says_it_first_and_plans_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import time

    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 100))
    assert main(["run", "quickstart", "--dry-run", "--hours", "24"]) in (0, 3)
    shown = capsys.readouterr()
    assert "24 h" not in shown.out
    assert main(["run", "quickstart", "--dry-run", "--until", "yesterday"]) == 2
    assert "--until 'yesterday' is no time" in capsys.readouterr().err
