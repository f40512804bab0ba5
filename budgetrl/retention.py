"""Which training completions a run keeps on disk: `checkpoint.keep_completions`. Pure rules.

"all"        every update's
"sampled"    the first and the newest ten updates', and every tenth's
a number     the newest so many updates'
"""

SAMPLED_EVERY = 10
Rule = int | str


def is_kept(rule: Rule, step: int, newest: int) -> bool:
    """Whether the completions of an update are kept, once another one is the newest.

    Args:
        rule: "all", "sampled" or a number of updates; anything else is taken for "all".
        step: the update.
        newest: the last update that was made.
    """
    if rule == "sampled":
        recent = step > newest - SAMPLED_EVERY
        return recent or step <= SAMPLED_EVERY or step % SAMPLED_EVERY == 0
    return not isinstance(rule, int) or step > newest - rule


def dropped_by(rule: Rule, newest: int) -> int | None:
    """The one update whose completions go when `newest` is made."""
    step = newest - (rule if isinstance(rule, int) else SAMPLED_EVERY)
    return step if step > 0 and not is_kept(rule, step, newest) else None


def num_kept(rule: Rule, steps: int) -> int:
    """Updates of so many whose completions are on the disk at the end."""
    if rule == "sampled":
        ends = min(steps, 2 * SAMPLED_EVERY)
        return ends + max(0, (steps - SAMPLED_EVERY) // SAMPLED_EVERY - 1)
    return min(rule, steps) if isinstance(rule, int) else steps
