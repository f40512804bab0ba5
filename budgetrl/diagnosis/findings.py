"""What was or is wrong with a run: rules over all of it, and what it said itself when it ended.

for finding in diagnose(history, recipe): ...       the gravest first
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from budgetrl.diagnosis.rules import RULES, Rule, Severity
from budgetrl.diagnosis.sign import Sign
from budgetrl.diagnosis.story import WINDOW, Story, tell
from budgetrl.history import History
from budgetrl.recipe.schema import Recipe
from budgetrl.types import RunStatus

MOST_LOOKS = 200
"""Updates at which a long run is looked at."""
SPELL = 3
"""Looks in a row that make a finding, where it is over at the end."""
CAUSES = 3
"""Findings that are shown whole; others are named."""
ORDER: tuple[Severity, ...] = ("stop", "warning", "info")
SAID = {
    "unparsable": "prompt.template has to ask for the answer in \\boxed{}; look at completions/",
    "truncated": "raise sampling.max_tokens; `budgetrl probe` says what each limit cuts and costs",
    "grader_timeouts": "`budgetrl grade` on completions/ shows which answers take so long",
    "sampler_gap": "`bash scripts/gpu_check.sh` finds out where sampler and trainer differ",
    "grader_errors": "`budgetrl grade` on completions/ shows which golds or answers are at fault",
    "non_finite": "a lower schedule.learning_rate, or model.dtype = float32",
    "no_signal": "`budgetrl probe` says whether this model can learn from these problems",
    "reward": "`budgetrl diagnose --reward module:function --data FILE` tries it on a battery",
}
"""Warnings of single updates that say what is wrong, and what helps."""
SAME = {"truncated": "cut_short", "no_signal": "dead_groups"}
"""Such warnings, and the rules that say it better."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or was."""

    name: str
    severity: Severity
    since_step: int
    """The update after which it could be seen first."""
    says: str
    advice: str
    evidence: dict[str, Any]
    rule: str = ""

    def to_json(self) -> dict[str, Any]:
        """For `budgetrl diagnose --json`."""
        return {
            "name": self.name,
            "severity": self.severity,
            "since_step": self.since_step,
            "says": self.says,
            "evidence": self.evidence,
            "advice": self.advice,
            "rule": self.rule,
        }


def diagnose(history: History, recipe: Recipe, status: RunStatus | None = None) -> list[Finding]:
    """Everything that the rules find in a run: the gravest first, and causes before symptoms.

    Args:
        history: of the run.
        recipe: of the run.
        status: what its files tell; None: not asked.
    """
    by_rules = list(_by_rules(tell(history, recipe)))
    named = {one.name for one in by_rules}
    warned = [one for one in _warned(history) if SAME.get(one.name) not in named]
    found = [*_ended(history, status), *by_rules, *warned]
    return sorted(found, key=lambda one: ORDER.index(one.severity))


def _by_rules(story: Story) -> Iterator[Finding]:
    spells = [_Spell(rule) for rule in RULES]
    for look in _looks(story):
        for spell in spells:
            spell.take(look)
    return (found for spell in spells if (found := spell.finding()) is not None)


def _looks(story: Story) -> Iterator[Story]:
    """The story as it was known at most so often, evenly; one at a time, for they are long."""
    numbers = [step.step for step in story.steps]
    every = max(1, len(numbers) // MOST_LOOKS)
    return story.looks(numbers[::-1][::every][::-1])


class _Spell:
    """The first spell of a rule that is long enough, or lasts; with what was seen in it last."""

    def __init__(self, rule: Rule) -> None:
        self._rule, self._is_over = rule, False
        self._seen: list[tuple[int, Sign]] = []

    def take(self, story: Story) -> None:
        """Ask the rule once more."""
        if self._is_over:
            return
        sign = self._rule.check(story)
        if sign is not None:
            self._seen.append((story.now, sign))
        elif len(self._seen) >= SPELL:
            self._is_over = True
        else:
            self._seen.clear()

    def finding(self) -> Finding | None:
        """What was found, if anything."""
        if not self._seen:
            return None
        (since, _), (_, sign) = self._seen[0], self._seen[-1]
        return Finding(
            self._rule.name,
            self._rule.severity,
            since,
            sign.says,
            sign.advice,
            sign.evidence,
            f"{self._rule.rule}; {self._rule.errs}",
        )


def _ended(history: History, status: RunStatus | None) -> Iterator[Finding]:
    """What ended the run before its time."""
    step = history.steps[-1].step if history.steps else 0
    for error in history.errors[-1:]:
        evidence = {"type": error.type, "exit_code": error.exit_code}
        yield Finding("error", "stop", step, error.message, error.hint, evidence)
    if status is RunStatus.CRASHED and not history.errors:
        kept = history.checkpoints[-1].step if history.checkpoints else None
        goes_on = "begins anew" if kept is None else f"goes on from the checkpoint of update {kept}"
        yield Finding(
            "crashed",
            "stop",
            step,
            "its processes ended without a word: killed, out of memory, or the machine went away",
            f"`budgetrl resume` {goes_on}; the last lines of worker.log and `dmesg` may say why",
            {"checkpoint": kept},
        )


def _warned(history: History) -> Iterator[Finding]:
    """Warnings of the last updates."""
    step = history.steps[-1].step if history.steps else 0
    for code, warning in history.warnings.items():
        advice = SAID.get(code)
        if code.startswith("constant_"):
            advice = "look at completions/: is it a limit that all of them reach?"
        if advice is not None:
            yield Finding(code, "warning", max(0, step - WINDOW), warning.message, advice, {})
