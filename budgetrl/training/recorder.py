"""What happened in one step: completions, rewards, and the numbers that events are made of.

The recorder stands between TRL and the rewards. TRL gets one reward function, `score`, whose
value is the recipe's weighted sum; the parts stay here for the events and the completion file.

Shapes: P prompts, G completions of each, B = P * G rows in order of their groups.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from budgetrl.diagnosis.groups import Group, group_facts
from budgetrl.engine.base import Rollout
from budgetrl.masking import masked
from budgetrl.training.down_sampling import down_sample
from budgetrl.types import Completion, Problem, RewardBreakdown, Verdict

RewardFunction = Callable[[Sequence[Completion], Sequence[str]], Sequence[RewardBreakdown]]
"""Scores completions by their gold answers: one breakdown for each."""


@dataclass(slots=True)
class StepRecord:
    """What one update rolled out, resampled groups included."""

    step: int
    """The update it belongs to, counted from 1."""
    group_size: int
    problems: list[Problem] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    breakdowns: list[RewardBreakdown] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
    entropy_sum: float | None = None
    """Summed over all tokens, in nats; None where the engine does not see it."""
    logp_sum: float | None = None
    """Of the sampled tokens under the sampler; None where it does not tell."""
    logp_gap: float | None = None
    """Mean difference between sampler and trainer, in nats; None where they are one."""
    kept_share: float | None = None
    """Of the adapter, what folded weights would have kept where it was not folded for that."""
    switch_s: Counter[str] = field(default_factory=Counter)
    """Seconds of wake, sync and sleep; empty where sampler and trainer are one."""
    replaced: set[int] = field(default_factory=set)
    """Groups that gave way to resampled ones."""
    slots: list[int] = field(default_factory=list)
    """Group at each place of the update."""
    padding_share: float = 0.0
    """Padding among the completion tokens of the update."""

    @property
    def tokens(self) -> int:
        """Completion tokens rolled out."""
        return sum(completion.num_tokens for completion in self.completions)

    @property
    def entropy(self) -> float | None:
        """Per token, in nats: exact, or else the sampled estimate -mean log p."""
        total = self.entropy_sum
        if total is None and self.logp_sum is not None:
            total = -self.logp_sum
        return None if total is None else total / max(1, self.tokens)

    @property
    def verdicts(self) -> Counter[str]:
        """How often each verdict was given."""
        counted = Counter({verdict.value: 0 for verdict in Verdict})
        counted.update(breakdown.verdict.value for breakdown in self.breakdowns)
        return counted

    def note(self, rollout: Rollout, gap: float | None) -> None:
        """Take over what a rollout tells of its tokens."""
        if rollout.entropy_sum is not None:
            self.entropy_sum = (self.entropy_sum or 0.0) + rollout.entropy_sum
        if rollout.logps is not None:
            self.logp_sum = (self.logp_sum or 0.0) + sum(map(sum, rollout.logps))
        self.kept_share = rollout.kept_share
        self.switch_s.update(rollout.switch_s or {})
        if gap is not None:
            self.logp_gap = max(self.logp_gap or 0.0, gap)

    def groups(self) -> list[list[RewardBreakdown]]:
        """The breakdowns by group."""
        size = self.group_size
        return [self.breakdowns[i : i + size] for i in range(0, len(self.breakdowns), size)]

    def live_rows(self, *, by_accuracy: bool) -> list[bool]:
        """Which rows of the update have something to teach: groups whose rewards, or answers, vary.

        Args:
            by_accuracy: right and other answers have to occur in a group.
        """
        groups = [self.groups()[slot] for slot in self.slots]
        live = [has_signal(group) if by_accuracy else not is_constant(group) for group in groups]
        return [alive for alive in live for _ in range(self.group_size)]

    def down_sample(self, count: int, scale: str) -> tuple[list[bool], list[float]]:
        """Keep the rows of each group that differ most, with the advantages that they have alone.

        Returns:
            of each row of the update whether it is kept, and its advantage.
        """
        groups, size = self.groups(), self.group_size
        rewards = [[breakdown.total for breakdown in groups[slot]] for slot in self.slots]
        kept, advantages = down_sample(rewards, count, scale)
        for place, slot in enumerate(self.slots):
            own = advantages[place * size : (place + 1) * size]
            self.advantages[slot * size : (slot + 1) * size] = own
        return kept, advantages

    def event_fields(self) -> dict[str, Any]:
        """The fields of a step event that come from completions and rewards."""
        totals = [b.total for b in self.breakdowns if b.total is not None]
        lengths = [completion.num_tokens for completion in self.completions]
        graded = [b.verdict for b in self.breakdowns if b.verdict is not Verdict.ERROR]
        groups = self.groups()
        return {
            "reward_mean": statistics.fmean(totals) if totals else None,
            "reward_std": statistics.pstdev(totals) if totals else None,
            "accuracy_mean": _share([v is Verdict.CORRECT for v in graded]),
            "format_mean": self.component_mean("format"),
            "completion_tokens_mean": statistics.fmean(lengths),
            "completion_tokens_max": max(lengths),
            "truncated_share": _share([c.truncated for c in self.completions]) or 0.0,
            "entropy": self.entropy,
            "entropy_kind": "exact" if self.entropy_sum is not None else "sampled",
            "sampling_logp_diff_mean": self.logp_gap,
            "switch_s": dict(self.switch_s) or None,
            "groups": len(groups),
            "groups_with_signal": sum(
                has_signal(group) for i, group in enumerate(groups) if i not in self.replaced
            ),
            "groups_resampled": len(self.replaced),
            "completions": len(self.completions),
            "tokens": self.tokens,
            "padding_share": self.padding_share,
            "grader": dict(self.verdicts),
            "rewards": {name: self.component_mean(name) for name in self._reward_names()},
            **group_facts(
                [
                    Group(
                        [b.verdict for b in group],
                        [b.extracted for b in group],
                        problem.answer,
                        problem.level,
                    )
                    for problem, group in zip(self.problems, groups, strict=False)
                ]
            ),
        }

    def _reward_names(self) -> list[str]:
        return list(dict.fromkeys(name for b in self.breakdowns for name in b.components))

    def component_mean(self, name: str) -> float | None:
        """Mean of one reward before its weight; None if it is not used or never computed."""
        values = [b.components[name] for b in self.breakdowns if b.components.get(name) is not None]
        return statistics.fmean(v for v in values if v is not None) if values else None

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the step's completion file."""
        return [self._row(place) for place in range(len(self.completions))]

    def _row(self, place: int) -> dict[str, Any]:
        problem = self.problems[place // self.group_size]
        completion, breakdown = self.completions[place], self.breakdowns[place]
        return {
            "step": self.step,
            "problem_id": problem.id,
            "problem": problem.text,
            "answer": problem.answer,
            "completion": completion.text,
            "tokens": completion.num_tokens,
            "truncated": completion.truncated,
            "verdict": breakdown.verdict.value,
            "extracted": breakdown.extracted,
            "reward": breakdown.total,
            "components": dict(breakdown.components),
            "advantage": self.advantages[place],
            **({} if breakdown.fault is None else {"fault": masked(breakdown.fault)}),
        }

    def sample(self) -> Mapping[str, Any]:
        """One completion for the live view; another row each step."""
        row = self._row((self.step * 7919) % len(self.completions))
        keys = ("problem", "answer", "completion", "verdict", "extracted")
        return {key: _short(row[key]) for key in keys}


def is_constant(group: Sequence[RewardBreakdown]) -> bool:
    """Whether all rewards of a group are equal, so that its advantages are zero.

    TRL's own count never sees this with weights 0.2 + 1: eight equal float32 rewards of 1.2 have
    a standard deviation of 1.3e-7.
    """
    totals = [b.total for b in group if b.total is not None]
    return not totals or max(totals) - min(totals) < 1e-9


def has_signal(group: Sequence[RewardBreakdown]) -> bool:
    """Whether both a right and a not right completion occur, leaving out grader errors."""
    graded = [b.verdict is Verdict.CORRECT for b in group if b.verdict is not Verdict.ERROR]
    return any(graded) and not all(graded)


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _short(value: Any, limit: int = 600) -> Any:
    return value[:limit] if isinstance(value, str) else value
