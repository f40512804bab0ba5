"""Warnings that a human would want to be woken for, while a run can still be mended.

`Alarms` looks at one update, `Watch` at the run so far, by the rules that `budgetrl diagnose` has
for finished runs.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from budgetrl.diagnosis.rules import RULES
from budgetrl.diagnosis.story import Story
from budgetrl.engine.kept_share import LEAST
from budgetrl.training.recorder import StepRecord
from budgetrl.types import Verdict

WINDOW = 10
"""Steps that a reward must stand still for."""
OFTEN = 200
"""Updates after each of which the whole run is looked at; later now and then."""

MAX_LOGP_GAP = 0.1
"""Nats per token: rounding to bfloat16 on both sides explains a few hundredths, another adapter or
template makes several tenths."""


class Alarm(NamedTuple):
    """One warning that begins or ends."""

    code: str
    message: str
    resolved: bool


def no_signal(updates: int, accuracy: float | None) -> str:
    """What to say when no group of so many updates had right and wrong completions.

    Args:
        updates: in a row.
        accuracy: share of right completions in the last of them; None if none could be graded.
    """
    if accuracy == 1.0:
        return (
            f"in the last {updates} updates every completion was right: the model solves these "
            "problems, and there is nothing left to learn from them; give harder ones for more"
        )
    return (
        f"in the last {updates} updates 0 % of the groups had right and wrong completions, so "
        "nothing is learnt; `budgetrl probe` says whether this model can learn from this data, or "
        "give easier problems"
    )


@dataclass(slots=True)
class Alarms:
    """Watches steps; tells when a warning begins and when it is over.

    Args:
        maxima: the highest value that each reward can take, by name.
    """

    maxima: dict[str, float]
    _recent: deque[dict[str, float | None]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _open: dict[str, str] = field(default_factory=dict)

    def observe(self, record: StepRecord) -> list[Alarm]:
        """The warnings that begin or end with a step."""
        self._recent.append({name: record.component_mean(name) for name in self.maxima})
        now = dict(self._conditions(record))
        began = [Alarm(code, text, False) for code, text in now.items() if code not in self._open]
        ended = [Alarm(code, text, True) for code, text in self._open.items() if code not in now]
        self._open = now
        return began + ended

    def _conditions(self, record: StepRecord) -> Iterator[tuple[str, str]]:
        total = len(record.completions)
        verdicts = record.verdicts
        if verdicts[Verdict.UNPARSABLE] > 0.5 * total:
            yield "unparsable", "more than half of the completions have no readable boxed answer"
        if sum(completion.truncated for completion in record.completions) > 0.5 * total:
            yield "truncated", "more than half of the completions hit sampling.max_tokens"
        if verdicts[Verdict.TIMEOUT] > 0.01 * total:
            yield "grader_timeouts", "more than 1 % of the answers took too long to grade"
        if record.logp_gap is not None and record.logp_gap > MAX_LOGP_GAP:
            yield (
                "sampler_gap",
                f"sampler and trainer differ by {record.logp_gap:.2f} nats a token, above "
                f"{MAX_LOGP_GAP}: a stale adapter, or another prompt than the trainer's",
            )
        if record.kept_share is not None:
            yield (
                "not_folded",
                f"{record.kept_share:.0%} of a layer's adapter would be left in folded weights, "
                f"below {LEAST:.0%}: it is drawn with the adapter beside them",
            )
        # A reward of the user's that fails is told of with its name.
        ungraded = sum(b.verdict is Verdict.ERROR and not b.fault for b in record.breakdowns)
        if ungraded:
            yield "grader_errors", f"{ungraded} completions could not be graded"
        if len(self._recent) == WINDOW:
            for name, maximum in self.maxima.items():
                values = {step[name] for step in self._recent}
                value = next(iter(values))
                if len(values) == 1 and value is not None and value < maximum:
                    text = f"the reward {name!r} was {value:g} in all of the last {WINDOW} steps"
                    yield f"constant_{name}", text


@dataclass(slots=True)
class Watch:
    """Looks at the whole run after updates and evaluations, by `diagnosis`; one warning each.

    Args:
        story: of the run so far.
    """

    story: Callable[[], Story]
    _open: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Message and newest update of what was warned of."""

    def observe(self, step: int, *, evaluated: bool = False) -> list[Alarm]:
        """The warnings that begin, and those that have not held for a while."""
        if step > OFTEN and step % WINDOW and not evaluated:
            return []
        story, alarms = self.story(), []
        for rule in RULES:
            sign = rule.check(story)
            if sign is not None:
                message = f"{sign.says}; {sign.advice}"
                if rule.name not in self._open:
                    alarms.append(Alarm(rule.name, message, False))
                self._open[rule.name] = (message, step)
            elif rule.name in self._open and step - self._open[rule.name][1] >= 2 * WINDOW:
                alarms.append(Alarm(rule.name, self._open.pop(rule.name)[0], True))
        return alarms
