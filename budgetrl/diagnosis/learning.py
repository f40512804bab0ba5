"""Rules on what is learnt: accuracy, held-out accuracy, and what the reward gains."""

import math
from collections.abc import Callable, Iterator
from statistics import fmean

import numpy as np

from budgetrl.diagnosis.sign import Sign
from budgetrl.diagnosis.story import WINDOW, Held, Story, accuracy, accuracy_error
from budgetrl.diagnosis.trend import Trend, trend
from budgetrl.events import Step

ANSWER_REWARDS = ("accuracy", "cosine", "signed")
"""Rewards that know whether an answer is right."""
LOST, LOST_SIGMA = 0.08, 3.0
"""A loss of accuracy that is one: points as a share, and standard errors."""
CHANCE = 2.0
"""Standard errors above what the best of many windows is above their mean by chance."""
DRIFT, CUT_AT_FIRST = 0.02, 0.1
"""What explains a fall better than large updates: nats a token, and share of completions."""
HALF, PATIENCE = 0.5, 20
"""Share of the updates, and updates, that a run has to begin to learn: a weak start takes 15."""
RISING, SURE, SURE_AT_ONCE = 0.1, 0.025, 0.0033
"""Levels of one-sided tests: that accuracy rises, and that it did not gain what is worth it. The
last is that of each of many looks, from half of the updates to the end, of which one errs at the
level before it (by simulation of lines through white noise)."""
WORTH = 0.1
"""A gain, as a share."""
ELSEWHERE = 0.3
GAIN_SIGMA = 3.0


def accuracy_fell(story: Story) -> Sign | None:
    """Held-out accuracy, or that of training, is far below what it was."""
    advice = (
        f"{_likely(story)}; checkpoint.milestones keeps the better checkpoints, select.use = best "
        "judges one"
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
    graded = np.nan_to_num(story.accuracies)
    count = len(graded) - window + 1
    means = np.add.reduce([graded[i : i + count] for i in range(window)]) / window
    best_mean, now_mean = float(means[:-window].max()), float(means[-1])
    error = accuracy_error(story.steps[-1]) * math.sqrt(2 / window)
    by_chance = CHANCE + math.sqrt(2 * math.log(max(1.0, len(means) / window - 1)))
    if best_mean - now_mean <= max(LOST, max(LOST_SIGMA, by_chance) * error):
        return None
    says = (
        f"the accuracy of training fell from {best_mean:.0%} to {now_mean:.0%} "
        f"(means of {window} updates)"
    )
    return Sign(says, advice, {"best": best_mean, "now": now_mean})


def _likely(story: Story) -> str:
    """Why accuracy falls, and what helps."""
    paid = _gain(story, lambda step: step.reward_mean)
    cut = fmean(story.firsts(lambda step: step.truncated_share, WINDOW) or [0.0])
    drift = story.last(lambda step: step.sampling_logp_diff_mean)
    if drift is not None and drift > DRIFT:
        return f"sampler and trainer differ by {drift:.2f} nats a token, and have to be one first"
    if cut > CUT_AT_FIRST:
        return (
            f"at first {cut:.0%} of the completions ended at the limit and counted as wrong, so "
            "the model learnt to be short: raise sampling.max_tokens; `budgetrl probe` says how far"
        )
    if paid is not None and paid > GAIN_SIGMA * _reward_error(story):
        return (
            "the reward rose meanwhile, so it pays for something else than right answers: see the "
            "completions with the highest reward in completions/"
        )
    return (
        "updates are too large: start again more slowly (--set schedule.learning_rate="
        f"{story.learning_rate / 3:.1g}, or a smaller lora.alpha)"
    )


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
        f"{min(1.0, gains[top] / total):.0%} of what the reward gained is {top}, and "
        f"{max(0.0, answers) / total:.0%} right answers",
        f"lower the weight of {top}, or raise that of accuracy; the completions with the highest "
        "reward show what is paid for",
        {"gain_by_reward": gains},
    )


def rises(story: Story) -> bool:
    """Whether accuracy is a standard error above what it was ten updates ago, or at first."""
    values = story.lasts(accuracy, 3 * WINDOW)
    now, before = values[:WINDOW], values[WINDOW:][-WINDOW:]
    return bool(before) and fmean(now) - fmean(before) > _window_error(story)


def _window_error(story: Story) -> float:
    """Standard error of the difference of two windows' accuracies."""
    return accuracy_error(story.steps[-1]) * math.sqrt(2 / WINDOW)


def no_progress(story: Story) -> Sign | None:
    """Half of the updates are made, and a gain that matters is neither seen nor possible.

    By lines through accuracy and held-out accuracy. Neither may rise, so that a slow start is left
    alone: by one-sided tests, of level `RISING` at the end and easier to pass before, because they
    are made after each update. And one of them has to exclude that the run gains `WORTH` by its
    end, at level `SURE` over all the times that it is asked, so that little data accuses nobody.
    """
    if story.used < HALF or story.now < PATIENCE:
        return None
    now = story.last(accuracy)
    if now is None or now > 0.9 or accuracy_fell(story) is not None:
        return None
    lines = list(_lines(story))
    if not lines or any(line.rises(RISING / story.used**2) for line, _ in lines):
        return None
    updates = max(story.planned, story.now)
    most, line = min((line.most(level) * updates, line) for line, level in lines)
    if most >= WORTH:
        return None
    gain = line.slope * updates
    return Sign(
        f"after {story.used:.0%} of the updates accuracy is what it was ({now:.0%}): all "
        f"{updates} would gain {100 * gain:.0f} points, and at most {100 * most:.0f}",
        "`budgetrl probe` says whether this model can learn from these problems; a higher rate, or "
        "more completions a problem, are worth a try only if it says so",
        {"gain": gain, "gain_at_most": most},
    )


def _lines(story: Story) -> Iterator[tuple[Trend, float]]:
    """Of training and of held-out accuracy; with the level of one look at it."""
    if story.stationary:
        trained = trend(story.updates, story.accuracies)
        if trained is not None:
            yield trained, SURE_AT_ONCE
    held = trend([one.step for one in story.held], [one.accuracy for one in story.held])
    if held is not None:
        looks = math.ceil(HALF * len(story.held) / story.used)  # evaluations of the second half
        yield held, SURE / looks


def plateau(story: Story) -> Sign | None:
    """Learning has come to rest: what the updates to come would still buy."""
    gain = _gain(story, accuracy)
    if gain is None or gain <= 0:
        return None
    values = story.accuracies[~np.isnan(story.accuracies)]
    third = max(WINDOW, len(values) // 3)
    if len(values) < 4 * WINDOW or len(values) < 2 * third:
        return None
    recent = float(values[-third:].mean() - values[-2 * third : -third].mean())
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


def _gain(story: Story, of: Callable[[Step], float | None]) -> float | None:
    before, now = story.first(of), story.last(of)
    return None if before is None or now is None else now - before


def _reward_error(story: Story) -> float:
    """Standard error of the difference of two windows' rewards."""
    steps = story.steps[-WINDOW:]
    spread = sum((step.reward_std or 0.0) ** 2 for step in steps) / max(1, len(steps))
    groups = (steps[-1].groups or 1) if steps else 1
    return max(0.01, math.sqrt(2 * 0.56 * spread / (WINDOW * max(1, groups))))
