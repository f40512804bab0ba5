"""What a run says about itself: one JSON line per event, told apart by `kind`.

The run directory's `events.jsonl` holds them in order. Writers build these models; `t`,
`elapsed_s`, `spent_usd` and `attempt` are stamped by `event_file.EventWriter`. Readers get
them back by `parse`, which refuses nothing but what is no event at all.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from budgetrl.masking import masked_tree
from budgetrl.phases import PhaseName
from budgetrl.types import StopReason

SCHEMA_VERSION = 1
_HASH_DIGITS = 64

Stamp = Callable[[], Mapping[str, Any]]
"""Gives `elapsed_s`, `spent_usd` and `attempt` of the moment."""


class Event(BaseModel):
    """Base of all events: the stamp that every line has."""

    # Built when first used: a quarter of the time to the first screen otherwise.
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)
    KIND: ClassVar[str]

    schema_version: int = SCHEMA_VERSION
    kind: str = ""
    t: float = 0.0
    """Unix seconds."""
    elapsed_s: float = 0.0
    """Paid wall seconds over all attempts."""
    spent_usd: float | None = None
    attempt: int = 1
    stage: str | None = None
    """In which stage it happened; absent from the lines of a run that has none."""


class RunStarted(Event):
    """The first line of a run."""

    KIND = "run_started"
    recipe: str
    budget_s: float
    usd_per_hour: float | None = None
    plan: dict[str, Any] = {}


class RunResumed(Event):
    """A new attempt; step events above `from_step` no longer count."""

    KIND = "run_resumed"
    from_step: int
    budget_s: float
    gap_s: float = 0.0
    """Unpaid seconds since the attempt before."""
    reached: int = 0
    """The highest update of which completions are stored; above `from_step` they are made again."""
    micro_batch: int | None = None
    """Where memory was short: completions per forward pass, instead of the recipe's."""


class Changed(Event):
    """Something is another one from this attempt on, and somebody said so on purpose."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        defer_build=True,
        validate_by_name=True,
        serialize_by_alias=True,
    )
    KIND = "changed"
    key: str
    """A recipe key; or "data", "reward", "model", "versions" and the item that differs."""
    before: Any = Field(alias="from")
    """Value, hash or version; None: there was none."""
    to: Any


class Phase(Event):
    """A phase begins or is over."""

    KIND = "phase"
    name: PhaseName
    state: Literal["started", "ended"]
    expected_s: float | None = None
    """On "started": what earlier runs or the plan say."""
    seconds: float | None = None
    """On "ended": what it took."""


class Download(Event):
    """How far the download of one repository is."""

    KIND = "download"
    repo: str
    commit: str
    bytes: int
    """So far, of those that were not on this machine."""
    total_bytes: int
    seconds: float


class Step(Event):
    """One update, after it was made. Shares are 0..1, entropies nats, times seconds."""

    KIND = "step"
    step: int
    epoch: float
    reward_mean: float | None
    reward_std: float | None
    accuracy_mean: float | None
    format_mean: float | None
    completion_tokens_mean: float
    completion_tokens_max: int
    truncated_share: float
    entropy: float | None
    entropy_kind: Literal["exact", "sampled"]
    kl: float | None
    loss: float | None
    grad_norm: float | None
    learning_rate: float
    optimizer_steps: int = 1
    """Taken on the rollout batch of the step; loss, kl and grad_norm are their means."""
    groups: int | None
    """None in SFT, as the next."""
    groups_with_signal: int | None
    groups_resampled: int
    completions: int
    tokens: int
    tokens_per_s: float
    padding_share: float
    phase_s: dict[str, float]
    """rollout, reward, logprob, update, other."""
    grader: dict[str, int]
    sampling_logp_diff_mean: float | None
    switch_s: dict[str, float] | None = None
    """wake, sync, sleep: what of the rollout goes to switching between trainer and sampler."""
    gpu_peak_gib: float | None
    peak_rss_gib: float | None = None
    """On a CPU: the most memory that the worker has held so far."""
    remaining_s: float
    forecast_steps: int
    token_accuracy: float | None = None
    """In SFT: share of the trained tokens that the model would have chosen."""
    kl_teacher: float | None = None
    """In a distillation: mean KL(student || teacher) of the update's tokens, in nats."""
    top1_agreement: float | None = None
    """In a distillation: share of tokens at which both have the same most likely one."""
    groups_all_right: int | None = None
    groups_all_wrong: int | None = None
    """Dead groups by kind; None in runs of an older budgetrl, as all down to `rewards`."""
    groups_agreed: int | None = None
    """Groups in which three of four completions have one answer."""
    groups_agreed_wrong: int | None = None
    """Those of them whose answer is not the gold one."""
    top_answer: str | None = None
    top_answer_share: float | None = None
    """Share of the completions that have the most frequent answer."""
    top_gold_share: float | None = None
    """Share of the problems that have the most frequent gold answer."""
    levels: dict[str, list[int]] | None = None
    """Groups and right completions by the level of their problem; None where they have none."""
    clip_share: float | None = None
    """Share of the tokens whose ratio is clipped; None where a batch is used once."""
    rewards: dict[str, float | None] | None = None
    """Mean of each reward, before its weight."""
    stored_bytes: int | None = None
    """Size of the file of the step's completions; None where it was not stored."""
    sample: dict[str, Any] | None = None
    """One completion of the step for the live view: problem, completion, answer, verdict."""


class StageEvent(Event):
    """A stage of the training begins, goes on beyond its length, is over, or let the next begin.

    Earlier versions told of a gate by an event of kind "gate", too.
    """

    KIND = "stage"
    name: str
    training: str
    """Its kind: sft, grpo, distill."""
    index: int
    """From 0."""
    stages: int
    """Of the run."""
    state: Literal["started", "extended", "ended", "gate"]
    step: int
    """Updates made so far, in all stages."""
    seconds: float | None = None
    """On "ended": what it took, over all attempts."""
    updates: int | None = None
    """On "ended": made in it."""
    allotted_s: float | None = None
    """What its share of the time comes to; None where it is not limited so."""
    signal_share: float | None = None
    """On "gate": of the groups that were drawn."""
    groups: int | None = None
    """On "gate": drawn; as the two that follow, not told by earlier versions."""
    groups_with_signal: int | None = None
    wanted_share: float | None = None
    decision: Literal["go_on", "extend", "stop"] | None = None
    """On "gate": what follows."""


class Evaluation(Event):
    """A suite was evaluated."""

    KIND = "evaluation"
    suite: str
    when: Literal["baseline", "step", "final"]
    step: int
    problems: int
    samples: int
    pass_at: dict[int, float]
    interval_95: dict[int, tuple[float, float] | None]
    truncated_share: float
    unparsable_share: float
    completion_tokens_mean: float
    temperature: float
    top_p: float
    max_tokens: int
    rounds: dict[str, Any] | None = None
    """min, max, stopped_by; with until_width also width and floor, in points."""
    think: dict[str, Any] | None = None
    """Limits of thinking and what became of it; None where it had none of its own."""
    seconds: float


class Entropy(Event):
    """Exact mean token entropy on fresh completions (paper Eq. 1)."""

    KIND = "entropy"
    when: Literal["baseline", "step", "final"]
    step: int
    completions: int
    tokens: int
    mean_nats: float
    temperature: float
    seconds: float


class Checkpoint(Event):
    """A complete checkpoint is on the disk."""

    KIND = "checkpoint"
    step: int
    path: str
    """Relative to the run directory."""
    seconds: float
    best: bool = False
    reason: str = ""


class PlanEvent(Event):
    """The forecast was made anew."""

    KIND = "plan"
    step: int
    step_s: float
    reserve_s: float
    remaining_s: float
    forecast_steps: int
    forecast_low: int
    forecast_high: int
    ends_at_s: float
    """Expected elapsed seconds at the end of the run."""


class RunWarning(Event):
    """Something the user should know; `resolved` lifts an earlier one with the same code."""

    KIND = "warning"
    code: str
    message: str
    resolved: bool = False


class Error(Event):
    """The worker failed, or a process died."""

    KIND = "error"
    type: str
    message: str
    hint: str = ""
    exit_code: int | None = None


class Scores(BaseModel):
    """pass@k of one suite by k, or a difference in it."""

    model_config = ConfigDict(frozen=True, defer_build=True)
    pass_at: dict[int, float]
    interval_95: dict[int, tuple[float, float] | None] = {}
    samples: int | None = None
    """Complete rounds behind them."""


class RunFinished(Event):
    """The last line of an attempt that ended in order."""

    KIND = "run_finished"
    stop_reason: StopReason
    exit_code: int
    steps: int
    train_s: float
    baseline: dict[str, Scores] = {}
    """By suite, as the two that follow."""
    final: dict[str, Scores] | None = None
    difference: dict[str, Scores] | None = None
    best_checkpoint: str | None = None


_KINDS: dict[str, type[Event]] = {model.KIND: model for model in Event.__subclasses__()}


def changed_value(value: Any, limit: int = 60) -> str:
    """A value of a `changed` event for people: hashes are cut, and nothing is called so."""
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) == _HASH_DIGITS and not set(text) - set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def to_line(event: Event, stamp: Mapping[str, Any]) -> str:
    """One JSON line (without line feed); NaN and infinities become null."""
    data = event.model_dump(mode="python") | dict(stamp) | {"kind": event.KIND}
    if data["stage"] is None:
        del data["stage"]
    if not isinstance(event, Step):  # whose texts are problems and completions
        data = masked_tree(data)
    return json.dumps(_finite(data), ensure_ascii=True, allow_nan=False)


def parse(line: str | bytes) -> Event | None:
    """The event in a line, or None for a torn, foreign or unreadable one.

    An unknown kind, or a known kind whose shape a newer schema changed, comes back as a bare
    `Event` with its fields as extras.
    """
    try:
        data = json.loads(line, parse_float=_finite_number, parse_constant=_finite_number)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        return None
    try:
        return _KINDS.get(data["kind"], Event).model_validate(data)
    except ValidationError:
        pass
    try:
        return Event.model_validate(data)
    except ValidationError:
        return None


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"no writer of ours writes {text}")
    return number


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
