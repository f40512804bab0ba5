"""How far sampler and trainer are apart, measured on a few completions of a rollout.

A stale adapter, other weights, a penalty that only one side knows: all show here first, because
both sides then give the same tokens other probabilities.
"""

from collections.abc import Callable, Sequence

from budgetrl.engine.base import Rollout

GAP_TOKENS = 256
"""First tokens of those completions: the logits of more would cost memory that training needs."""

Scorer = Callable[[Sequence[int], Sequence[int], float], list[float]]
"""Log-probability of each token of (prompt, completion) at a temperature, as the trainer has it."""


def mean_gap(
    trainer: Scorer,
    prompt_ids: Sequence[Sequence[int]],
    rollout: Rollout,
    temperature: float,
    rows: int,
) -> float | None:
    """Mean |log p (sampler) - log p (trainer)| of sampled tokens, in nats; None: not told.

    Args:
        trainer: scores one completion.
        prompt_ids: of each row of the rollout.
        rollout: with the sampler's log-probabilities.
        temperature: of the sampler.
        rows: completions to compare, spread over the rollout.
    """
    if rollout.logps is None:
        return None
    gaps: list[float] = []
    stride = max(1, len(rollout.ids) // rows)
    for row in range(0, len(rollout.ids), stride)[:rows]:
        ids = rollout.ids[row][:GAP_TOKENS]
        here = trainer(prompt_ids[row], ids, temperature)
        gaps += [abs(a - b) for a, b in zip(here, rollout.logps[row], strict=False)]
    return sum(gaps) / len(gaps) if gaps else None
