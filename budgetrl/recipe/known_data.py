"""Data sets of the hub whose columns are known, so that `data.id` alone names them.

The columns are those that cards, or programs that read the sets, show (2026-11-30). A recipe that
says otherwise wins. Repeated rows, as in DAPO-Math-17k, are left out and counted by data/rows.py.
"""

from collections.abc import Mapping
from typing import Any

_QUESTION = {"columns": {"problem": "question"}}

KNOWN_DATA: Mapping[str, Mapping[str, Any]] = {
    # problem, solution, answer, level: rows of the set itself
    "knoveleng/open-rs": {"columns": {"level": "level"}},
    # problem, answer, solution; deepscaler.json (card of the copy WaltonFuture/DeepScaleR)
    "agentica-org/DeepScaleR-Preview-Dataset": {},
    # question, answer with "#### 42" at its end; configurations main and socratic (its card)
    "openai/gsm8k": {"config": "main", **_QUESTION},
    # problem, level, type, solution with the answer in its box (programs that read it)
    "DigitalLearningGmbH/MATH-lighteval": {"columns": {"answer": "solution", "level": "level"}},
    # question, solution, cot_type, source_type, thinking_trajectories, ... (cards of its copies)
    "simplescaling/s1K": {
        "columns": {
            "problem": "question",
            "answer": "solution",
            "solution": "attempt",
            "thinking": "thinking_trajectories",
        }
    },
    # question, solution, deepseek_thinking_trajectory, deepseek_attempt, deepseek_grade, ...
    # (programs that read it)
    "simplescaling/s1K-1.1": {
        "columns": {
            "problem": "question",
            "answer": "solution",
            "solution": "deepseek_attempt",
            "thinking": "deepseek_thinking_trajectory",
        }
    },
    # question, solution, answer (programs that read it)
    "GAIR/LIMO": {"columns": {"problem": "question", "solution": "solution"}},
    # prompt as messages, reward_model {ground_truth, style}, ... (cards of its copies)
    "BytedTsinghua-SIA/DAPO-Math-17k": {
        "columns": {"problem": "prompt", "answer": "reward_model.ground_truth"}
    },
}
"""Hub id -> what [data] says of it where the recipe does not."""
