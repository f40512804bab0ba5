"""A rehearsal before the first paid evaluation: what would fail after hours fails now.

    follower = preflight(prepared, recipe)

Full-concurrency generation of a few tokens, their grading, the adapter saved and read back; then,
with gradients and optimiser state in memory, every pass of an update at the longest prompt and
completion, and generation once more. Where the passes are too much, the micro-batch is halved, once
and for all. It is done at every attempt, because memory is shorter on resume (unsloth #3542), and
changes nothing of the training.
On a CPU the longest micro-batch alone is tried, within the memory that is free. Everywhere the
trainer is asked for the prompts of the first update.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from budgetrl.errors import HardwareError, TrainingError, is_out_of_memory
from budgetrl.recipe.schema import Recipe, StageKind
from budgetrl.recipe.training_tables import OPTIMIZER_BYTES
from budgetrl.rewards.registry import check_faults
from budgetrl.training.callbacks import StepCallback
from budgetrl.training.checkpoints import (
    load_trained,
    save_trained,
    saved_weights,
    trained_weights,
)
from budgetrl.training.drawing import answers
from budgetrl.training.free_memory import within_free_memory
from budgetrl.training.kinds import longest_pass, rows_per_pass, with_fewer_rows
from budgetrl.training.leftovers import kept_clean
from budgetrl.training.progress import Progress
from budgetrl.training.setup import Prepared, build_follower

FEW_TOKENS = 8
"""Generated per completion."""


def preflight(prepared: Prepared, recipe: Recipe) -> StepCallback:
    """The trainer, inside the callback that follows it, after a rehearsal.

    Raises:
        HardwareError: one completion of full length is too much for the memory.
        RewardError, TrainingError: grading, or saving the adapter, does not work.
    """
    rehearsal = fit_micro_batch if recipe.engine.device == "cpu" else rehearse
    now = prepared.progress
    with prepared.log.phase("preflight"):
        for index in range(now.index + 1, len(recipe.stages)):
            # Later stages are tried first: what is left in memory is the trainer that is used.
            later = prepared.at(Progress(recipe.stages[index], index))
            with kept_clean(prepared.engine.model):
                prepared.recipes[index] = rehearsal(later, later.recipe).recipe
        follower = rehearsal(prepared, prepared.recipe)
        prepared.recipes[now.index] = follower.recipe
    if now.kind is StageKind.GRPO:
        try_prompts(follower.trainer, prepared)
    return follower


def try_prompts(trainer: Any, prepared: Prepared) -> None:
    """The trainer's prompts of the first update are those that evaluations would use.

    Raises:
        TrainingError: they are not.
    """
    problems = prepared.sampler.batch(0)
    texts = [prepared.renderer.text(problem) for problem in problems]
    trainer.check_prompts(problems, trainer._tokenize_prompts(texts)[0])


def rehearse(prepared: Prepared, recipe: Recipe) -> StepCallback:
    """Generation, saving, the longest micro-batch, and generation beside what it leaves in memory.

    Raises:
        HardwareError: the sampler and the trainer's state do not fit together.
    """
    if prepared.progress.kind is StageKind.SFT:
        try_saving(prepared.engine.model, prepared.run.path)
        return fit_micro_batch(prepared, recipe)
    try_generation(prepared, recipe)
    try_saving(prepared.engine.model, prepared.run.path)
    follower = fit_micro_batch(prepared, recipe)
    try:
        with training_state(follower.trainer, recipe):
            try_generation(prepared, recipe)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise HardwareError(
            "the GPU's memory does not hold the sampler beside gradients and optimiser state.",
            hint="Leave engine.gpu_memory_utilization out, lower engine.max_num_seqs, or set "
            'optimizer.name = "adamw_8bit".',
        ) from error
    return follower


def fit_micro_batch(prepared: Prepared, recipe: Recipe) -> StepCallback:
    """The trainer with the largest micro-batch, of the recipe's or smaller, that the memory holds.

    Raises:
        HardwareError: it does not hold one completion.
    """
    kind = prepared.progress.kind
    wanted = rows_per_pass(recipe, kind)
    memory = "this machine's memory" if recipe.engine.device == "cpu" else "the GPU's memory"
    while True:
        follower = build_follower(prepared, recipe)
        if fits(follower.trainer, recipe):
            break
        smaller = with_fewer_rows(recipe, kind)
        if smaller is None:
            limits = "sft.max_tokens" if kind is StageKind.SFT else "sampling.max_tokens"
            raise HardwareError(
                f"one completion of full length does not fit {memory} in training.",
                hint=f"Lower {limits} or prompt.max_tokens, or take a smaller model; "
                "`budgetrl estimate --all-gpus` names larger GPUs.",
            )
        recipe = smaller
    used, run = rows_per_pass(recipe, kind), prepared.run
    if kind is not StageKind.SFT:
        run.note(micro_batch=used)
    if used != wanted:
        prepared.log.warn(
            "micro_batch",
            f"micro-batches of {wanted} completions of full length do not fit {memory}: "
            f"{used} instead; the same updates up to rounding, slower",
        )
    return follower


def try_generation(prepared: Prepared, recipe: Recipe) -> None:
    """A few tokens of as many completions as an update has, and their rewards.

    Raises:
        RewardError: they cannot be graded.
    """
    tokens = min(FEW_TOKENS, recipe.sampling.max_tokens)
    problems, stopped = prepared.sampler.batch(0), prepared.stopper.requested
    samples = recipe.grpo.num_generations
    drawn = answers(prepared, problems, samples, "preflight", stopped, tokens)
    check_faults([one.breakdown for one in drawn])


def try_saving(model: Any, folder: Path) -> None:
    """What was trained is on the disk as it is in memory, and can be read back.

    Raises:
        OSError: the disk is full or gone.
        TrainingError: it is another one.
    """
    held = trained_weights(model)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as name:
        save_trained(model, Path(name))
        saved = saved_weights(model, Path(name))
        load_trained(model, Path(name))
    same = held.keys() <= saved.keys() and all(
        torch.equal(saved[key], value.detach().cpu()) for key, value in held.items()
    )
    if not same:
        raise TrainingError("the weights that were saved are not those in memory.")


def fits(trainer: Any, recipe: Recipe) -> bool:
    """Whether the memory is enough for forward and backward at full length."""
    limit = within_free_memory() if recipe.engine.device == "cpu" else nullcontext()
    try:
        with limit, training_state(trainer, recipe):
            longest_passes(trainer, recipe)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        # What TRL noted of these passes must not enter the first update's averages.
        trainer._metrics["train"].clear()
    return True


@contextmanager
def training_state(trainer: Any, recipe: Recipe) -> Iterator[None]:
    """Gradients, and as much memory as the optimiser's state, as in the middle of a training."""
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    size = sum(p.numel() for p in trained) * OPTIMIZER_BYTES[recipe.optimizer.name]
    try:
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        # From here on held by the optimiser; it does not exist yet.
        ballast = torch.empty(size, dtype=torch.uint8, device=trainer.accelerator.device)
        yield
        del ballast
    finally:
        for parameter in trainer.model.parameters():
            parameter.grad = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def longest_passes(trainer: Any, recipe: Recipe) -> None:
    """Every pass of an update over one micro-batch of the longest prompts and completions."""
    model = trainer.model
    if recipe.engine.gradient_checkpointing:
        model.gradient_checkpointing_enable()  # which train() would do
    getattr(model, "for_training", model.train)()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.accelerator.backward(longest_pass(trainer, recipe, trainer.parts.progress.kind))
