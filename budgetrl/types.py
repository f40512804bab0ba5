"""The vocabulary of budgetrl: values that cross modules or reach the disk. Read this first.

A *problem* has a text and a known answer. The model answers it with *completions*; the completions
of one problem in one step are a *group*. Grading gives each completion a *verdict*, the rewards a
*breakdown*. A *protocol* says how an evaluation was made; only equal protocols may be compared.
A *plan* says what a budget buys, a *spend* what was paid.

Times are seconds, money is dollars, shares are 0..1, and None means "not measured", never zero.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple, Self


class Verdict(StrEnum):
    """What the grader says of one completion."""

    CORRECT = "correct"
    """The answer in the last box equals the gold answer."""
    WRONG = "wrong"
    """There is an answer, and it does not equal the gold answer."""
    UNPARSABLE = "unparsable"
    """There is no box, or the last one is blank or cut off."""
    TIMEOUT = "timeout"
    """Grading took too long; scores 0 and is counted."""
    ERROR = "error"
    """The grader or the gold answer is at fault; the row has no reward at all."""


class StopReason(StrEnum):
    """Why a run ended."""

    COMPLETED = "completed"
    """The recipe's stop_after_steps is reached."""
    BUDGET = "budget"
    """One more update did not fit, or the deadline came."""
    NO_SIGNAL = "no_signal"
    """No group had anything to learn from, and the recipe says to stop then."""
    INTERRUPTED = "interrupted"
    """SIGINT or SIGTERM; saved, no final evaluation."""
    FAILED = "failed"
    """An error ended the run."""

    @property
    def status(self) -> "RunStatus":
        """What a run is that ended so."""
        ended = {StopReason.INTERRUPTED: RunStatus.INTERRUPTED, StopReason.FAILED: RunStatus.FAILED}
        return ended.get(self, RunStatus.FINISHED)


class RunStatus(StrEnum):
    """What a run directory tells about its run."""

    RUNNING = "running"
    """A process holds the lock of the event file."""
    FINISHED = "finished"
    """Ended as planned: completed, budget or no_signal."""
    INTERRUPTED = "interrupted"
    """Ended by a signal; can be resumed."""
    FAILED = "failed"
    """Ended by an error."""
    CRASHED = "crashed"
    """Nobody holds the lock, and nobody wrote an end."""


class EvalWhen(StrEnum):
    """The moments at which a recipe evaluates."""

    BASELINE = "baseline"
    """Before the first update."""
    STEP = "step"
    """During training."""
    FINAL = "final"
    """After the last update, on the selected checkpoint."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with a known answer."""

    id: str
    text: str
    """What the user turn of the prompt says (before the recipe's template)."""
    answer: str
    """The gold answer, in LaTeX or plain text."""
    level: str | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """What became of a completion's thinking under a budget of its own."""

    tokens: int
    """That the model thought; 0 where it did not begin to."""
    appended: int
    """Tokens of closing text and nudges, which the model did not write."""
    nudges: int
    forced: bool
    """Its end was the budget's."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy wrote after one prompt."""

    text: str
    """Decoded with the tags the model wrote; end-of-turn tokens removed."""
    num_tokens: int
    truncated: bool
    """True when the token limit ended it, so the model did not."""
    ids: tuple[int, ...] = field(default=(), compare=False, repr=False)
    """Its tokens, from engines that have any; the end token included."""
    thinking: Thinking | None = None
    """None: its thinking had no budget of its own."""


@dataclass(frozen=True, slots=True)
class RewardBreakdown:
    """The reward of one completion, and what it is made of."""

    total: float | None
    """The weighted sum the trainer gets; None when a part could not be computed."""
    components: Mapping[str, float | None]
    """Each reward's own value, before its weight."""
    verdict: Verdict
    extracted: str | None
    """The content of the box that was graded."""
    fault: str | None = None
    """Why there is no total."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How an evaluation was made: everything but the number of samples.

    Two results may be compared only if all of these are equal.
    """

    suite: str
    suite_fingerprint: str
    """Hash over ids, texts and answers of the problems."""
    prompt: str
    """Hash over the rendered prompts: system text, template and chat template."""
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    grader: str
    """Version of the grading rules."""
    date: str | None = None
    """What the prompts say of the day; None where the chat template prints none."""
    think: str | None = None
    """How thinking was limited, as JSON; None where it had no limit of its own."""
    sampler: str | None = None
    """Version of the draws; None where vLLM drew, nothing was drawn at random, or nobody noted."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """A protocol as it was stored.

        Raises:
            TypeError, ValueError: a field is missing, unknown, or of another type.
        """
        from pydantic import TypeAdapter  # most readers of these types do without

        TypeAdapter(cls).validate_python(data)
        return cls(**data)

    def differences(self, other: "Protocol") -> list[str]:
        """Names of the fields in which two protocols differ."""
        return [f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)]


Interval = tuple[float, float]


class Difference(NamedTuple):
    """Difference in pass@k between two evaluations of the same problems."""

    difference: float
    interval_95: Interval | None
    """Student t (k = 1) or bootstrap over per-problem differences; None for one problem."""
    samples: int
    """Rounds of both sides that were compared."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return self._asdict()


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One evaluation of one suite: estimates over all complete rounds."""

    suite: str
    when: str
    step: int
    problems: int
    samples: int
    """Complete rounds, that is samples per problem."""
    pass_at: Mapping[int, float]
    interval_95: Mapping[int, Interval | None]
    truncated_share: float
    unparsable_share: float
    completion_tokens_mean: float
    timeouts: int
    seconds: float
    protocol: Protocol
    maj_at: Mapping[int, float] = field(default_factory=dict)
    """Share of problems whose most frequent answer among k samples is right."""
    correct_tokens_mean: float | None = None
    wrong_tokens_mean: float | None = None
    rounds: Mapping[str, Any] | None = None
    """min, max and stopped_by ("width", "max", "budget"), as `evaluation.rounds` writes them."""
    think: Mapping[str, Any] | None = None
    """Limits of thinking and what became of it, as `evaluation.think` writes them."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping, k as text."""
        data = asdict(self)
        for key in ("pass_at", "interval_95", "maj_at"):
            data[key] = {str(k): v for k, v in data[key].items()}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; unknown keys are ignored."""
        from pydantic import TypeAdapter  # most readers of these types do without

        return TypeAdapter(cls).validate_python(data)


@dataclass(frozen=True, slots=True)
class Spend:
    """What was paid so far, over all attempts; gaps between attempts cost nothing."""

    wall_s: float
    train_s: float
    usd: float | None
    """None when no price is known."""
