"""Which trials of a sweep go on: asynchronous successive halving by promotion.

    rungs_of(60, trials=18) -> (15, 60)             updates at which trials are judged
    next_trial(scores, rungs, busy) -> (index, rung) what a free card does next; None: nothing

Every trial makes the first rung's updates and is evaluated. The best quarter go on, from where they
stopped, to the next rung, and so on (Li et al. 2020, arXiv 1810.05934, algorithm 2 with eta = 4).
All trials are known beforehand, so the lowest rung comes first: one card does what synchronous
halving does, and with several none waits while a trial may be promoted.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

ETA = 4
"""One in so many goes on."""
LEAST_UPDATES = 4
"""Before a trial is judged."""
MOST_RUNGS = 2
"""A sixteenth of a run says which learning rates are too low, and not which are too high
(recipes/LOG.md); and each promotion loads the model again."""


def rule_words(rungs: Sequence[int]) -> str:
    """How trials are chosen, and what may go wrong with it, for people."""
    return (
        f"Judged after {', '.join(map(str, rungs))} updates. One in {ETA} trials goes on at each "
        "rung, by pass@1 of its evaluation there (ASHA by promotion, arXiv 1810.05934); the others "
        "end early, whole and evaluated. What learns slowly at first or collapses late is judged "
        "by its beginning: high learning rates look better early than they end. Without --asha "
        "every trial is run to its end."
    )


def rungs_of(steps: int, trials: int) -> tuple[int, ...]:
    """Updates at which trials are judged, the last being a whole run."""
    rungs = [steps]
    most = min(MOST_RUNGS, 1 + int(math.log(max(1, trials), ETA)))
    while len(rungs) < most and rungs[0] > LEAST_UPDATES * ETA // 2:
        rungs.insert(0, max(LEAST_UPDATES, math.ceil(rungs[0] / ETA)))
    return tuple(rungs)


def reaching(trials: int, rung: int) -> int:
    """How many trials come to a rung, counted from 0."""
    return int(max(1, trials // ETA**rung))


def next_trial(
    scores: Sequence[Mapping[int, float]],
    rungs: Sequence[int],
    busy: Mapping[int, int],
    out: Collection[int] = (),
    order: Iterable[int] | None = None,
) -> tuple[int, int] | None:
    """The trial to run next, and the updates that it shall have then.

    Args:
        scores: of every trial, by the updates at which it was judged.
        rungs: rising.
        busy: trials that are running, with the rung that they are on their way to.
        out: trials that failed.
        order: which comes first at the lowest rung; None: as they stand.
    """
    below = [i for i in order or range(len(scores)) if i not in out]
    for level, rung in enumerate(rungs):
        waiting = [i for i in below if rung not in scores[i] and i not in busy]
        if waiting:
            return waiting[0], rung
        judged = [i for i in below if rung in scores[i]]
        quota = min(len(judged) // ETA, reaching(len(scores), level + 1))
        if not any(goal <= rung for goal in busy.values()):  # nobody is still on the way
            quota = max(quota, min(1, len(judged)))
        # Python's sort is stable, so equal scores go in the order of the trials.
        below = sorted(judged, key=lambda i: -scores[i][rung])[:quota]
    return None
