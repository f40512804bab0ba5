"""The rules: pure functions of a run so far, each with what it says and how often it errs.

    for rule in RULES: sign = rule.check(story)      None: nothing to say

A rule compares windows of updates, so that one odd update starts nothing. How often each of them
speaks up in healthy runs was counted (scripts/check_alarms.py, recipes/LOG.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from budgetrl.diagnosis import answers, learning, mechanics
from budgetrl.diagnosis.sign import Sign
from budgetrl.diagnosis.story import Story

Severity = Literal["info", "warning", "stop"]

HEALTHY_RUNS = 90
"""Recorded, of a tiny model."""
FALSE_ALARMS: Mapping[str, int] = {
    "accuracy_fell": 1,
    "golds_in_doubt": 2,
    "sure_but_wrong": 1,
}
"""How many of them a rule named; none where it is not here (scripts/check_alarms.py counts)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that may go wrong."""

    name: str
    severity: Severity
    rule: str
    """When it speaks, in words."""
    check: Callable[[Story], Sign | None]

    @property
    def errs(self) -> str:
        """Its false-alarm rate, as far as it was counted."""
        return f"spoke in {FALSE_ALARMS.get(self.name, 0)} of {HEALTHY_RUNS} recorded healthy runs"


RULES = (
    Rule("accuracy_fell", "stop", "held-out accuracy 8 points and 2.4 standard errors below its "
         "best; or four updates of training 8 points and 3 errors below the best four, more where "
         "there were many", learning.accuracy_fell),
    Rule("reward_without_learning", "warning", "the reward rose by 3 standard errors, held-out "
         "accuracy by less than one", learning.reward_without_learning),
    Rule("gain_elsewhere", "warning", "less than 30 % of a reward's gain is from rewards that know "
         "the answer; or none of them has a weight", learning.gain_elsewhere),
    Rule("sampler_drifts", "warning", "sampler and trainer differ by 0.02 nats a token and five "
         "times what they did", mechanics.sampler_drifts),
    Rule("golds_in_doubt", "warning", "a quarter of the newest 80 groups agree, more than 10 % of "
         "these on another answer than the gold one (five at least), and held-out accuracy is 10 "
         "points above that of training", answers.golds_in_doubt),
    Rule("sure_but_wrong", "warning", "a quarter of the newest 80 groups agree, more than 20 % of "
         "these on a wrong answer (five at least), less than 75 % of the completions are right, "
         "accuracy does not rise, and held-out accuracy does not put it down to the golds",
         answers.sure_but_wrong),
    Rule("cut_short", "warning", "more than 20 % of the completions of five updates end at the "
         "limit, or did at first and accuracy fell", mechanics.cut_short),
    Rule("length_runaway", "warning", "10 % more of the completions end at the limit than at "
         "first", mechanics.length_runaway),
    Rule("gradients", "warning", "the median gradient norm of ten updates is five times that of "
         "the first ten, and four of their standard deviations (robust, of logarithms) above",
         mechanics.gradients),
    Rule("clipped", "warning", "more than 30 % of the ratios of five updates are clipped",
         mechanics.clipped),
    Rule("entropy_collapse", "warning", "entropy is below 5 % of its start, and less than 90 % of "
         "the completions are right", mechanics.entropy_collapse),
    Rule("one_answer", "warning", "40 % of the completions have one answer, twice as many as any "
         "gold", answers.one_answer),
    Rule("one_kind", "warning", "more than 80 % of the right answers of ten updates are to "
         "problems of one level, which at most half of the groups are about", answers.one_kind),
    Rule("dead_groups", "warning", "more than 80 % of the groups of ten updates teach nothing, and "
         "most of them are all wrong", answers.dead_groups),
    Rule("no_progress", "warning", "after half of the updates, and 20, neither accuracy nor "
         "held-out accuracy rises (slope, one-sided, 10 %), and one of them excludes a gain of 10 "
         "points by the end (2.5 % over all looks)", learning.no_progress),
    Rule("plateau", "info", "a third of the updates brought less than a standard error",
         learning.plateau),
)  # fmt: skip
"""Causes before what follows from them: so they are listed."""
