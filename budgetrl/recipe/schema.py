"""A whole recipe, and what its tables may not say together; the tables are in `*_tables.py`.

Unknown keys are refused and all values frozen. Defaults are stated in the tables and nowhere else.
Field names follow TRL where the meaning is the same. The loader (`recipe.load`) merges files and
flags; this package only says what is valid.
"""

import json
from collections import Counter
from itertools import zip_longest
from typing import Any, Self

from pydantic import model_validator

from budgetrl.recipe.base import (
    VLLM_RANKS as VLLM_RANKS,
    AlphaPolicy as AlphaPolicy,
    EngineName as EngineName,
    RewardName as RewardName,
    SuiteName as SuiteName,
    Table as Table,
)
from budgetrl.recipe.eval_tables import (
    Deviation as Deviation,
    Entropy as Entropy,
    Eval as Eval,
    Expected as Expected,
    Inferred as Inferred,
    Paper as Paper,
    Select as Select,
    Stated as Stated,
)
from budgetrl.recipe.model_tables import (
    Columns as Columns,
    Data as Data,
    Engine as Engine,
    Lora as Lora,
    Model as Model,
    Prompt as Prompt,
    RecipeInfo as RecipeInfo,
    Teacher as Teacher,
    no_teacher,
)
from budgetrl.recipe.stage_tables import (
    Distill as Distill,
    Sft as Sft,
    Stage as Stage,
    StageKind as StageKind,
    scaled,
)
from budgetrl.recipe.sweep_table import Sweep as Sweep
from budgetrl.recipe.training_tables import (
    Batch as Batch,
    BudgetTable as BudgetTable,
    Checkpoint as Checkpoint,
    Grpo as Grpo,
    Optimizer as Optimizer,
    Reward as Reward,
    Sampling as Sampling,
    Schedule as Schedule,
    Signal as Signal,
    Tracker as Tracker,
)

MOST_ANSWER_TOKENS = 256
"""After thinking, where nothing else is said."""


class Recipe(Table):
    """A whole recipe, resolved and valid."""

    recipe: RecipeInfo
    paper: Paper | None = None
    model: Model
    lora: Lora
    data: Data
    prompt: Prompt = Prompt()
    rewards: tuple[Reward, ...] = (Reward(name=RewardName.ACCURACY),)
    grpo: Grpo = Grpo()
    batch: Batch = Batch()
    schedule: Schedule
    optimizer: Optimizer = Optimizer()
    sampling: Sampling = Sampling()
    signal: Signal = Signal()
    sft: Sft = Sft()
    distill: Distill = Distill()
    teacher: Teacher | None = None
    """What stages of kind "distill" move towards."""
    stages: tuple[Stage, ...] = ()
    """One after the other, in one budget; none: a single GRPO stage."""
    engine: Engine = Engine()
    checkpoint: Checkpoint = Checkpoint()
    budget: BudgetTable = BudgetTable()
    eval: tuple[Eval, ...] = ()
    entropy: Entropy = Entropy()
    select: Select = Select()
    tracker: Tracker = Tracker()
    sweep: Sweep | None = None
    expected: tuple[Expected, ...] = ()
    stated: tuple[Stated, ...] = ()
    inferred: tuple[Inferred, ...] = ()
    deviation: tuple[Deviation, ...] = ()

    @property
    def name(self) -> str:
        """[recipe] name."""
        return self.recipe.name

    @property
    def seed(self) -> int:
        """[recipe] seed."""
        return self.recipe.seed

    @property
    def reward_names(self) -> frozenset[str]:
        """Names of the rewards that count; one of weight 0 is only looked at."""
        return frozenset(reward.name for reward in self.rewards if reward.weight != 0)

    @property
    def completions_per_step(self) -> int:
        """Completions of one step."""
        return self.batch.prompts_per_step * self.grpo.num_generations

    @property
    def completions_per_update(self) -> int:
        """Completions that one optimiser step is made from."""
        return self.completions_per_step // self.batch.updates_per_rollout

    @property
    def optimizer_steps(self) -> int:
        """Optimiser steps of one step: a step is one rollout batch, however often it is used."""
        return self.batch.updates_per_rollout * self.grpo.num_iterations

    @property
    def max_cells(self) -> int:
        """Tokens of a micro-batch of the longest prompts and completions."""
        return self.batch.micro_batch * (self.prompt.max_tokens + self.sampling.max_tokens)

    def with_micro_batch(self, count: int) -> Self:
        """The same update in other pieces: equal up to rounding."""
        made, share = self.but({"batch.micro_batch": count}), count / self.batch.micro_batch
        if not self.stages:
            return made
        stages = tuple(stage.with_smaller_passes(share) for stage in self.stages)
        rows = scaled(self.sft.micro_batch, share)
        return made.but({"stages": stages, "sft.micro_batch": rows})

    def smaller_micro_batch(self) -> int | None:
        """The next one to try when memory is short: half, or the next divisor below; None after 1.

        An update is whole micro-batches, so it has to divide its completions.
        """
        total, half = self.completions_per_update, self.batch.micro_batch // 2
        return next((count for count in range(half, 0, -1) if total % count == 0), None)

    def for_stage(self, stage: Stage) -> Self:
        """The recipe of one stage alone: the run's tables with what is different in it.

        Raises:
            pydantic.ValidationError: a value of the stage is wrong (found at load).
        """
        tables = stage.tables(self.model_dump(mode="json"))
        return type(self).model_validate_json(json.dumps(tables))

    @property
    def parts(self) -> tuple[Self, ...]:
        """The recipes of all stages; the recipe itself where there are none."""
        return tuple(self.for_stage(stage) for stage in self.stages) or (self,)

    @property
    def stage_list(self) -> dict[str, list[dict[str, Any]]]:
        """The stages as recipe.resolved.json lists them; nothing for a single one of GRPO."""
        return {"stages": [stage.summary for stage in self.stages]} if self.stages else {}

    @property
    def total_steps(self) -> int | None:
        """Updates that are asked for, all stages together; None: as many as the budget buys."""
        stops = [part.schedule.stop_after_steps for part in self.parts]
        known = [stop for stop in stops if stop is not None]
        return sum(known) if len(known) == len(stops) else None

    def eval_max_tokens(self, spec: Eval) -> int:
        """Token limit of an evaluation."""
        if spec.think is not None:
            return spec.think.max_tokens + self.answer_tokens(spec)
        return spec.max_tokens or self.sampling.max_tokens

    def answer_tokens(self, spec: Eval) -> int:
        """Of an answer after thinking that has a limit of its own."""
        assert spec.think is not None
        usual = min(MOST_ANSWER_TOKENS, spec.max_tokens or self.sampling.max_tokens)
        return spec.think.answer_tokens or usual

    def eval_tokens(self, spec: Eval) -> int:
        """Prompt and completion of an evaluation together, at the most.

        None of its problems is left out: a prompt may be longer than those trained on, and its
        completion ends here all the same.
        """
        appended = 0 if spec.think is None else spec.think.appended
        return self.prompt.max_tokens + self.eval_max_tokens(spec) + appended

    def longest_prompt(self, spec: Eval) -> int:
        """Tokens that a prompt of an evaluation may have: a quarter is left to complete it."""
        return max(self.prompt.max_tokens, 3 * self.eval_tokens(spec) // 4)

    @property
    def distils(self) -> bool:
        """Whether a stage needs [teacher]."""
        return any(stage.kind is StageKind.DISTILL for stage in self.stages)

    @property
    def sequence_tokens(self) -> int:
        """Tokens of the longest sequence that any stage or evaluation asks for."""
        trained = self.prompt.max_tokens + self.sampling.max_tokens
        stages = map(self.stage_tokens, self.stages)
        return max(trained, *map(self.eval_tokens, self.eval), *stages, 0)

    def stage_tokens(self, stage: Stage) -> int:
        """Tokens of the longest sequence that a stage trains on."""
        part = self.for_stage(stage)
        if stage.kind is StageKind.SFT:
            return part.sft.max_tokens
        return part.prompt.max_tokens + part.sampling.max_tokens

    @model_validator(mode="after")
    def _tables_agree(self) -> Self:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _contradictions(recipe: Recipe) -> list[str]:
    """What is wrong between tables, each with its way out."""
    found: list[str] = []
    found += _batch_contradictions(recipe)
    unsloth = recipe.engine.name is EngineName.UNSLOTH
    if recipe.lora.is_full:
        found += _full_contradictions(recipe)
    elif unsloth and recipe.lora.rank not in VLLM_RANKS:
        found.append(f"lora.rank = {recipe.lora.rank}: vLLM serves only {list(VLLM_RANKS)}")
    if recipe.model.adapter is not None and recipe.lora.is_full:
        found.append('model.adapter says nothing with lora.rank = "full"')
    suites = [spec.suite for spec in recipe.eval]
    found += [f"{table} {name!r} occurs twice" for table, name in _repeated(recipe)]
    if recipe.select.use == "best" and recipe.select.suite not in suites:
        found.append(f"select.suite = {recipe.select.suite!r} has no [[eval]]")
    return found + _signal_contradictions(recipe) + _stage_contradictions(recipe)


def _stage_contradictions(recipe: Recipe) -> list[str]:
    """What is wrong with the order of the stages; what is wrong inside one, `validate` finds."""
    found: list[str] = []
    for stage, following in zip_longest(recipe.stages, recipe.stages[1:]):
        name = f"[[stages]] {stage.name}"
        if following is not None and stage.share is None and stage.steps is None:
            found.append(
                f"{name} does not say how long it lasts: give share or steps, or the stages after "
                "it may get nothing"
            )
        if stage.gate is not None and following is None:
            found.append(f"{name}: a gate measures what the next stage has to learn from: none is")
        elif stage.gate is not None and RewardName.ACCURACY not in recipe.reward_names:
            found.append(f"{name}: a gate counts right answers, which needs the accuracy reward")
        if "stop" in (stage.sampling or {}):
            found.append(f"{name}: sampling.stop is the whole run's: the engine is opened with it")
        if stage.kind is StageKind.DISTILL:
            found += [f"{name}: {wrong}" for wrong in no_teacher(recipe.teacher, recipe.lora)]
        if stage.until is not None and stage.kind is StageKind.SFT:
            condition = stage.until.condition[0]
            if condition != "loss":
                found.append(f"{name}: until {condition} says nothing in SFT, which has a loss")
    if recipe.stages and recipe.engine.name is EngineName.SCRIPTED:
        found.append('[[stages]]: the "scripted" engine cannot train')
    return found


def _full_contradictions(recipe: Recipe) -> list[str]:
    """What training all weights rules out."""
    found = []
    if recipe.model.load_in_4bit:
        found.append(
            'lora.rank = "full" cannot train weights of 4 bits; set model.load_in_4bit = false'
        )
    if recipe.engine.name is EngineName.UNSLOTH:
        found.append(
            'lora.rank = "full": Unsloth refuses it together with its vLLM ("fast_inference=True '
            'cannot be used together with full_finetuning=True"); set engine.name = "plain"'
        )
    return found


def _batch_contradictions(recipe: Recipe) -> list[str]:
    batch, found = recipe.batch, list[str]()
    prompts, updates, micro = batch.prompts_per_step, batch.updates_per_rollout, batch.micro_batch
    if prompts % updates:
        return [
            f"batch.updates_per_rollout = {updates} does not divide batch.prompts_per_step = "
            f"{prompts}: each optimiser step takes whole groups"
        ]
    if updates > 1 and recipe.engine.name is EngineName.SCRIPTED:
        found.append(f'batch.updates_per_rollout = {updates}: the "scripted" engine cannot train')
    if recipe.completions_per_update % micro:
        of = "step" if updates == 1 else f"optimiser step (batch.updates_per_rollout = {updates})"
        found.append(
            f"batch.micro_batch = {micro} does not divide {recipe.completions_per_update} "
            f"completions per {of}"
        )
    return found


def _repeated(recipe: Recipe) -> list[tuple[str, str]]:
    """Elements of arrays whose name occurs before."""
    keys = [
        *(("[[rewards]]", reward.name) for reward in recipe.rewards),
        *(("[[eval]]", spec.suite) for spec in recipe.eval),
        *(("[[stages]]", stage.name) for stage in recipe.stages),
        *(("[[expected]]", entry.key) for entry in recipe.expected),
        *(("[[stated]]", entry.key) for entry in recipe.stated),
        *(("[[inferred]]", entry.key) for entry in recipe.inferred),
        *(("[[deviation]]", entry.key) for entry in recipe.deviation),
    ]
    return [pair for pair, count in Counter(keys).items() if count > 1]


def _signal_contradictions(recipe: Recipe) -> list[str]:
    found: list[str] = []
    signal, grpo = recipe.signal, recipe.grpo
    names = recipe.reward_names
    if not names:
        found.append("no reward has a weight other than 0")
    if grpo.reference == "adapter" and recipe.model.adapter is None:
        found.append('grpo.reference = "adapter" needs model.adapter, the folder of one')
    if grpo.reference == "adapter" and recipe.engine.name is EngineName.UNSLOTH:
        found.append(
            'grpo.reference = "adapter": Unsloth scores the reference without any adapter; set '
            '"base", or engine.name = "plain"'
        )
    if signal.skip == "exact" and grpo.beta > 0:
        found.append(
            'signal.skip = "exact" needs grpo.beta = 0, because skipped groups still have a KL '
            "gradient; overlays/most_learning sets both and says what else it changes, or set "
            'skip = "accuracy" or "off"'
        )
    if signal.skip != "off" and grpo.loss_type == "bnpo":
        found.append('signal.skip changes the bnpo loss; set grpo.loss_type = "dapo"')
    if signal.keep_rows is not None and signal.skip == "off":
        found.append(
            'signal.keep_rows needs signal.skip = "exact" or "accuracy": with "off" every row is '
            "trained on"
        )
    if signal.keep_rows is not None and signal.keep_rows > grpo.num_generations:
        found.append(
            f"signal.keep_rows = {signal.keep_rows} is above grpo.num_generations = "
            f"{grpo.num_generations}, the rows of a group"
        )
    if signal.resample_rounds == 0:
        found.append(
            "signal.resample_rounds = 0 would replace nothing; leave it out for no dynamic "
            "sampling, or allow at least 1 round"
        )
    if signal.resample_rounds and grpo.num_iterations > 1:
        found.append("signal.resample_rounds needs grpo.num_iterations = 1")
    if recipe.engine.name is EngineName.UNSLOTH and signal.resample_rounds and grpo.beta > 0:
        found.append(
            "signal.resample_rounds under Unsloth needs grpo.beta = 0: it pads the reference's "
            "log-probabilities by a rule of its own"
        )
    if signal.order == "difficulty" and RewardName.ACCURACY not in names:
        found.append('signal.order = "difficulty" needs the accuracy reward')
    if signal.solve_rates is not None and signal.order != "difficulty":
        found.append('signal.solve_rates says nothing without signal.order = "difficulty"')
    if recipe.engine.name is EngineName.UNSLOTH and grpo.loss_type == "bnpo":
        found.append(
            'under Unsloth "bnpo" depends on its version: 2026.10.7 computes "dapo", 2026.10.9 the '
            'mean of each micro-batch; set grpo.loss_type = "dapo"'
        )
    return found
