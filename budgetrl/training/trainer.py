"""TRL's `GRPOTrainer` with budgetrl's rows, clocks and stops: one mixin for every engine.

    trainer = build_trainer(parts, max_steps)    the class is made from trl's, patched or not
    trainer.train()                              TRL's own loop, loss and optimiser

The mixin swaps in the sampler's problems, with the prompts of the renderer that evaluations use,
hands generation to the engine, leaves out rows that teach nothing, times the phases, and raises
`StepAborted` between micro-batches when the run has to stop. It changes no loss: every correction
goes into advantages.
"""

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import torch

from budgetrl.engine.base import (
    SamplingSpec,
    completion_of,
    sample_seed,
)
from budgetrl.errors import TrainingError
from budgetrl.recipe.schema import EngineName, Recipe
from budgetrl.training.checkpoints import load_trained
from budgetrl.training.rates import RateCallback
from budgetrl.training.recorder import StepRecord, has_signal, is_constant
from budgetrl.training.scoring import (
    REFERENCE_ADAPTER,
    keep_promises,
    promise,
    refuse_counted_padding,
    works_by_pieces,
)
from budgetrl.training.signal import (
    LIVE,
    WINDOW,
    Batch,
    padding_share,
    repack,
    row_share,
    swap_groups,
    zero_gradient_loss,
)
from budgetrl.training.stage import StageMixin, TrainerParts, open_trainer
from budgetrl.training.stopper import StepAborted
from budgetrl.training.trl_args import grpo_arguments
from budgetrl.types import Problem

MANY_LOGITS = 1 << 24
"""Of a micro-batch: 64 MiB in float32. Fewer are computed at once, which takes less time."""


class BudgetMixin(StageMixin):
    """Overrides of `GRPOTrainer`."""

    _buffered_inputs: Any
    _rolling_out = False
    record_class = StepRecord
    by_pieces = False
    """Whether the vocabulary's projection is applied in pieces, and again in the backward pass, as
    TRL does beside Liger kernels."""

    @property
    def record(self) -> StepRecord:
        """Of the newest rolled-out batch."""
        assert self.parts.record is not None
        return self.parts.record

    def _generate_and_score_completions(self, inputs: Sequence[Any]) -> Batch:
        """The sampler's problems of this step instead of the placeholder rows."""
        parts, step = self.parts, self.rollouts
        torch.manual_seed(sample_seed(parts.recipe.seed, "step", step))
        parts.record = self.record_class(step + 1, parts.recipe.grpo.num_generations)
        number = parts.progress.batch_of(step)
        batch = self._roll_out(parts.sampler.batch(number))
        self.record.slots = list(range(len(self.record.problems)))
        for draw in range(1, (parts.recipe.signal.resample_rounds or 0) + 1):
            batch = self._resample(batch, number, draw)
        device, rows = batch["advantages"].device, len(batch["advantages"])
        signal = parts.recipe.signal
        if signal.skip != "off":
            live = self.record.live_rows(by_accuracy=signal.skip == "accuracy")
            if signal.keep_rows is not None:
                scale = parts.recipe.grpo.scale_rewards
                kept, advantages = self.record.down_sample(signal.keep_rows, scale)
                batch["advantages"] = torch.tensor(advantages).to(batch["advantages"])
                live = [a and b for a, b in zip(live, kept, strict=True)]
            batch[LIVE] = torch.tensor(live, device=device)
        # Groups stay whole: each optimiser step takes its share of the prompts, in their order.
        batch[WINDOW] = torch.arange(rows, device=device) // parts.recipe.completions_per_update
        return batch

    def _roll_out(self, problems: Sequence[Problem]) -> Batch:
        """Completions, rewards and advantages of some problems; noted in the record."""
        parts, record = self.parts, self.record
        first = len(record.breakdowns)
        record.problems += problems
        size = record.group_size
        texts = [parts.renderer.text(problem) for problem in problems]
        rows = [{"prompt": text} for text in texts for _ in range(size)]
        self._rolling_out = True
        try:
            with parts.clock.time("other"):
                batch: Batch = super()._generate_and_score_completions(rows)  # type: ignore[misc]
        finally:
            self._rolling_out = False
        scored = zip(batch["prompt_ids"].tolist(), batch["prompt_mask"].tolist(), strict=True)
        self.check_prompts(problems, [[*compress(ids, mask)] for ids, mask in scored])
        groups = record.groups()[first // size :]
        constant = [is_constant(group) for group in groups for _ in range(size)]
        # Equal rewards teach nothing; what float32 leaves of their mean is noise.
        batch["advantages"] = batch["advantages"].masked_fill(
            torch.tensor(constant, device=batch["advantages"].device), 0.0
        )
        record.advantages += batch["advantages"].tolist()
        return batch

    def _resample(self, batch: Batch, step: int, draw: int) -> Batch:
        """Swap groups without signal for fresh prompts, as far as those have signal."""
        parts, record = self.parts, self.record
        size, slots = record.group_size, record.slots
        dead = [i for i, group in enumerate(slots) if not has_signal(record.groups()[group])]
        if not dead or parts.rollout_over():
            return batch
        first = len(record.problems)
        fresh = self._roll_out(parts.sampler.batch(step, draw)[: len(dead)])
        alive = [i for i in range(first, len(record.problems)) if has_signal(record.groups()[i])]
        into: list[int] = []
        out_of: list[int] = []
        for slot, group in zip(dead, alive, strict=False):
            record.replaced.add(slots[slot])
            slots[slot] = group
            into += range(slot * size, (slot + 1) * size)
            out_of += range((group - first) * size, (group - first + 1) * size)
        record.replaced |= set(range(first, len(record.problems))) - set(alive[: len(dead)])
        return swap_groups(batch, fresh, into, out_of) if into else batch

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Repacks and scores a fresh block of micro-batches before the first of them is used."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)  # type: ignore[misc]
        if self._buffered_inputs is before:
            return inputs
        parts = self.parts
        recipe = parts.recipe
        by_tokens = recipe.batch.fill == "tokens"
        self._buffered_inputs = repack(
            self._buffered_inputs,
            loss_type=recipe.grpo.loss_type,
            # Unsloth packs sequences by itself; but where it falls back to padding, cells count.
            trim=by_tokens or parts.engine.name == EngineName.PLAIN,
            max_cells=recipe.max_cells if by_tokens else None,
        )
        self.record.padding_share = padding_share(self._buffered_inputs)
        with parts.clock.time("logprob"):
            keep_promises(self, self._buffered_inputs, parts.must_stop)
        if recipe.optimizer_steps > 1:
            parts.rewind.remember(self)
        return self._buffered_inputs[0]

    @property
    def kl_weight(self) -> float:
        """Of the KL term to the reference, for a whole micro-batch."""
        return self.parts.recipe.grpo.beta

    def compute_loss(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss; a micro-batch without rows changes nothing.

        Where a loss divides by the rows of a micro-batch, `repack` scaled the advantages; the KL
        term has the same weight a row by a smaller beta.
        """
        rows, loss_type = inputs["completion_ids"].shape[0], self.parts.recipe.grpo.loss_type
        if rows == 0:
            return zero_gradient_loss(model)
        full_rows = self.parts.recipe.batch.micro_batch
        self.beta = self.kl_weight * row_share(loss_type, rows, full_rows)
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        """During a rollout a promise, which `_prepare_inputs` keeps; then without all logits."""
        if self._rolling_out:
            _, input_ids, _, width = args
            return promise(input_ids, width)
        if self.by_pieces and self._many_logits(*args):
            kwargs.pop("batch_size", None), kwargs.pop("compute_aux_loss", None)
            return self._chunked_logps(*args, **kwargs)  # type: ignore[attr-defined]
        return super()._get_per_token_logps_and_entropies(*args, **kwargs)  # type: ignore[misc]

    def _many_logits(self, model: Any, input_ids: torch.Tensor, _: Any, width: int) -> bool:
        inner = self.accelerator.unwrap_model(model)  # type: ignore[attr-defined]
        vocabulary = int(inner.get_output_embeddings().weight.shape[0])
        return bool(input_ids.shape[0] * width * vocabulary >= MANY_LOGITS)

    def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[list[list[int]], None, Batch]:
        """The renderer's ids: TRL would render with the tokenizer's own chat template."""
        ids = {text: self.parts.renderer.encode(text) for text in dict.fromkeys(prompts)}
        return [list(ids[text]) for text in prompts], None, {}

    def check_prompts(
        self, problems: Sequence[Problem], prompt_ids: Sequence[Sequence[int]]
    ) -> None:
        """Compare prompts with those of the renderer, a group of rows for each problem.

        Raises:
            TrainingError: they differ, so training would not be on what is evaluated.
        """
        renderer, size = self.parts.renderer, len(prompt_ids) // len(problems)
        each = [renderer.ids(problem) for problem in problems]
        wanted = [ids for ids in each for _ in range(size)]
        if [tuple(ids) for ids in prompt_ids] != wanted:
            raise TrainingError(
                "the trainer's prompts are not those of the evaluations.",
                hint="`budgetrl doctor` shows whether the installed versions are tested ones.",
            )

    def _generate_single_turn(
        self, prompt_ids: Sequence[Sequence[int]], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """The engine's completions; TRL's own way to generate is not used."""
        parts, step = self.parts, self.rollouts
        first = len(self.record.completions)
        rows = range(first, first + len(prompt_ids))
        seeds = [sample_seed(parts.recipe.seed, f"rollout {step}", row) for row in rows]
        self.check_prompts(self.record.problems[first // self.record.group_size :], prompt_ids)
        with parts.clock.time("rollout"):
            rollout = parts.engine.rollout(
                prompt_ids, seeds, training_sampling(parts.recipe), parts.rollout_over
            )
        if rollout is None:
            raise StepAborted
        with parts.clock.time("logprob"):
            gap = parts.engine.logp_gap(prompt_ids, rollout, parts.recipe.sampling.temperature)
        self.record.note(rollout, gap)
        # TRL would only carry them through every micro-batch.
        logps = None if parts.engine.name == EngineName.PLAIN else rollout.logps
        return rollout.ids, logps

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self.parts.clock.time("reward"):
            return super()._calculate_rewards(*args, **kwargs)  # type: ignore[misc]


def score(parts: TrainerParts, completion_ids: Sequence[Sequence[int]]) -> list[float | None]:
    """The one reward that TRL sees: the recipe's weighted sum; None for a faulty row."""
    record = parts.record
    assert record is not None
    first = len(record.completions)
    completions = [completion_of(parts.engine, ids) for ids in completion_ids]
    golds = [problem.answer for problem in record.problems for _ in range(record.group_size)]
    breakdowns = parts.reward(completions, golds[first:])
    record.completions += completions
    record.breakdowns += breakdowns
    return [breakdown.total for breakdown in breakdowns]


def training_sampling(recipe: Recipe, max_tokens: int | None = None) -> SamplingSpec:
    """How a recipe draws its training completions; or shorter ones."""
    sampling = recipe.sampling
    return SamplingSpec(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=max_tokens or sampling.max_tokens,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        stop=sampling.stop,
    )


def _settle_reference(parts: TrainerParts) -> None:
    """What TRL copied of the adapter, as it is now, is no reference: the base is, or the start."""
    model, start = parts.engine.model, parts.recipe.model.adapter
    if REFERENCE_ADAPTER not in getattr(model, "peft_config", {}):
        return
    if parts.recipe.grpo.reference == "adapter" and start is not None:
        load_trained(model, Path(start), REFERENCE_ADAPTER)
    else:
        model.delete_adapter(REFERENCE_ADAPTER)


def build_trainer(
    parts: TrainerParts,
    max_steps: int,
    callbacks: Sequence[Any],
    mixin: type[BudgetMixin] = BudgetMixin,
) -> Any:
    """The trainer of a run; the engine must be open, because it may patch trl.

    Raises:
        TrainingError: a library changed a value of the recipe.
        ModelError: TRL's trainer cannot be right with this model.
    """
    recipe, model = parts.recipe, parts.engine.model

    def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float | None]:
        return score(parts, completion_ids)

    if REFERENCE_ADAPTER in getattr(model, "peft_config", {}):
        model.delete_adapter(REFERENCE_ADAPTER)  # of a stage before; TRL makes its own
    trainer = open_trainer(
        parts,
        mixin,
        "GRPO",
        grpo_arguments(recipe, parts.folder, max_steps),
        [{"prompt": ""}] * parts.sampler.prompts_per_step,
        [RateCallback(recipe.optimizer_steps), *callbacks],
        reward_funcs=[reward],
    )
    _settle_reference(parts)
    # TRL asks for a `Dataset`; of rows that are placeholders each look-up takes milliseconds.
    trainer.train_dataset = list(trainer.train_dataset)
    if parts.engine.name == EngineName.PLAIN:
        refuse_counted_padding(trainer)
        trainer.by_pieces = works_by_pieces(trainer)
    # Which completions are truncated: those that none of these ends, sampling.stop included.
    trainer.eos_token_ids = sorted(parts.engine.end_ids)
    return trainer
