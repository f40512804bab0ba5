"""The whole path as a user takes it: `budgetrl run quickstart` in its own process, on this CPU."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import peft
import pytest
import torch

from budgetrl.events import Phase
from budgetrl.history import History, read_history
from budgetrl.rundir import RunDir, open_run
from budgetrl.types import RunStatus

BUDGET_S = 240.0
STEPS = 5
"""Few enough to fit the budget on a busy machine; the full training is in the bench."""


class Done(NamedTuple):
    """A finished run and how it looked from outside."""

    result: dict[str, Any]
    run: RunDir
    history: History
    wall_s: float


def budgetrl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "budgetrl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Done:
    out = tmp_path_factory.mktemp("runs")
    start = time.monotonic()
    options = ["--hours", f"{BUDGET_S:.0f}s", "--out", str(out), "--json"]
    done = budgetrl("run", "quickstart", *options, "--set", f"schedule.stop_after_steps={STEPS}")
    wall_s = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    run = open_run(result["run_dir"])
    return Done(result, run, read_history(run), wall_s)


def test_the_budget_holds_from_process_start_to_process_end(quickstart: Done) -> None:
    assert quickstart.wall_s <= BUDGET_S
    assert quickstart.result["spent"]["wall_s"] <= BUDGET_S
    assert quickstart.result["stop_reason"] == "completed"


def test_it_makes_updates_and_compares_before_with_after(quickstart: Done) -> None:
    result = quickstart.result
    assert result["steps"] == STEPS
    assert result["difference"]["heldout"]["samples"] >= 1
    low, high = result["difference"]["heldout"]["interval_95"]["1"]
    before, after = (result[when]["heldout"]["pass_at"]["1"] for when in ("baseline", "final"))
    samples = {result[when]["heldout"]["samples"] for when in ("baseline", "final")}
    if len(samples) == 1:
        assert result["difference"]["heldout"]["pass_at"]["1"] == pytest.approx(after - before)
    assert low < result["difference"]["heldout"]["pass_at"]["1"] < high


def test_the_final_json_is_the_contracts(quickstart: Done) -> None:
    wanted = (
        "schema_version run_dir recipe stop_reason steps spent budget baseline final difference"
    )
    assert set(wanted.split()) | {"best_checkpoint", "attempts"} <= set(quickstart.result)
    assert set(quickstart.result["spent"]) == {"wall_s", "train_s", "usd"}
    assert quickstart.result["spent"]["usd"] is None, "a laptop has no price"


def test_phases_of_updates_add_up_to_the_wall(quickstart: Done) -> None:
    steps = quickstart.history.steps
    inside = sum(sum(step.phase_s.values()) for step in steps[1:])
    saves = sum(c.seconds for c in quickstart.history.checkpoints if c.step < steps[-1].step)
    wall = steps[-1].elapsed_s - steps[0].elapsed_s
    assert inside + saves == pytest.approx(wall, rel=0.02, abs=0.1)


def test_every_update_has_its_completions_and_a_full_event(quickstart: Done) -> None:
    for step in quickstart.history.steps:
        file = quickstart.run.completions_file(step.step)
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert len(rows) == step.completions == 128
        assert sum(step.grader.values()) == 128
        assert sum(row["tokens"] for row in rows) == step.tokens
        assert step.entropy_kind == "exact"
        assert step.entropy is not None and step.entropy > 0
        gap = step.sampling_logp_diff_mean
        assert gap is not None and gap < 1e-4, "sampler and trainer are one model"
        assert step.peak_rss_gib is not None and 0.2 < step.peak_rss_gib < 8


def test_phases_are_announced_and_ended(quickstart: Done) -> None:
    phases = [event for event in quickstart.run.events() if isinstance(event, Phase)]
    started = [event.name for event in phases if event.state == "started"]
    ended = [event.name for event in phases if event.state == "ended"]
    assert sorted(started) == sorted(ended)
    assert started[:5] == ["imports", "model", "data", "preflight", "baseline"]
    assert quickstart.run.status() is RunStatus.FINISHED


def test_the_report_says_the_outcome(quickstart: Done) -> None:
    report = quickstart.run.path / "report"
    assert (report / "report.html").stat().st_size > 1000
    assert "pass@1" in (report / "report.md").read_text()


def test_the_trained_adapter_loads_with_peft_and_differs_from_the_base(quickstart: Done) -> None:
    checkpoint = quickstart.run.path / quickstart.result["best_checkpoint"]
    model = peft.AutoPeftModelForCausalLM.from_pretrained(str(checkpoint)).eval()
    tokens = torch.arange(40, 60)[None]
    with torch.no_grad():
        trained = model(tokens).logits
        with model.disable_adapter():
            base = model(tokens).logits
    assert not torch.allclose(trained, base, atol=1e-3)


def test_a_finished_run_is_told_again_not_run_again(quickstart: Done) -> None:
    again = budgetrl("resume", str(quickstart.run.path), "--json", "--display", "none")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["steps"] == quickstart.result["steps"]
    assert len(read_history(quickstart.run).steps) == len(quickstart.history.steps)


def test_runs_lists_it(quickstart: Done) -> None:
    listed = json.loads(budgetrl("runs", "--out", str(quickstart.run.path.parent), "--json").stdout)
    assert [row["status"] for row in listed] == ["finished"]
    assert Path(listed[0]["run_dir"]) == quickstart.run.path


def test_data_without_any_signal_ends_the_run_with_advice(tmp_path: Path) -> None:
    data, suite = tmp_path / "dead.jsonl", tmp_path / "suite.jsonl"
    for file, plus in ((data, 3), (suite, 4)):
        rows = [{"problem": f"Compute {i}+{plus}.", "answer": "-77777"} for i in range(2, 9)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = [f"data.path={data}", f"eval.heldout.path={suite}", "eval.heldout.samples=1"]
    sets += ["eval.heldout.k=[1]", "batch.prompts_per_step=4", "batch.micro_batch=32"]
    options = [part for text in sets for part in ("--set", text)]
    done = budgetrl(
        *("run", "quickstart", "--out", str(tmp_path / "runs"), "--hours", "10m"),
        *("--json", "--display", "none", *options),
    )
    result = json.loads(done.stdout)
    assert (done.returncode, result["stop_reason"], result["steps"]) == (0, "no_signal", 3)
    assert result["final"]["heldout"]["pass_at"]["1"] == 0.0
    warned = read_history(open_run(result["run_dir"])).warnings["no_signal"]
    assert "0 % of the groups" in warned.message and "budgetrl probe" in warned.message
