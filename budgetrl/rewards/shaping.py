"""Rewards that are pure functions of text, length and verdict: format and length shaping.

Not here: whether an answer is right (`grading.rules`), weights and sums (`rewards.registry`).
"""

import math

from budgetrl.grading.extraction import says_nothing

OPEN, CLOSE = "<think>", "</think>"


def think_format(completion: str, *, prefilled: bool) -> float:
    """1 for `<think>reasoning</think>answer`, else 0: the paper's R_format.

    Each tag exactly once and in this order (case counts), only white space before the first,
    reasoning not blank, and an answer: a blank box or punctuation alone is none.

    Args:
        completion: what the model wrote.
        prefilled: the prompt already opens `<think>`, so that the completion must not.
    """
    text = OPEN + completion if prefilled else completion
    if text.count(OPEN) != 1 or text.count(CLOSE) != 1:
        return 0.0
    before, _, rest = text.partition(OPEN)
    reasoning, closed, answer = rest.partition(CLOSE)
    whole = not before.strip() and closed and reasoning.strip() and not says_nothing(answer)
    return 1.0 if whole else 0.0


def signed(correct: bool) -> float:
    """+1 for a right answer, -1 otherwise (DeepScaleR)."""
    return 1.0 if correct else -1.0


def cosine(
    correct: bool,
    num_tokens: int,
    *,
    max_tokens: int,
    min_correct: float = 0.5,
    max_correct: float = 1.0,
    min_wrong: float = 0.0,
    max_wrong: float = -0.5,
) -> float:
    """Accuracy scaled by length along half a cosine: the reward of Open-RS and Tina.

    r = end + (start - end) / 2 * (1 + cos(pi * min(1, num_tokens / max_tokens))), from start =
    max_correct to end = min_correct for a right answer, from min_wrong to max_wrong for a wrong
    one. The formula is Yeo et al. 2025 (arXiv 2502.03373); names and bounds are those of both
    projects' configurations, where a wrong answer costs more the longer it is. They count 1,000
    characters and let the cosine come back beyond them; here it is tokens, and it stays down.

    Args:
        correct: whether the answer is right.
        num_tokens: length of the completion.
        max_tokens: length at which the reward reaches its end.
    """
    start, end = (max_correct, min_correct) if correct else (min_wrong, max_wrong)
    along = min(1.0, num_tokens / max_tokens)
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * along))


def soft_overlong(num_tokens: int, *, max_tokens: int, cache_tokens: int) -> float:
    """Length penalty: 0, then falling linearly to -1 over the last `cache_tokens` tokens.

    DAPO (arXiv 2503.14476), Eq. 13: with L_max = max_tokens and L_cache = cache_tokens,
    R = 0 for |y| <= L_max - L_cache; (L_max - L_cache - |y|) / L_cache up to L_max; -1 beyond.
    """
    over = num_tokens - (max_tokens - cache_tokens)
    return -min(1.0, max(0.0, over / cache_tokens))
