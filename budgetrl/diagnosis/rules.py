"""The rules: pure functions of a run so far, each with what it says and how often it errs.

    for rule in RULES: sign = rule.check(story)      None: nothing to say

A rule compares windows of updates, so that one odd update starts nothing. How often each of them
speaks up in healthy runs was counted (scripts/check_alarms.py, recipes/LOG.md).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from budgetrl.diagnosis.story import WINDOW, Held, Story, accuracy, accuracy_error
from budgetrl.events import Step

Severity = Literal["info", "warning", "stop"]

HEALTHY_RUNS = 8
"""Recorded, of a tiny model."""
FALSE_ALARMS: Mapping[str, int] = {}
"""How many of them a rule named; none where it is not here (scripts/check_alarms.py counts)."""
ANSWER_REWARDS = ("accuracy", "cosine", "signed")
"""Rewards that know whether an answer is right."""
LOST, LOST_SIGMA = 0.08, 3.0
"""A loss of accuracy that is one: points as a share, and standard errors."""
CUT = 0.25
"""Share of completions that end at the limit, above which the limit trains the model."""
RUNAWAY = 0.1
DEAD = 0.8
SURE_GROUPS, WRONG, LEAST_WRONG = 80, 0.1, 5
"""Newest groups that are looked at; share and number of those that agree on a wrong answer."""
GOLDS = 0.1
"""Held-out accuracy above that of training, which wrong golds keep low."""
GRADIENT = 5.0
CLIPPED = 0.3
GAP, GAP_GROWTH = 0.02, 5.0
ENTROPY, ENTROPY_NOW = 0.01, 0.05
ONE_ANSWER = 0.4
HALF = 0.5
ELSEWHERE = 0.3
GAIN_SIGMA = 3.0


class Sign(NamedTuple):
    """What a rule sees."""

    says: str
    advice: str
    evidence: dict[str, Any]


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


def accuracy_fell(story: Story) -> Sign | None:
    """Held-out accuracy, or that of training, is far below what it was."""
    slower = f"--set schedule.learning_rate={story.learning_rate / 3:.1g}"
    advice = (
        f"updates are too large: start again more slowly ({slower}, or a smaller lora.alpha); "
        "checkpoint.milestones keeps the better checkpoints, and select.use = best judges one"
    )
    if (fallen := _held_fell(story)) is not None:
        best, now = fallen
        evidence = {"best": best.accuracy, "best_step": best.step, "now": now.accuracy,
                    "now_step": now.step}  # fmt: skip
        says = (
            f"held-out accuracy fell from {best.accuracy:.0%} (update {best.step}) to "
            f"{now.accuracy:.0%} (update {now.step})"
        )
        return Sign(says, advice, evidence)
    window = 4
    if len(story.steps) < 2 * window or not story.stationary:
        return None
    values = [(accuracy(step) or 0.0) for step in story.steps]
    means = [sum(values[i : i + window]) / window for i in range(len(values) - window + 1)]
    best_mean = max(means[:-window])
    error = accuracy_error(story.steps[-1]) * math.sqrt(2 / window)
    if best_mean - means[-1] <= max(LOST, LOST_SIGMA * error):
        return None
    says = (
        f"the accuracy of training fell from {best_mean:.0%} to {means[-1]:.0%} "
        f"(means of {window} updates)"
    )
    return Sign(says, advice, {"best": best_mean, "now": means[-1]})


def _held_fell(story: Story) -> tuple[Held, Held] | None:
    if len(story.held) < 2:
        return None
    *before, now = story.held
    best = max(before, key=lambda one: one.accuracy)
    # The same problems: what differs is drawn twice, so this is rather strict.
    error = math.hypot(best.error, now.error)
    lost = best.accuracy - now.accuracy
    return (best, now) if lost > max(LOST, LOST_SIGMA * error * 0.8) else None


def reward_without_learning(story: Story) -> Sign | None:
    """The reward rises, and held-out accuracy does not."""
    gain = _gain(story, lambda step: step.reward_mean)
    if story.taught or gain is None or len(story.held) < 2 or story.now < 2 * WINDOW:
        return None
    error = _reward_error(story)
    base, now = story.held[0], story.held[-1]
    learnt = now.accuracy - base.accuracy
    if gain < GAIN_SIGMA * error or learnt > math.hypot(base.error, now.error) or now.step < WINDOW:
        return None
    return Sign(
        f"the reward rose by {gain:.2f}, and held-out accuracy went from {base.accuracy:.0%} to "
        f"{now.accuracy:.0%}",
        "the model learns what is paid for, and that is not the answer: `budgetrl diagnose "
        "--reward module:function --data FILE` attacks a reward of your own; see the completions "
        "with the highest reward in completions/",
        {"reward_gain": gain, "held_out_gain": learnt},
    )


def gain_elsewhere(story: Story) -> Sign | None:
    """What the reward gains comes from other rewards than those that know the answer."""
    if story.taught:
        return None
    paid = {name for name, weight in story.weights.items() if weight}
    if not paid & set(ANSWER_REWARDS) and paid <= {"format", "soft_overlong"}:
        return Sign(
            f"no reward of this run looks at the answer, only {', '.join(sorted(paid))}",
            'give a weight to [[rewards]] name = "accuracy"',
            {"weights": dict(story.weights)},
        )
    gains = {
        name: story.weights[name] * gain
        for name in paid
        if (gain := _gain(story, lambda step, name=name: (step.rewards or {}).get(name)))  # type: ignore[misc]
        is not None
    }
    total = sum(gains.values())
    answers = sum(gain for name, gain in gains.items() if name in ANSWER_REWARDS)
    if story.now < 2 * WINDOW or total < GAIN_SIGMA * _reward_error(story):
        return None
    if answers >= ELSEWHERE * total:
        return None
    top = max(gains, key=lambda name: gains[name])
    return Sign(
        f"{gains[top] / total:.0%} of what the reward gained is {top}, and "
        f"{max(0.0, answers) / total:.0%} right answers",
        f"lower the weight of {top}, or raise that of accuracy; the completions with the highest "
        "reward show what is paid for",
        {"gain_by_reward": gains},
    )


def golds_in_doubt(story: Story) -> Sign | None:
    """Where the model is sure it often differs from the gold answer, and held-out it is right."""
    seen, now = _sure(story), story.last(accuracy)
    if seen is None or not story.held or now is None:
        return None
    agreed, wrong = seen
    newest, best = story.held[-1], max(story.held, key=lambda one: one.accuracy)
    better = newest.accuracy - now
    # Held-out accuracy is older than training's, and only one that holds tells of the golds.
    fallen = newest.accuracy < best.accuracy - best.error or accuracy_fell(story) is not None
    if better < GOLDS or fallen or newest.step < story.now - 2 * WINDOW:
        return None
    return Sign(
        f"in {wrong} of the {agreed} groups whose completions agree, their answer is not the gold "
        f"one, and held-out accuracy is {100 * better:.0f} points above that of training",
        "look at those problems' golds, which completions/ shows beside the answers; wrong ones "
        "teach the model to doubt what it knows",
        {"agreed": agreed, "agreed_wrong": wrong, "held_out_above_training": better},
    )


def sure_but_wrong(story: Story) -> Sign | None:
    """Where the model is sure it is often wrong: it unlearns, or the golds are."""
    seen = _sure(story)
    if seen is None or golds_in_doubt(story) is not None:
        return None
    agreed, wrong = seen
    return Sign(
        f"in {wrong} of the {agreed} groups whose completions agree, they agree on a wrong answer",
        "updates are too large, so that guesses set "
        f"(--set schedule.learning_rate={story.learning_rate / 3:.1g}, or a smaller lora.alpha), "
        "or golds are wrong: completions/ shows them beside the answers",
        {"agreed": agreed, "agreed_wrong": wrong},
    )


def _sure(story: Story) -> tuple[int, int] | None:
    """Of the newest groups those that agree, and on a wrong answer; None where few do so."""
    groups = agreed = wrong = 0
    for step in reversed(story.steps):
        if groups >= SURE_GROUPS:
            break
        groups += step.groups or 0
        agreed += step.groups_agreed or 0
        wrong += step.groups_agreed_wrong or 0
    enough = groups >= SURE_GROUPS and wrong >= LEAST_WRONG and not story.taught
    return (agreed, wrong) if enough and wrong > WRONG * agreed else None


def cut_short(story: Story) -> Sign | None:
    """Many completions end at the token limit."""
    share = story.last(lambda step: step.truncated_share)
    if share is None or share <= CUT:
        return None
    return Sign(
        f"{share:.0%} of the completions end at sampling.max_tokens = {story.max_tokens}",
        "an answer that was cut counts as wrong, so the model learns to be short: raise "
        "sampling.max_tokens; `budgetrl probe` says what each limit cuts and costs",
        {"truncated_share": share, "max_tokens": story.max_tokens},
    )


def length_runaway(story: Story) -> Sign | None:
    """Completions grow towards the limit."""
    before = story.first(lambda step: step.truncated_share)
    now = story.last(lambda step: step.truncated_share)
    if before is None or now is None or now - before <= RUNAWAY or now > CUT:
        return None
    tokens = story.last(lambda step: step.completion_tokens_mean)
    return Sign(
        f"completions grow: {now:.0%} end at the limit of {story.max_tokens} tokens, where "
        f"{before:.0%} did",
        "a `soft_overlong` reward makes length cost something; a larger sampling.max_tokens gives "
        "it room",
        {"truncated_share": now, "at_first": before, "tokens_mean": tokens},
    )


def dead_groups(story: Story) -> Sign | None:
    """Few groups have anything to learn from, and there are updates to come."""
    steps = story.steps[-2 * WINDOW :]
    groups = sum(step.groups or 0 for step in steps)
    unknown = any(step.groups_all_wrong is None for step in steps)
    if story.taught or len(steps) < 2 * WINDOW or unknown:
        return None
    right = sum(step.groups_all_right or 0 for step in steps) / groups
    wrong = sum(step.groups_all_wrong or 0 for step in steps) / groups
    if right + wrong <= DEAD or wrong <= right:
        return None
    return Sign(
        f"{right + wrong:.0%} of the groups teach nothing: {wrong:.0%} are all wrong, {right:.0%} "
        "all right",
        'these problems are too hard for this model: easier ones, signal.order = "difficulty", or '
        "worked examples first; `budgetrl probe` says which problems it sometimes solves",
        {"all_wrong": wrong, "all_right": right},
    )


def no_progress(story: Story) -> Sign | None:
    """Half of the updates are made and nothing was learnt."""
    if story.used < HALF or story.now < 2 * WINDOW:
        return None
    gain, now = _gain(story, accuracy), story.last(accuracy)
    if gain is None or now is None or now > 0.9:
        return None
    error = accuracy_error(story.steps[-1]) * math.sqrt(2 / WINDOW)
    learnt = story.held[-1].accuracy - story.held[0].accuracy if len(story.held) > 1 else gain
    if story.stationary and gain > error:
        return None
    if len(story.held) > 1 and learnt > math.hypot(story.held[0].error, story.held[-1].error):
        return None
    return Sign(
        f"after {story.used:.0%} of the updates accuracy is what it was ({now:.0%}, "
        f"{100 * gain:+.0f} points; {100 * error:.0f} are noise)",
        "`budgetrl probe` says whether this model can learn from these problems; a higher rate, or "
        "more completions a problem, are worth a try only if it says so",
        {"gain": gain, "held_out_gain": learnt},
    )


def plateau(story: Story) -> Sign | None:
    """Learning has come to rest: what the updates to come would still buy."""
    gain = _gain(story, accuracy)
    values = story.values(accuracy)
    third = max(WINDOW, len(values) // 3)
    if gain is None or len(values) < 4 * WINDOW or len(values) < 2 * third:
        return None
    recent = sum(values[-third:]) / third - sum(values[-2 * third : -third]) / third
    error = accuracy_error(story.steps[-1]) * math.sqrt(2 / third)
    if recent > error or gain <= 3 * error:
        return None
    left = story.planned - story.now
    buys = max(0.0, recent) * left / third
    return Sign(
        f"accuracy rests at {story.last(accuracy) or 0.0:.0%}: {left} updates to come would buy "
        f"about {100 * buys:.0f} points",
        "stop here, or give harder problems",
        {"recent_gain": recent, "left": left},
    )


def gradients(story: Story) -> Sign | None:
    """The norm of the gradient grew far beyond what it was."""
    norms = sorted(story.values(lambda step: step.grad_norm)[:WINDOW])
    recent = sorted(story.values(lambda step: step.grad_norm)[-WINDOW:])
    if len(story.steps) < 2 * WINDOW or len(norms) < WINDOW:
        return None
    before, now = norms[WINDOW // 2], recent[WINDOW // 2]
    if before <= 0 or now < GRADIENT * before:
        return None
    return Sign(
        f"the gradient's norm is {now / before:.0f} times what it was ({now:.2g})",
        f"a lower rate (--set schedule.learning_rate={story.learning_rate / 3:.1g}) or a smaller "
        "optimizer.max_grad_norm",
        {"before": before, "now": now},
    )


def clipped(story: Story) -> Sign | None:
    """Many tokens' ratios are clipped: the policy moves too far within a batch."""
    share = story.last(lambda step: step.clip_share)
    if share is None or share <= CLIPPED:
        return None
    return Sign(
        f"{share:.0%} of the tokens' ratios are clipped",
        "fewer batch.updates_per_rollout, or a lower rate",
        {"clip_share": share},
    )


def sampler_drifts(story: Story) -> Sign | None:
    """Sampler and trainer differ more and more: the adapter of one of them is stale."""
    before = story.first(lambda step: step.sampling_logp_diff_mean)
    now = story.last(lambda step: step.sampling_logp_diff_mean)
    if before is None or now is None or now <= GAP or now <= GAP_GROWTH * before:
        return None
    return Sign(
        f"sampler and trainer differ by {now:.3f} nats a token, {before:.3f} at first",
        "completions are drawn with another adapter than is trained: `bash scripts/gpu_check.sh` "
        "finds out where; report it",
        {"now": now, "at_first": before},
    )


def entropy_collapse(story: Story) -> Sign | None:
    """Nothing is tried any more, or will not be soon."""
    before = story.first(lambda step: step.entropy)
    now, right = story.last(lambda step: step.entropy), story.last(accuracy)
    if before is None or now is None or right is None or before <= 0 or right > 0.9:
        return None
    floor = max(ENTROPY_NOW * before, ENTROPY)
    updates = len(story.steps) - WINDOW
    rate = math.log(before / max(now, 1e-9)) / updates
    ends = story.now + (math.log(now / floor) / rate if rate > 0 and now > floor else 0)
    if now > floor:
        return None
    return Sign(
        f"entropy fell from {before:.2f} to {now:.3f} nats a token while {right:.0%} are right",
        "hardly anything else is tried: a lower rate, grpo.beta > 0, sampling.temperature = 1, or "
        "grpo.epsilon_high = 0.28",
        {"entropy": now, "at_first": before, "projected_update": round(ends)},
    )


def one_answer(story: Story) -> Sign | None:
    """One answer is given to most problems."""
    share = story.last(lambda step: step.top_answer_share)
    usual = story.last(lambda step: step.top_gold_share)
    if share is None or usual is None or share <= max(ONE_ANSWER, 2 * usual):
        return None
    top = story.steps[-1].top_answer
    return Sign(
        f"{share:.0%} of the completions have one answer ({top!r}), where at most {usual:.0%} of "
        "the golds are alike",
        "a reward pays for that answer, or the data have it too often: look at the completions",
        {"share": share, "answer": top},
    )


def _gain(story: Story, of: Callable[[Step], float | None]) -> float | None:
    before, now = story.first(of), story.last(of)
    return None if before is None or now is None else now - before


def _reward_error(story: Story) -> float:
    """Standard error of the difference of two windows' rewards."""
    steps = story.steps[-WINDOW:]
    spread = sum((step.reward_std or 0.0) ** 2 for step in steps) / max(1, len(steps))
    groups = (steps[-1].groups or 1) if steps else 1
    return max(0.01, math.sqrt(2 * 0.56 * spread / (WINDOW * max(1, groups))))


RULES = (
    Rule("accuracy_fell", "stop", "held-out accuracy 8 points and 2.4 standard errors below its "
         "best; or four updates of training 8 points and 3 errors below the best four",
         accuracy_fell),
    Rule("reward_without_learning", "warning", "the reward rose by 3 standard errors, held-out "
         "accuracy by less than one", reward_without_learning),
    Rule("gain_elsewhere", "warning", "less than 30 % of a reward's gain is from rewards that know "
         "the answer; or none of them has a weight", gain_elsewhere),
    Rule("golds_in_doubt", "warning", "of the newest 80 groups more than 10 % of those that agree "
         "agree on another answer than the gold one (five at least), and held-out accuracy is 10 "
         "points above that of training", golds_in_doubt),
    Rule("sure_but_wrong", "warning", "the same, without held-out accuracy that would put it down "
         "to the golds", sure_but_wrong),
    Rule("cut_short", "warning", "more than 25 % of the completions of five updates end at the "
         "limit", cut_short),
    Rule("length_runaway", "warning", "10 % more of the completions end at the limit than at "
         "first", length_runaway),
    Rule("dead_groups", "warning", "more than 80 % of the groups of ten updates teach nothing, and "
         "most of them are all wrong", dead_groups),
    Rule("no_progress", "warning", "after half of the updates neither accuracy nor held-out "
         "accuracy is a standard error above its start", no_progress),
    Rule("gradients", "warning", "the median gradient norm of five updates is five times that of "
         "the first five", gradients),
    Rule("clipped", "warning", "more than 30 % of the ratios of five updates are clipped", clipped),
    Rule("sampler_drifts", "warning", "sampler and trainer differ by 0.02 nats a token and five "
         "times what they did", sampler_drifts),
    Rule("entropy_collapse", "warning", "entropy is below 5 % of its start, and less than 90 % of "
         "the completions are right", entropy_collapse),
    Rule("one_answer", "warning", "40 % of the completions have one answer, twice as many as any "
         "gold", one_answer),
    Rule("plateau", "info", "a third of the updates brought less than a standard error", plateau),
)  # fmt: skip
