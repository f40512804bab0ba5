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

MOST_LOOKS = 200
"""Updates at which a long run is looked at."""
SPELL = 3
"""Looks in a row that make a finding, where it is over at the end."""
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


def diagnose(history: History, recipe: Recipe) -> list[Finding]:
    """Everything that the rules find in a run, the gravest and earliest first."""
    found = [*_by_rules(tell(history, recipe)), *_said(history)]
    return sorted(found, key=lambda one: (ORDER.index(one.severity), one.since_step))


def _by_rules(story: Story) -> Iterator[Finding]:
    numbers = [step.step for step in story.steps]
    every = max(1, len(numbers) // MOST_LOOKS)
    looks = [story.until(number) for number in numbers[::-1][::every][::-1]]
    if story.held and looks:
        looks.append(story)  # with the evaluation after the last update
    for rule in RULES:
        finding = _finding(rule, looks)
        if finding is not None:
            yield finding


def _finding(rule: Rule, looks: list[Story]) -> Finding | None:
    """The first spell that is long enough, or lasts; with what was seen in it last."""
    spell: list[tuple[int, Sign]] = []
    for story in looks:
        sign = rule.check(story)
        if sign is not None:
            spell.append((story.now, sign))
        elif len(spell) >= SPELL:
            break
        else:
            spell = []
    if not spell:
        return None
    (since, _), (_, sign) = spell[0], spell[-1]
    return Finding(
        rule.name,
        rule.severity,
        since,
        sign.says,
        sign.advice,
        sign.evidence,
        f"{rule.rule}; {rule.errs}",
    )


def _said(history: History) -> Iterator[Finding]:
    """Errors that ended the run, and warnings of its last updates."""
    step = history.steps[-1].step if history.steps else 0
    for error in history.errors[-1:]:
        evidence = {"type": error.type, "exit_code": error.exit_code}
        yield Finding("error", "stop", step, error.message, error.hint, evidence)
    for code, warning in history.warnings.items():
        advice = SAID.get(code)
        if code.startswith("constant_"):
            advice = "look at completions/: is it a limit that all of them reach?"
        if advice is not None:
            yield Finding(code, "warning", max(0, step - WINDOW), warning.message, advice, {})
