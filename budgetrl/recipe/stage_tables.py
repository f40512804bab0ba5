"""Recipe tables of a training in stages: [[stages]], [sft], and how one stage's recipe is made.

    [[stages]]                      one after the other, in one budget; none: a single GRPO stage
    name = "warm"
    kind = "sft"
    steps = 40                      or share = 0.2 of the training time that is left
    data.path = "worked.jsonl"      any key of the tables in `OVERRIDES`
    gate = { signal_share = 0.1 }

A further kind of stage is a member of `StageKind`, with a table beside [sft] where it has settings,
which then is one of `OVERRIDES`. What trains a kind is in `training.kinds`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from budgetrl.recipe.base import Count, Positive, Share, Table

OVERRIDES = (
    *("data", "rewards", "grpo", "batch", "schedule", "optimizer", "sampling", "signal", "sft"),
    "distill",
)
"""Tables of a recipe that a stage may change; the others are the run's: one model, one adapter, one
prompt for training and evaluations, one budget."""
_OWN_SOURCE = ("id", "path", "revision", "config", "split", "columns", "filter", "limit")


class StageKind(StrEnum):
    """How a stage trains the adapter."""

    GRPO = "grpo"
    """Reinforcement learning from verifiable rewards, as a run without stages."""
    SFT = "sft"
    """Supervised fine-tuning on worked solutions: a warm-up for a model that shows no working."""
    DISTILL = "distill"
    """On-policy distillation: the model answers, and moves towards [teacher] at every token."""


class Sft(Table):
    """[sft]: supervised fine-tuning, for stages of that kind."""

    source: Literal["data", "self"] = "data"
    """Where the solutions are from: columns of [data], or the model's own right answers to it."""
    max_tokens: Count = 8192
    """Window of a row: prompt and solution together."""
    overlong: Literal["drop", "cut"] = "drop"
    """Whether longer rows are left out or cut; one that is cut has no end token, and never the
    answer."""
    rows_per_step: Count = 32
    """Rows of one update."""
    micro_batch: Count = 1
    """Rows of full length per forward and backward pass; more where they are short."""
    samples: Count = 4
    """Answers drawn for each problem (source = "self")."""


class Distill(Table):
    """[distill]: on-policy distillation, for stages of that kind."""

    reward_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of GRPO's loss beside the divergence from the teacher; 0: rewards are only
    recorded."""


class Gate(Table):
    """Of a stage: what has to be measured after it for the next one to begin."""

    signal_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Least share of groups with both right and wrong answers, drawn as the next stage would draw
    them."""
    prompts: Count = 16
    """Groups that are drawn."""


class Until(Table):
    """Of a stage: it ends once a mean over its newest updates is reached; give one condition."""

    loss: Positive | None = None
    """The loss is at most this."""
    accuracy: Share | None = None
    """The share of right training completions is at least this."""
    format: Share | None = None
    """The mean of the format reward is at least this."""
    completion_tokens: Positive | None = None
    """The mean length of completions, in tokens, is at least this."""
    truncated_share: Share | None = None
    """At least this share of completions ran into the limit: a longer one is worth its price."""
    updates: Count = 5
    """Updates that the mean is over, the newest ones."""

    @property
    def condition(self) -> tuple[str, float]:
        """Its name and value."""
        given = [(name, value) for name, value in self if name != "updates" and value is not None]
        return given[0]

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if sum(value is not None for name, value in self if name != "updates") != 1:
            raise ValueError("give exactly one condition, such as until = { accuracy = 0.5 }")
        return self


class Stage(Table):
    """One of [[stages]]: its name and kind, how long it lasts, and what is different in it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=40)
    """What it is called, in records and in --set stages.NAME.steps=60."""
    kind: StageKind
    """How it trains."""
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """Its share of the training time that is left when it begins."""
    steps: Count | None = None
    """Its length in updates."""
    until: Until | None = None
    """A condition that ends it sooner."""
    gate: Gate | None = None
    """What has to be measured after it; below, the stage is made once more, then `on_fail`
    decides."""
    on_fail: Literal["stop", "go_on"] = "stop"
    """Whether the run then ends, or the next stage begins all the same."""
    data: dict[str, Any] | None = None
    rewards: list[dict[str, Any]] | None = None
    grpo: dict[str, Any] | None = None
    batch: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    sampling: dict[str, Any] | None = None
    signal: dict[str, Any] | None = None
    sft: dict[str, Any] | None = None
    distill: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_its_own(cls, tables: Any) -> Any:
        known = set(cls.model_fields)
        for key in tables if isinstance(tables, dict) else ():
            if key not in known and key in _OF_THE_RUN:
                raise ValueError(
                    f"a stage cannot change [{key}], which is the whole run's; it may change "
                    f"{', '.join(OVERRIDES)}"
                )
        return tables

    @property
    def overrides(self) -> dict[str, Any]:
        """What is different in it, by table."""
        given = {name: getattr(self, name) for name in OVERRIDES}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def summary(self) -> dict[str, Any]:
        """Name, kind, how long it lasts, and its overrides."""
        lasts = self.model_dump(mode="json", include={"steps", "share", "until"}, exclude_none=True)
        named = {"name": self.name, "kind": self.kind.value}
        return named | lasts | {"overrides": self.overrides}

    def with_smaller_passes(self, share: float) -> Self:
        """The same stage where memory was short: its own micro-batches are so much smaller."""
        changed = {
            name: table | {"micro_batch": scaled(table["micro_batch"], share)}
            for name in ("batch", "sft")
            if "micro_batch" in (table := getattr(self, name) or {})
        }
        return self.model_copy(update=changed)

    def tables(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """The tables of a recipe of this stage alone.

        Args:
            run: tables of the whole run's recipe.
        """
        made = {**run, "stages": [], "stated": [], "inferred": [], "deviation": []}
        for name, values in self.overrides.items():
            made[name] = _merged(name, run[name], values)
        if self.steps is not None:
            made["schedule"] = _of_steps(made["schedule"], self.schedule or {}, self.steps)
        elif self.kind is not StageKind.GRPO or self.share is not None:
            # The run's number of updates is not that of one of its stages.
            own = (self.schedule or {}).get("stop_after_steps")
            made["schedule"] = made["schedule"] | {"stop_after_steps": own}
        if self.kind is StageKind.SFT:  # of which a step is one update
            made["batch"] = made["batch"] | {"updates_per_rollout": 1}
            made["grpo"] = made["grpo"] | {"num_iterations": 1}
        if self.kind is StageKind.DISTILL:
            # Every answer teaches, a group without a difference in reward too.
            whole = {"skip": "off", "keep_rows": None, "resample_rounds": None}
            made["signal"] = made["signal"] | whole
            if not made["distill"]["reward_weight"]:
                made["grpo"] = made["grpo"] | {"beta": 0.0}  # of a loss that has no weight
        return made


_OF_THE_RUN = (
    *("recipe", "paper", "model", "teacher", "lora", "prompt", "engine", "checkpoint", "budget"),
    *("eval", "entropy", "select", "tracker", "sweep", "expected", "stages"),
)


def scaled(rows: int, share: float) -> int:
    """A micro-batch that is smaller by a share: a power of two, so that it divides its update."""
    while share < 1 and rows > 1 and rows % 2 == 0:
        rows, share = rows // 2, share * 2
    return rows


def _merged(name: str, run: Any, values: Any) -> Any:
    """A table of the run with a stage's values; other data bring all that is said of them."""
    if name == "rewards":
        named = {reward["name"]: reward for reward in run}
        for reward in values:
            named[reward.get("name")] = {**named.get(reward.get("name"), {}), **reward}
        return list(named.values())
    if name == "data" and {"id", "path"} & values.keys():
        run = {key: value for key, value in run.items() if key not in _OWN_SOURCE}
    return _deep(run, values)


def _deep(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(base)
    for key, value in extra.items():
        old = made.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        made[key] = _deep(old, value) if both else value  # type: ignore[arg-type]
    return made


def _of_steps(schedule: dict[str, Any], own: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """A schedule over so many updates; the stage may state a longer one."""
    length = {} if "schedule_steps" in own else {"schedule_steps": None}
    return schedule | length | {"stop_after_steps": steps}
