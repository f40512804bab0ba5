"""Rules on groups and answers: dead ones, golds in doubt, one answer, one kind of problem."""

from collections import Counter

from budgetrl.diagnosis.learning import accuracy_fell, rises
from budgetrl.diagnosis.sign import Sign
from budgetrl.diagnosis.story import WINDOW, Story, accuracy

DEAD = 0.8
SURE_GROUPS, SURE, LEAST_WRONG = 80, 0.25, 5
"""Newest groups that are looked at, share of those that agree, and number of those of them that
agree on a wrong answer."""
DOUBTED, WRONG, RIGHT = 0.1, 0.2, 0.75
"""Share of these among those that agree, with held-out accuracy as a witness and without; and share
of right completions that excuses them."""
GOLDS = 0.1
"""Held-out accuracy above that of training, which wrong golds keep low."""
ONE_ANSWER = 0.4
ONE_KIND, ASKED, LEAST_RIGHT = 0.8, 0.5, 40
"""Share of the right answers, at most so much of the groups, and right answers that tell."""


def golds_in_doubt(story: Story) -> Sign | None:
    """Where the model is sure it often differs from the gold answer, and held-out it is right."""
    seen, now = _sure(story, DOUBTED), story.last(accuracy)
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
    seen = _sure(story, WRONG)
    excused = rises(story) or (story.last(accuracy) or 0.0) > RIGHT
    if seen is None or excused or golds_in_doubt(story) is not None:
        return None
    agreed, wrong = seen
    return Sign(
        f"in {wrong} of the {agreed} groups whose completions agree, they agree on a wrong answer",
        "updates are too large, so that guesses set "
        f"(--set schedule.learning_rate={story.learning_rate / 3:.1g}, or a smaller lora.alpha), "
        "or golds are wrong: completions/ shows them beside the answers",
        {"agreed": agreed, "agreed_wrong": wrong},
    )


def _sure(story: Story, share: float) -> tuple[int, int] | None:
    """Of the newest groups those that agree, and on a wrong answer; None where few do so."""
    groups = agreed = wrong = 0
    for step in reversed(story.steps):
        if groups >= SURE_GROUPS:
            break
        groups += step.groups or 0
        agreed += step.groups_agreed or 0
        wrong += step.groups_agreed_wrong or 0
    sure = groups >= SURE_GROUPS and agreed >= SURE * groups
    enough = sure and wrong >= LEAST_WRONG and not story.taught
    return (agreed, wrong) if enough and wrong > share * agreed else None


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


def one_kind(story: Story) -> Sign | None:
    """Nearly all right answers are to one kind of problem, and others are asked as often."""
    steps = story.steps[-2 * WINDOW :]
    asked, right = Counter[str](), Counter[str]()
    for step in steps:
        for kind, (groups, answers) in (step.levels or {}).items():
            asked[kind] += groups
            right[kind] += answers
    if len(steps) < 2 * WINDOW or right.total() < LEAST_RIGHT:
        return None
    kind, times = right.most_common(1)[0]
    share, of_groups = times / right.total(), asked[kind] / asked.total()
    if share <= ONE_KIND or of_groups > ASKED:
        return None
    return Sign(
        f"{share:.0%} of the right answers are to problems of one level ({kind!r}), which "
        f"{of_groups:.0%} of the groups are about",
        "hardly anything is learnt from the others: look at their golds and completions; if they "
        "are too hard for this model, data.filter leaves them out",
        {"level": kind, "share_of_right": share, "share_of_groups": of_groups},
    )
