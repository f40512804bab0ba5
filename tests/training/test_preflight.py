"""The rehearsal that runs on a GPU before the baseline, here on a CPU with a memory of our own."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from budgetrl.budget import Budget
from budgetrl.engine.plain import PlainEngine
from budgetrl.errors import HardwareError
from budgetrl.events import RunWarning
from budgetrl.ledger import Ledger
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.rewards.pool import GradingPool
from budgetrl.rundir import MANIFEST, RunDir
from budgetrl.training import free_memory
from budgetrl.training.callbacks import StepCallback
from budgetrl.training.log import RunLog, stamp_of
from budgetrl.training.preflight import fit_micro_batch, rehearse
from budgetrl.training.scoring import _TRIED
from budgetrl.training.setup import build_follower, prepare
from budgetrl.training.stopper import Stopper

SMALL = (
    *("batch.prompts_per_step=4", "grpo.num_generations=4", "sampling.max_tokens=12"),
    *("lora.rank=4", "schedule.stop_after_steps=1", "signal.skip=off", "engine.threads=1"),
)


class Rows:
    """A memory that holds so many completions of full length in a pass of the trainer."""

    def __init__(self, model: Any, limit: int) -> None:
        self.limit = limit
        self.seen: list[tuple[int, int]] = []
        self.scored: list[tuple[int, int]] = []
        """Without gradients."""
        self.drawn_beside: list[bool] = []
        """For each pass that draws, whether gradients were in memory."""
        model.get_base_model().base_model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("past_key_values") is not None:
            self.drawn_beside.append(any(p.grad is not None for p in model.parameters()))
            return
        shape = tuple((kwargs["input_ids"] if "input_ids" in kwargs else args[0]).shape)
        if shape in ((1, _TRIED), (1, 2 * _TRIED)):  # what the model is tried on
            return
        (self.seen if torch.is_grad_enabled() else self.scored).append(shape)
        if shape[0] > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")


@contextmanager
def workbench(
    folder: Path,
    recipe: Recipe,
    build: Any = build_follower,
    limit: int = 1000,
    run: RunDir | None = None,
) -> Iterator[Any]:
    run = run or RunDir.create(folder, "preflight")
    ledger = Ledger(Budget(600.0), time.monotonic, time.monotonic(), 0.0)
    engine: Any = PlainEngine.open(recipe)
    memory = Rows(engine.model, limit)
    stopper = Stopper()
    with run.writer(stamp_of(ledger, 1)) as writer, GradingPool() as pool:
        log = RunLog(writer, ledger, {})
        prepared = prepare(run, recipe, engine, pool, log, stopper)
        yield run, engine, memory, lambda: build(prepared, recipe)


def one_update(follower: StepCallback) -> dict[str, torch.Tensor]:
    assert follower.begin()
    follower.trainer.train()
    return {n: p.detach() for n, p in follower.trainer.model.named_parameters() if "lora" in n}


def test_on_a_cpu_the_longest_micro_batch_must_fit_the_memory_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is the kernel's own: allocations fail, and nobody is killed."""
    wide = ["batch.prompts_per_step=32", "batch.micro_batch=256", "sampling.max_tokens=64"]
    recipe = load_recipe("quickstart", ["engine.threads=1", *wide]).recipe
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with workbench(tmp_path, recipe, fit_micro_batch) as (run, _, memory, build):
        monkeypatch.setattr(free_memory, "free_bytes", lambda: 120 << 20)
        used = build().recipe.batch.micro_batch
        assert 1 < used < 256
        assert [rows for rows, _ in memory.seen] == [256 >> n for n in range(len(memory.seen))]
        assert memory.seen[-1] == (used, 64 + 64)
    warned = [event.message for event in run.events() if isinstance(event, RunWarning)]
    assert warned[-1].startswith(
        "micro-batches of 256 completions of full length do not fit this machine's memory: "
    )
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_free_memory_is_part_of_what_the_machine_has() -> None:
    free = free_memory.free_bytes()
    assert free is not None
    assert 0 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_micro_batch_that_does_not_fit_is_halved_once_and_said(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", [*SMALL, "batch.micro_batch=16"]).recipe
    with workbench(tmp_path, recipe, rehearse, limit=5) as (run, engine, memory, build):
        follower = build()
        assert [rows for rows, _ in memory.seen] == [16, 8, 4]
        assert {columns for _, columns in memory.seen} == {64 + 12}, "the longest there can be"
        assert follower.recipe.batch.micro_batch == 4
        assert follower.trainer.args.per_device_train_batch_size == 4
        assert follower.trainer.args.gradient_accumulation_steps == 4
        assert run.read_json(MANIFEST)["micro_batch"] == 4
        assert not list(run.path.glob(".tmp-*"))
        assert all(parameter.grad is None for parameter in engine.model.parameters())
    warned = [event for event in run.events() if isinstance(event, RunWarning)]
    assert [event.code for event in warned] == ["micro_batch"]


def test_every_pass_of_an_update_is_rehearsed_and_halved_and_then_generation(
    tmp_path: Path,
) -> None:
    sets = ["batch.micro_batch=8", "batch.updates_per_rollout=2", "grpo.beta=0.1"]
    recipe = load_recipe("quickstart", [*SMALL, *sets]).recipe
    with workbench(tmp_path, recipe, rehearse, limit=5) as (_, engine, memory, build):
        assert build().recipe.batch.micro_batch == 4
        longest = 64 + 12
        assert memory.scored == [(8, longest), (4, longest), (4, longest)], "the old, the reference"
        assert memory.seen == [(4, longest)]
        assert memory.drawn_beside[0] is False and memory.drawn_beside[-1] is True
        assert all(parameter.grad is None for parameter in engine.model.parameters())


def test_a_rehearsed_training_is_the_same_training(tmp_path: Path) -> None:
    sets = ["batch.micro_batch=4", "engine.gradient_checkpointing=true"]
    recipe = load_recipe("quickstart", [*SMALL, *sets]).recipe
    made = []
    for one in (build_follower, rehearse):
        with workbench(tmp_path, recipe, one) as (*_, build):
            made.append(one_update(build()))
    assert any(bool(weight.any()) for name, weight in made[0].items() if "lora_B" in name)
    for name, weight in made[0].items():
        assert torch.equal(weight, made[1][name])


def test_one_completion_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    sets = ["batch.micro_batch=2", "grpo.beta=0.1"]  # with TRL's second adapter for the KL term
    recipe = load_recipe("quickstart", [*SMALL, *sets]).recipe
    with (
        workbench(tmp_path, recipe, rehearse, limit=0) as (*_, build),
        pytest.raises(HardwareError, match="one completion of full length"),
    ):
        build()


def test_a_trainer_knows_every_end_token_and_no_other_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL sets these for vLLM, and would take a second trainer for one of several by them."""
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    sets = ["batch.micro_batch=4", 'sampling.stop=["<think>"]']
    recipe = load_recipe("quickstart", [*SMALL, *sets]).recipe
    with workbench(tmp_path, recipe, build_follower) as (*_, build):
        trainer = build().trainer
    assert trainer.accelerator.distributed_type == "NO"
    assert trainer.eos_token_ids == [283, 286]
