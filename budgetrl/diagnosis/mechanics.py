"""Rules on how completions and updates are made: length, gradients, clipping, sampler, entropy."""

import math
from statistics import fmean, median

from budgetrl.diagnosis.learning import accuracy_fell
from budgetrl.diagnosis.sign import Sign
from budgetrl.diagnosis.story import WINDOW, Story, accuracy
from budgetrl.events import Step

CUT = 0.2
"""Share of completions that end at the limit, above which the limit trains the model."""
RUNAWAY = 0.1
GRADIENT, SCATTER, STAYS = 5.0, 4.0, 2 * WINDOW
"""Times what the norm was; standard deviations of its logarithm; and updates, by their median: one
large gradient, or a few, are the rule in healthy runs."""
MAD = 1.4826
"""Standard deviation of a normal distribution, in median absolute deviations."""
CLIPPED = 0.3
GAP, GAP_GROWTH = 0.02, 5.0
ENTROPY, ENTROPY_NOW = 0.01, 0.05


def cut_short(story: Story) -> Sign | None:
    """Many completions end at the token limit, or did until the model learnt to be short."""
    share = story.last(lambda step: step.truncated_share)
    first = fmean(story.firsts(lambda step: step.truncated_share, WINDOW) or [0.0])
    learnt = first > CUT and accuracy_fell(story) is not None
    if share is None or (share <= CUT and not learnt):
        return None
    says = f"{share:.0%} of the completions end at sampling.max_tokens = {story.max_tokens}"
    return Sign(
        says if share > CUT else f"{says}, {first:.0%} did at first, and the model is short now",
        "an answer that was cut counts as wrong, so the model learns to be short: raise "
        "sampling.max_tokens; `budgetrl probe` says what each limit cuts and costs",
        {"truncated_share": share, "at_first": first, "max_tokens": story.max_tokens},
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


def gradients(story: Story) -> Sign | None:
    """The norm of the gradient is far above what it was and how it scattered, and stays there."""
    first, recent = story.firsts(_log_norm, STAYS), story.lasts(_log_norm, STAYS)
    if len(story.steps) < 2 * STAYS or min(len(first), len(recent)) < STAYS:
        return None
    before, now = median(first), median(recent)
    spread = MAD * median(abs(norm - before) for norm in first)
    if now - before < max(math.log(GRADIENT), SCATTER * spread):
        return None
    return Sign(
        f"the gradient's norm is {math.exp(now - before):.0f} times what it was "
        f"({math.exp(now):.2g}), for {STAYS} updates",
        f"a lower rate (--set schedule.learning_rate={story.learning_rate / 3:.1g}) or a smaller "
        "optimizer.max_grad_norm",
        {"before": math.exp(before), "now": math.exp(now)},
    )


def _log_norm(step: Step) -> float | None:
    """Norms scatter by factors; updates without signal have none."""
    return math.log(step.grad_norm) if step.grad_norm else None


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
