"""What a recipe may say: one pydantic model per table, unknown keys refused, all values frozen.

Defaults are stated here and nowhere else. Field names follow TRL where the meaning is the same.
The loader (`recipe.load`) merges files and flags; this module only says what is valid.
"""

import math
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from budgetrl.types import EvalWhen

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Adapter ranks that vLLM can serve."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Table(BaseModel):
    """Base of all recipe tables: no unknown keys, no changes after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class RewardName(StrEnum):
    """Rewards that budgetrl brings; `module:function` names a user's own."""

    ACCURACY = "accuracy"
    """1 if the boxed answer equals the gold answer, else 0."""
    FORMAT = "format"
    """1 if the completion is `<think>...</think>` and then an answer, else 0."""
    COSINE = "cosine"
    """Length-scaled accuracy of Open-RS and Tina."""
    SIGNED = "signed"
    """+1 for a right answer, -1 otherwise (DeepScaleR)."""
    SOFT_OVERLONG = "soft_overlong"
    """Penalty for completions near the token limit (DAPO)."""


class SuiteName(StrEnum):
    """Evaluation suites known by name."""

    MATH500 = "math500"
    """500 problems of the MATH test split."""
    AIME24 = "aime24"
    """AIME 2024, both papers, 30 problems."""
    AIME25 = "aime25"
    """AIME 2025, both papers, 30 problems."""
    AMC23 = "amc23"
    """AMC 12 2023, 40 problems."""


class AlphaPolicy(StrEnum):
    """How lora_alpha follows from the rank."""

    FIXED = "fixed"
    """`lora.alpha`, whatever the rank: the scale alpha/r falls with the rank."""
    EQUAL_RANK = "equal_rank"
    """alpha = r: scale 1 at every rank."""
    FOUR_X_RANK = "4x_rank"
    """alpha = 4 r: scale 4 at every rank (Tina)."""
    RSLORA = "rslora"
    """`lora.alpha` with scale alpha / sqrt(r)."""


class RecipeInfo(Table):
    """[recipe]: what this recipe is."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    summary: str = ""
    seed: int = Field(default=1, ge=0, lt=2**31)


class Paper(Table):
    """[paper]: the publication that the recipe replicates."""

    title: str
    arxiv: str = ""
    table: str = ""
    row: str = ""
    """Name of this model's row in the paper's tables."""


class Model(Table):
    """[model]: the base model."""

    id: str = Field(min_length=1)
    """Hub id, a path, or `asset:NAME` for a model that ships with budgetrl."""
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    load_in_4bit: bool = False


class Lora(Table):
    """[lora]: the adapter that is trained."""

    rank: Count
    alpha: Positive | None = None
    alpha_policy: AlphaPolicy = AlphaPolicy.FIXED
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"

    @model_validator(mode="after")
    def _alpha_matches_policy(self) -> Self:
        needs_alpha = self.alpha_policy in (AlphaPolicy.FIXED, AlphaPolicy.RSLORA)
        if needs_alpha and self.alpha is None:
            raise ValueError(f"alpha_policy = {self.alpha_policy.value!r} needs lora.alpha")
        return self

    @property
    def resolved_alpha(self) -> float:
        """lora_alpha after the policy."""
        if self.alpha_policy is AlphaPolicy.EQUAL_RANK:
            return float(self.rank)
        if self.alpha_policy is AlphaPolicy.FOUR_X_RANK:
            return 4.0 * self.rank
        assert self.alpha is not None
        return self.alpha

    @property
    def scale(self) -> float:
        """The factor before BA: alpha/r, or alpha/sqrt(r) with rslora (PEFT 0.21)."""
        if self.alpha_policy is AlphaPolicy.RSLORA:
            return self.resolved_alpha / math.sqrt(self.rank)
        return self.resolved_alpha / self.rank


class Columns(Table):
    """[data.columns]: names of the columns that are read."""

    problem: str = "problem"
    answer: str = "answer"
    id: str | None = None
    level: str | None = None


class Data(Table):
    """[data]: the training problems; either a hub id or a local JSONL path."""

    id: str | None = None
    path: str | None = None
    """A JSONL file, relative to the recipe, or `asset:NAME`."""
    revision: str | None = None
    split: str = "train"
    columns: Columns = Columns()
    filter: dict[str, tuple[str, ...]] = {}
    """Keep rows whose column holds one of the values, as text."""
    limit: Count | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.id is None) == (self.path is None):
            raise ValueError("give exactly one of data.id (hub) and data.path (JSONL file)")
        return self


class Prompt(Table):
    """[prompt]: how a problem becomes a prompt."""

    system: str | None = None
    template: str = "{problem}"
    """The user turn; `{problem}` is replaced by the problem's text."""
    chat_template: str | None = None
    """A Jinja chat template instead of the tokenizer's own."""
    template_kwargs: dict[str, bool | int | str] = {}
    """Handed to the chat template, such as enable_thinking for Qwen3."""
    max_tokens: Count = 512
    overlong: Literal["drop"] = "drop"

    @model_validator(mode="after")
    def _template_holds_problem(self) -> Self:
        if self.template.count("{problem}") != 1:
            raise ValueError("prompt.template must contain {problem} exactly once")
        return self


class Reward(Table):
    """One of [[rewards]]."""

    name: str = Field(min_length=1)
    weight: float = Field(default=1.0, allow_inf_nan=False)
    parameters: dict[str, Any] = {}

    @model_validator(mode="after")
    def _known_name(self) -> Self:
        if ":" not in self.name and self.name not in set(RewardName):
            known = ", ".join(RewardName)
            raise ValueError(f"unknown reward {self.name!r}; known: {known}, or module:function")
        return self


class Grpo(Table):
    """[grpo]: the algorithm, with TRL's names."""

    num_generations: Annotated[int, Field(ge=2)] = 8
    """Completions per prompt: the group size."""
    loss_type: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "dapo"
    beta: NonNegative = 0.0
    """Weight of the KL term against the base model."""
    epsilon: Positive = 0.2
    epsilon_high: Positive = 0.2
    scale_rewards: Literal["group", "batch", "none"] = "group"
    num_iterations: Count = 1
    mask_truncated_completions: bool = False


class Batch(Table):
    """[batch]: how much goes into one update."""

    prompts_per_step: Count = 32
    micro_batch: Count = 8
    """Completions per forward and backward pass."""


class Schedule(Table):
    """[schedule]: learning rate and length of the training."""

    learning_rate: Positive
    shape: Literal["constant", "linear", "cosine"] = "constant"
    warmup_share: Share = 0.0
    """Share of the schedule in which the rate rises from 0."""
    min_share: Share = 0.0
    """Where linear and cosine end, as a share of learning_rate."""
    by: Literal["steps", "budget"] = "steps"
    """What the shape is a function of: steps done, or budget used."""
    schedule_steps: Count | None = None
    """Length of the shape in steps; stop_after_steps where absent."""
    stop_after_steps: Count | None = None
    """None: as many updates as the budget buys."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        steps, stop = self.schedule_steps, self.stop_after_steps
        if steps is not None and stop is not None and stop > steps:
            raise ValueError(
                f"stop_after_steps = {stop} is above schedule_steps = {steps}; "
                "set stop_after_steps <= schedule_steps"
            )
        shaped = self.shape != "constant" or self.warmup_share > 0
        if shaped and self.by == "steps" and steps is None and stop is None:
            raise ValueError("a shape over steps needs schedule_steps or stop_after_steps")
        return self


class Optimizer(Table):
    """[optimizer]: AdamW and its numbers."""

    name: Literal["adamw", "adamw_8bit"] = "adamw"
    beta1: Share = 0.9
    beta2: Share = 0.999
    epsilon: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0


class Sampling(Table):
    """[sampling]: how training completions are drawn."""

    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """0: off."""
    min_p: Share = 0.0
    max_tokens: Count = 3584
    stop: tuple[str, ...] = ()
    """Further texts that end a completion, besides the model's own end tokens."""


class Signal(Table):
    """[signal]: spend time on groups that can teach something."""

    skip: Literal["off", "exact", "accuracy"] = "off"
    """Leave groups without signal out of the update; exact: only if all advantages are zero."""
    order: Literal["uniform", "difficulty"] = "uniform"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Weight of older results in a problem's running solve rate."""
    explore: Share = 0.2
    """Share of each batch drawn uniformly under order = "difficulty"."""
    resample_rounds: Annotated[int, Field(ge=0)] = 0
    """How often groups without signal are replaced by fresh prompts within a step; 0: never."""
    on_empty: Literal["stop", "continue"] = "stop"
    """After three steps in which no group had signal."""


class EngineName(StrEnum):
    """Ways to run a model."""

    PLAIN = "plain"
    """transformers and PEFT, on a CPU or with CUDA."""
    UNSLOTH = "unsloth"
    """Unsloth's kernels with vLLM in the same process, on one NVIDIA GPU."""
    SCRIPTED = "scripted"
    """Replays completions from a file: no model, evaluation only."""


class Engine(Table):
    """[engine]: what runs the model."""

    name: EngineName = EngineName.UNSLOTH
    device: Literal["cpu", "cuda"] = "cuda"
    threads: Count | None = None
    """CPU threads of torch; a fixed number, so that a resumed run computes the same bits."""
    gradient_checkpointing: bool = True
    eval_batch: Count = 256
    """Completions generated at a time in evaluations (plain)."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] = 0.85
    standby: bool = True
    """vLLM sleeps while the trainer works (unsloth)."""
    max_num_seqs: Count = 256
    chunked_prefill: bool = True
    prefix_caching: bool = True
    merged_rollouts: bool = False
    """Fold the adapter into vLLM's weights for rollouts (unsloth)."""
    script: str | None = None
    """JSONL with the completions to replay (scripted)."""

    @model_validator(mode="after")
    def _fits_device(self) -> Self:
        if self.name is EngineName.UNSLOTH and self.device != "cuda":
            raise ValueError('engine.name = "unsloth" needs engine.device = "cuda"')
        if self.device == "cpu" and self.name is EngineName.PLAIN and self.threads is None:
            raise ValueError("on a CPU engine.threads must be a number, such as 2")
        if self.name is EngineName.SCRIPTED and self.script is None:
            raise ValueError('engine.name = "scripted" needs engine.script')
        return self


class Checkpoint(Table):
    """[checkpoint]: when the run is saved; whichever interval comes first."""

    every_steps: Count | None = None
    every_minutes: Positive | None = None
    """None: the larger of 10 minutes and 3 % of the budget, or every_steps alone if given."""
    milestones: Annotated[int, Field(ge=0)] = 4
    """Adapter-only checkpoints kept besides the newest two and the best."""
    mirror: str | None = None
    """A folder that gets a second copy of each checkpoint."""


class BudgetTable(Table):
    """[budget]: what the run may cost; the sooner of hours and usd ends it."""

    hours: Positive | None = None
    usd: Positive | None = None
    gpu: str | None = None
    """Name of the GPU that the recipe is planned for."""
    usd_per_hour: NonNegative | None = None
    grace_s: Positive = 20.0
    """Seconds between SIGTERM and the end."""


class Eval(Table):
    """One of [[eval]]: a suite, its protocol and when it is run."""

    suite: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """A known suite, or any name together with `path` or `id`."""
    path: str | None = None
    """A JSONL file, relative to the recipe, or `asset:NAME`."""
    id: str | None = None
    revision: str | None = None
    split: str | None = None
    columns: Columns | None = None
    samples: Count = 16
    k: tuple[Count, ...] = (1,)
    max_tokens: Count | None = None
    """sampling.max_tokens where absent."""
    temperature: NonNegative = 0.6
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 1000
    when: tuple[EvalWhen, ...] = (EvalWhen.BASELINE, EvalWhen.FINAL)
    every_steps: Count | None = None
    at_fractions: tuple[Share, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = self.suite in set(SuiteName)
        if not known and self.path is None and self.id is None:
            names = ", ".join(SuiteName)
            raise ValueError(f"unknown suite {self.suite!r}; known: {names}, or give path or id")
        if max(self.k) > self.samples:
            raise ValueError(f"k = {max(self.k)} needs at least as many samples ({self.samples})")
        timed = self.every_steps is not None or bool(self.at_fractions)
        if (EvalWhen.STEP in self.when) != timed:
            raise ValueError('"step" in when and every_steps or at_fractions go together')
        return self


class Entropy(Table):
    """[entropy]: exact token entropy (paper Eq. 1) on fresh completions of fixed prompts."""

    prompts: Annotated[int, Field(ge=0)] = 16
    """0: never measured."""
    every_steps: Count | None = None
    """Besides the start and the end."""


class Select(Table):
    """[select]: which checkpoint the final evaluation judges."""

    use: Literal["last", "best"] = "last"
    suite: str | None = None
    metric: str = "pass@1"
    """Ties go to the earlier checkpoint."""

    @model_validator(mode="after")
    def _best_needs_suite(self) -> Self:
        if self.use == "best" and self.suite is None:
            raise ValueError('select.use = "best" needs select.suite')
        if self.metric != "pass@1":
            raise ValueError('select.metric must be "pass@1"')
        return self


class Tracker(Table):
    """[tracker]: forwards step events to an experiment tracker."""

    kind: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    project: str = "budgetrl"


class Expected(Table):
    """One of [[expected]]: a number that the paper prints."""

    key: str
    """Unique name, such as aime24@1.final."""
    metric: str
    value: float
    where: str
    rank: int | Literal["unstated"] | None = None


class Stated(Table):
    """One of [[stated]]: a value that the paper states."""

    key: str
    where: str


class Inferred(Table):
    """One of [[inferred]]: a value that the paper does not state, and where it is taken from."""

    key: str
    source: str


class Deviation(Table):
    """One of [[deviation]]: a value that differs from the paper on purpose."""

    key: str
    paper: Any
    here: Any
    why: str


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
    engine: Engine = Engine()
    checkpoint: Checkpoint = Checkpoint()
    budget: BudgetTable = BudgetTable()
    eval: tuple[Eval, ...] = ()
    entropy: Entropy = Entropy()
    select: Select = Select()
    tracker: Tracker = Tracker()
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
    def completions_per_step(self) -> int:
        """Completions that one update is made from."""
        return self.batch.prompts_per_step * self.grpo.num_generations

    def eval_max_tokens(self, spec: Eval) -> int:
        """Token limit of an evaluation."""
        return spec.max_tokens or self.sampling.max_tokens

    @model_validator(mode="after")
    def _tables_agree(self) -> Self:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _contradictions(recipe: Recipe) -> list[str]:
    """What is wrong between tables, each with its way out."""
    found: list[str] = []
    total, micro = recipe.completions_per_step, recipe.batch.micro_batch
    if total % micro:
        found.append(f"batch.micro_batch = {micro} does not divide {total} completions per step")
    if recipe.engine.name is EngineName.UNSLOTH and recipe.lora.rank not in VLLM_RANKS:
        found.append(f"lora.rank = {recipe.lora.rank}: vLLM serves only {list(VLLM_RANKS)}")
    suites = [spec.suite for spec in recipe.eval]
    if recipe.select.use == "best" and recipe.select.suite not in suites:
        found.append(f"select.suite = {recipe.select.suite!r} has no [[eval]]")
    return found + _signal_contradictions(recipe)


def _signal_contradictions(recipe: Recipe) -> list[str]:
    found: list[str] = []
    signal, grpo = recipe.signal, recipe.grpo
    names = [reward.name for reward in recipe.rewards if reward.weight != 0]
    if not names:
        found.append("no reward has a weight other than 0")
    if signal.skip == "exact" and grpo.beta > 0:
        found.append(
            'signal.skip = "exact" needs grpo.beta = 0, because skipped groups still have a KL '
            'gradient; set skip = "accuracy" or "off"'
        )
    if signal.skip != "off" and grpo.loss_type == "bnpo":
        found.append('signal.skip changes the bnpo loss; set grpo.loss_type = "dapo"')
    if signal.resample_rounds and grpo.num_iterations > 1:
        found.append("signal.resample_rounds needs grpo.num_iterations = 1")
    if signal.order == "difficulty" and RewardName.ACCURACY not in names:
        found.append('signal.order = "difficulty" needs the accuracy reward')
    if recipe.engine.name is EngineName.UNSLOTH and grpo.loss_type == "bnpo":
        found.append('under Unsloth "bnpo" is computed as "dapo"; set grpo.loss_type = "dapo"')
    return found
