"""A run in stages: SFT, then GRPO, then GRPO with longer answers; killed anywhere, the same run."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from budgetrl.budget import Budget, Limits
from budgetrl.errors import ExitCode
from budgetrl.events import StageEvent
from budgetrl.history import read_history
from budgetrl.ledger import Ledger
from budgetrl.plan import create_run, make_plan
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import MANIFEST, RunDir
from budgetrl.training.log import RunLog, stamp_of
from budgetrl.training.loop import Outcome, train
from budgetrl.training.stopper import Stopper
from budgetrl.types import StopReason

THREE = """
[recipe]
extends = ["quickstart"]
name = "three"
[model]
id = "asset:tiny/mute"
[lora]
rank = 8
dropout = 0.1
[data]
limit = 12
[batch]
prompts_per_step = 2
micro_batch = 8
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
name = "warm"
kind = "sft"
steps = 3
data.path = "asset:tiny/data/worked.jsonl"
data.limit = 40
sft.max_tokens = 128
sft.rows_per_step = 6
sft.micro_batch = 2
gate = { signal_share = 0.001, prompts = 2 }
on_fail = "go_on"

[[stages]]
name = "rl"
kind = "grpo"
steps = 3
sampling.max_tokens = 24

[[stages]]
name = "long"
kind = "grpo"
steps = 2
sampling.max_tokens = 32
schedule.learning_rate = 5e-4
"""
SAME = ("loss", "grad_norm", "entropy", "tokens", "learning_rate", "reward_mean", "stage")


class Killed(BaseException):
    """What a kill leaves on the disk, without a second process."""


class KilledAt(Stopper):
    """Ends an attempt at the n-th time that somebody asks whether to stop."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.left = asked

    def requested(self) -> bool:
        self.left -= 1
        if self.left == 0:
            raise Killed
        return super().requested()


def attempt(run: RunDir, sets: tuple[str, ...] = (), stopper: Stopper | None = None) -> Outcome:
    recipe = load_recipe(run.path.parent / "three.toml", list(sets)).recipe
    ledger = Ledger(Budget(3600.0), time.monotonic, time.monotonic())
    number = read_history(run).attempt + 1
    with run.writer(stamp_of(ledger, number)) as writer:
        return train(run, recipe, RunLog(writer, ledger, {}), stopper or Stopper())


def make(folder: Path, sets: tuple[str, ...] = ()) -> RunDir:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "three.toml").write_text(THREE)
    source = Path(local_path("asset:tiny/data/heldout.jsonl"))
    (folder / "short.jsonl").write_text("".join(source.read_text().splitlines(True)[:8]))
    loaded = load_recipe(folder / "three.toml", list(sets))
    return create_run(make_plan(loaded, Limits(3600)), folder, ["budgetrl"])


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = make(tmp_path_factory.mktemp("straight"))
    outcome = attempt(run)
    assert outcome == (StopReason.COMPLETED, ExitCode.OK)
    return run


def series(run: RunDir) -> list[tuple[Any, ...]]:
    return [tuple(getattr(step, name) for name in SAME) for step in read_history(run).steps]


def adapter(run: RunDir, step: int) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.checkpoint_path(step) / "adapter_model.safetensors")


def test_updates_are_numbered_through_and_say_their_stage(straight: RunDir) -> None:
    steps = read_history(straight).steps
    assert [step.step for step in steps] == list(range(1, 9))
    assert [step.stage for step in steps] == ["warm"] * 3 + ["rl"] * 3 + ["long"] * 2
    warm, first = steps[0], steps[3]
    assert (warm.groups, warm.completions, warm.reward_mean) == (None, 6, None)
    assert warm.token_accuracy is not None and 0 < warm.token_accuracy < 1
    assert first.groups == 2 and first.token_accuracy is None
    assert max(step.completion_tokens_max for step in steps[3:6]) <= 24


def test_each_boundary_is_told_and_saved(straight: RunDir) -> None:
    told = [(e.name, e.state, e.step) for e in straight.events() if isinstance(e, StageEvent)]
    assert told == [
        *(("warm", "started", 0), ("warm", "ended", 3), ("warm", "gate", 3)),
        *(("rl", "started", 3), ("rl", "ended", 6)),
        *(("long", "started", 6), ("long", "ended", 8)),
    ]
    saved = {c.step: c.reason for c in read_history(straight).checkpoints}
    assert {3: "stage", 6: "stage", 8: "stage"}.items() <= saved.items()
    (gate,) = (e for e in straight.events() if isinstance(e, StageEvent) and e.state == "gate")
    assert (gate.groups, gate.stage, gate.decision) == (2, "warm", "go_on")
    assert gate.signal_share == (gate.groups_with_signal or 0) / 2
    assert "gate" not in {e.kind for e in straight.events()}, "told once"


def test_the_stages_problems_go_on_and_the_manifest_tells_the_demonstrations(
    straight: RunDir,
) -> None:
    asked = [
        {json.loads(line)["problem_id"] for line in straight.completions_file(step).open()}
        for step in range(4, 9)
    ]
    assert len(set().union(*asked)) == 10, "no problem twice before all were asked"
    told = straight.read_json(MANIFEST)["stages"]["warm"]
    assert (told["rows"], told["used"], told["dropped"]) == (40, 40, [])


@pytest.mark.parametrize("asked", [6, 26])
def test_killed_anywhere_it_makes_the_same_updates(
    straight: RunDir, tmp_path: Path, asked: int
) -> None:
    run = make(tmp_path)
    with pytest.raises(Killed):
        attempt(run, stopper=KilledAt(asked))
    reached = len(read_history(run).steps)
    assert attempt(run).stop_reason is StopReason.COMPLETED
    assert series(run) == series(straight), f"killed after {reached} updates"
    before, now = adapter(straight, 8), adapter(run, 8)
    assert before.keys() == now.keys()
    assert all(torch.equal(before[name], now[name]) for name in before)
    told = [(e.name, e.state) for e in read_history(run).stages]
    assert told == [(e.name, e.state) for e in read_history(straight).stages]


def test_a_gate_that_is_not_passed_extends_the_stage_once_and_stops(tmp_path: Path) -> None:
    never = ("stages.warm.gate.signal_share=1.0", "stages.warm.on_fail=stop")
    run = make(tmp_path, never)
    assert attempt(run, never).stop_reason is StopReason.NO_SIGNAL
    history = read_history(run)
    assert [(e.state, e.step) for e in history.stages if e.name == "warm"] == [
        *(("started", 0), ("ended", 3), ("gate", 3), ("extended", 3), ("ended", 6), ("gate", 6)),
    ]
    decided = [event.decision for event in history.stages if event.state == "gate"]
    assert decided == ["extend", "stop"]
    assert [step.stage for step in history.steps] == ["warm"] * 6
    assert history.finished is not None and history.finished.final, "judged all the same"


def test_a_stage_learns_from_the_models_own_right_answers(tmp_path: Path) -> None:
    own = (
        *("stages.warm.sft.source=self", "stages.warm.sft.samples=8", "stages.warm.data.limit=12"),
        *("stages.warm.gate=unset", "stages.warm.steps=2", "stages.rl.steps=1"),
        *("stages.long.steps=1", "batch.prompts_per_step=12"),
    )
    run = make(tmp_path, own)
    assert attempt(run, own).stop_reason is StopReason.COMPLETED
    rows = [json.loads(line) for line in (run.path / "traces" / "warm.jsonl").open()]
    assert rows, "guesses are right now and then"
    for row in rows:
        assert row["completion"].endswith(f"\\boxed{{{row['answer']}}}")
        assert row["completion"].startswith("<think>")
    assert [step.stage for step in read_history(run).steps] == ["warm", "warm", "rl", "long"]
    assert {span.name for span in read_history(run).spans} >= {"traces", "train"}
