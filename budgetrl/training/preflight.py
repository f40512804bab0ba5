"""A rehearsal before the first paid evaluation: what would fail after hours fails now.

    follower = preflight(run, recipe, engine, bench, log, stopper)

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
from safetensors.torch import load_file

from budgetrl.engine.base import Request, TrainableEngine, sample_seed
from budgetrl.errors import HardwareError, TrainingError, is_out_of_memory
from budgetrl.recipe.schema import Recipe
from budgetrl.rewards.registry import check_faults
from budgetrl.rundir import MANIFEST, RunDir
from budgetrl.training.callbacks import StepCallback
from budgetrl.training.checkpoints import load_adapter_weights, save_adapter
from budgetrl.training.free_memory import within_free_memory
from budgetrl.training.log import RunLog
from budgetrl.training.scoring import OLD, REFERENCE, keep_promises, promise
from budgetrl.training.setup import Workbench, build_follower
from budgetrl.training.stopper import Stopper
from budgetrl.training.trainer import training_sampling

FEW_TOKENS = 8
"""Generated per completion."""
STATE_BYTES = {"adamw": 8, "adamw_8bit": 2}
"""Of optimiser state per trained parameter."""


def preflight(
    run: RunDir,
    recipe: Recipe,
    engine: TrainableEngine,
    bench: Workbench,
    log: RunLog,
    stopper: Stopper,
) -> StepCallback:
    """The trainer, inside the callback that follows it, after a rehearsal.

    Raises:
        HardwareError: one completion of full length is too much for the memory.
        RewardError, TrainingError: grading, or saving the adapter, does not work.
    """
    rehearsal = fit_micro_batch if recipe.engine.device == "cpu" else rehearse
    with log.phase("preflight"):
        follower = rehearsal(run, recipe, engine, bench, log, stopper)
    try_prompts(follower.trainer, bench)
    return follower


def try_prompts(trainer: Any, bench: Workbench) -> None:
    """The trainer's prompts of the first update are those that evaluations would use.

    Raises:
        TrainingError: they are not.
    """
    problems = bench.sampler.batch(0)
    texts = [bench.renderer.text(problem) for problem in problems]
    trainer.check_prompts(problems, trainer._tokenize_prompts(texts)[0])


def rehearse(
    run: RunDir,
    recipe: Recipe,
    engine: TrainableEngine,
    bench: Workbench,
    log: RunLog,
    stopper: Stopper,
) -> StepCallback:
    """Generation, saving, the longest micro-batch, and generation beside what it leaves in memory.

    Raises:
        HardwareError: the sampler and the trainer's state do not fit together.
    """
    try_generation(recipe, engine, bench, stopper)
    try_saving(engine.model, run.path)
    follower = fit_micro_batch(run, recipe, engine, bench, log, stopper)
    try:
        with training_state(follower.trainer, recipe):
            try_generation(recipe, engine, bench, stopper)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise HardwareError(
            "the GPU's memory does not hold the sampler beside gradients and optimiser state.",
            hint="Leave engine.gpu_memory_utilization out, lower engine.max_num_seqs, or set "
            'optimizer.name = "adamw_8bit".',
        ) from error
    return follower


def fit_micro_batch(
    run: RunDir,
    recipe: Recipe,
    engine: TrainableEngine,
    bench: Workbench,
    log: RunLog,
    stopper: Stopper,
) -> StepCallback:
    """The trainer with the largest micro-batch, of the recipe's or smaller, that the memory holds.

    Raises:
        HardwareError: it does not hold one completion.
    """
    wanted = recipe.batch.micro_batch
    memory = "this machine's memory" if recipe.engine.device == "cpu" else "the GPU's memory"
    while True:
        follower = build_follower(run, recipe, engine, bench, log, stopper)
        if fits(follower.trainer, recipe):
            break
        smaller = recipe.smaller_micro_batch()
        if smaller is None:
            raise HardwareError(
                f"one completion of full length does not fit {memory} in training.",
                hint="Lower sampling.max_tokens or prompt.max_tokens, or take a smaller model; "
                "`budgetrl estimate --all-gpus` names larger GPUs.",
            )
        recipe = recipe.with_micro_batch(smaller)
    used = recipe.batch.micro_batch
    run.write_json(MANIFEST, (run.read_json(MANIFEST) or {}) | {"micro_batch": used})
    if used != wanted:
        log.warn(
            "micro_batch",
            f"micro-batches of {wanted} completions of full length do not fit {memory}: "
            f"{used} instead; the same updates up to rounding, slower",
        )
    return follower


def try_generation(
    recipe: Recipe, engine: TrainableEngine, bench: Workbench, stopper: Stopper
) -> None:
    """A few tokens of as many completions as an update has, and their rewards.

    Raises:
        RewardError: they cannot be graded.
    """
    problems = [
        problem for problem in bench.sampler.batch(0) for _ in range(recipe.grpo.num_generations)
    ]
    requests = [
        Request(p.id, bench.renderer.text(p), bench.renderer.ids(p), i, sample_seed(0, p.id, i))
        for i, p in enumerate(problems)
    ]
    sampling = training_sampling(recipe, min(FEW_TOKENS, recipe.sampling.max_tokens))
    made = engine.policy.generate(requests, sampling, stopper.requested)
    done = [(one, p) for one, p in zip(made, problems, strict=True) if one is not None]
    check_faults(
        bench.reward(
            [one.text for one, _ in done],
            [problem.answer for _, problem in done],
            [one.num_tokens for one, _ in done],
        )
    )


def try_saving(model: Any, folder: Path) -> None:
    """The adapter on the disk is the one in memory, and can be read back.

    Raises:
        OSError: the disk is full or gone.
        TrainingError: it is another one.
    """
    import peft

    held = peft.get_peft_model_state_dict(model)
    with tempfile.TemporaryDirectory(dir=folder, prefix="preflight-") as name:
        save_adapter(model, Path(name))
        saved = load_file(Path(name) / "adapter_model.safetensors")
        load_adapter_weights(model, Path(name))
    same = held.keys() == saved.keys() and all(
        torch.equal(saved[key], value.detach().cpu()) for key, value in held.items()
    )
    if not same:
        raise TrainingError("the adapter that was saved is not the one in memory.")


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
    size = sum(p.numel() for p in trained) * STATE_BYTES[recipe.optimizer.name]
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
    inputs = _longest_inputs(trainer, recipe)
    with trainer.accelerator.autocast():
        keep_promises(trainer, [inputs], lambda: False)
        loss = trainer.compute_loss(model, inputs)
    trainer.accelerator.backward(loss)


def _longest_inputs(trainer: Any, recipe: Recipe) -> dict[str, torch.Tensor]:
    rows, device = recipe.batch.micro_batch, trainer.accelerator.device
    # Unsloth tells padding by its token.
    token = 0 if trainer.processing_class.pad_token_id else 1
    prompt = torch.full((rows, recipe.prompt.max_tokens), token, device=device)
    completion = torch.full((rows, recipe.sampling.max_tokens), token, device=device)
    inputs = {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": completion,
        "completion_mask": torch.ones_like(completion),
        "advantages": torch.ones(rows, device=device),
        "num_items_in_batch": torch.tensor(float(completion.numel()), device=device),
    }
    wanted = {REFERENCE: recipe.grpo.beta > 0, OLD: recipe.optimizer_steps > 1}
    passes = [key for key, needed in wanted.items() if needed]
    return inputs | {key: promise(prompt, completion.shape[1])[0] for key in passes}
