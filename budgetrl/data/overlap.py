"""Training problems that also stand in an evaluation suite.

Exact matches (normalised text) are removed from training; near matches (a shared run of 13 words,
as in the GPT-3 paper, arXiv 2005.14165, appendix C) are reported.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from budgetrl.types import Problem

NGRAM = 13


@dataclass(frozen=True, slots=True)
class Overlap:
    """What training data and suites share, by training problem id -> suite."""

    exact: Mapping[str, str]
    near: Mapping[str, str]


def find_overlap(training: Iterable[Problem], suites: Mapping[str, Sequence[Problem]]) -> Overlap:
    """Exact and near matches of training problems in the suites."""
    texts: dict[str, str] = {}
    grams: dict[tuple[str, ...], str] = {}
    for suite, problems in suites.items():
        for problem in problems:
            words = _words(problem.text)
            texts[" ".join(words)] = suite
            grams.update((gram, suite) for gram in _grams(words))
    exact: dict[str, str] = {}
    near: dict[str, str] = {}
    for problem in training:
        words = _words(problem.text)
        same = texts.get(" ".join(words))
        if same is not None:
            exact[problem.id] = same
            continue
        hit = next((grams[gram] for gram in _grams(words) if gram in grams), None)
        if hit is not None:
            near[problem.id] = hit
    return Overlap(exact, near)


def _words(text: str) -> list[str]:
    """Words, numbers and single signs: "7+5" and "7-5" differ."""
    return re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9]", text.lower())


def _grams(words: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return (tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1))
