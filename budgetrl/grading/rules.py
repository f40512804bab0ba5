r"""What counts as a correct answer.

The rules, each with its cases in tests/grading/test_grading.py:

1. The answer is in the last `\boxed{...}` (extraction.py). None, blank or cut off: unparsable.
2. Equal means mathematically equal and exact; only a decimal of six places or more may be rounded.
3. Typography, units, words in `\text`, currency, degrees, percent signs and a leading name "x ="
   are tolerated on both sides (normalise.py, words.py).
4. Sets, unions, plus-minus pairs and bare lists are unordered; tuples, matrices, ratios and the
   ends of intervals are not (reading.py, comparison.py).
5. Words compare as text without case. An answer that offers several values for one is wrong.
6. A gold answer that is empty or cannot be read is an error, never a wrong answer.

    judge("0.5", r"\frac{1}{2}")                  -> Verdict.CORRECT
    judge_whole_numbers("12", "12")               -> Verdict.CORRECT, at once

`judge` takes as long as it takes and belongs into a process that can be killed (rewards/pool.py).
math-verify is the parser and the last resort of the comparison (values.py); what it gets wrong or
does not know is decided before it is asked.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from budgetrl.grading.brackets import is_balanced
from budgetrl.grading.comparison import equal
from budgetrl.grading.extraction import find_answer, is_blank
from budgetrl.grading.normalise import normalise
from budgetrl.grading.reading import SEVERAL_TEXTS, Kind, Node, read
from budgetrl.grading.values import is_readable
from budgetrl.types import Verdict

GRADER_VERSION = "2"
"""Changes whenever a verdict may change; part of an evaluation's protocol."""
MAX_CHARS = 2_000
"""Longer answers are compared letter by letter only; longer golds are unusable."""

_GSM8K = re.compile(r"(?:^|\n)\s*####\s*(.*)\s*$")
_QUOTED = r"""(?:'[^'\n]*'|"[^"\n]*")"""
_TEXTS = re.compile(rf"\s*\[\s*{_QUOTED}(?:\s*,\s*{_QUOTED})*\s*\]\s*")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_HUGE = re.compile(r"\s*[\d^{}()!]*\d[\d^{}()!]*[\^!][\d^{}()!]*\s*")
_BROKEN = re.compile(
    r"\{\s*\}|(?:[+\-*/^_=<>]|\\(?:cdot|times|frac|sqrt|leq|geq|neq|pm|cup|cap|in))\s*$|^\s*[*/^_]"
)


def judge(answer: str, gold: str) -> Verdict:
    """Compares the content of a box with a gold answer, without a time limit."""
    if gold.strip() == answer.strip() and _may_be_huge(gold):
        return Verdict.CORRECT
    node = _read_gold(gold)
    if isinstance(node, str):
        return Verdict.ERROR
    if len(answer) > MAX_CHARS:
        return Verdict.CORRECT if answer.strip() == gold.strip() else Verdict.WRONG
    try:
        text = normalise(answer)
        right = equal(node, read(text)) or (
            node.kind in (Kind.LIST, Kind.SET) and equal(node, read(text, thousands=False))
        )
    except RecursionError:  # hundreds of brackets inside each other
        right = False
    return Verdict.CORRECT if right else Verdict.WRONG


def judge_whole_numbers(answer: str | None, gold: str) -> Verdict | None:
    """The verdict where both sides are small whole numbers, or one is and no answer is there.

    It takes no time; None: it has to be read as mathematics.
    """
    if not is_whole_number(gold.strip()):
        return None
    if answer is None:
        return Verdict.UNPARSABLE
    if not is_whole_number(answer):
        return None
    return Verdict.CORRECT if int(answer) == int(gold) else Verdict.WRONG


def is_whole_number(text: str) -> bool:
    """Whether it is a whole number of at most 18 digits and nothing else."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) <= 18


def _may_be_huge(gold: str) -> bool:
    """Whether it is a power or factorial, perhaps too large to read: equal texts must do."""
    return bool(_HUGE.fullmatch(gold)) and is_balanced(gold) and not _BROKEN.search(gold)


def gold_problem(gold: str) -> str | None:
    """Why a gold answer cannot be graded against; None if it can. May take as long as `judge`."""
    node = _read_gold(gold)
    return node if isinstance(node, str) else None


def form_problem(gold: str) -> str | None:
    """What is wrong with the form of a gold answer, in linear time; None if only values can be."""
    node = _tree(gold)
    return node if isinstance(node, str) else None


@lru_cache(maxsize=4096)
def _read_gold(gold: str) -> Node | str:
    """The tree of a gold answer whose values can be read; or what is wrong with it."""
    node = _tree(gold)
    if isinstance(node, str):
        return node
    broken = next((text for text in _values(node) if not _is_usable(text)), None)
    return node if broken is None else f"{broken!r} is no answer"


def _tree(gold: str) -> Node | str:
    """The tree of a gold answer as data sets write it; or what is wrong with its form.

    Bare, in a box, after GSM8K's `####`, or a list of texts in Python's or JSON's spelling.
    """
    if _TEXTS.fullmatch(gold):
        return _tree_of_texts([item[1:-1] for item in re.findall(_QUOTED, gold)])
    final = _GSM8K.search(gold)
    content = final[1] if final else find_answer(gold) if _BOX.search(gold) else gold
    if content is None or is_blank(content):
        return "it is empty"
    if len(content) > MAX_CHARS:
        return f"it has {len(content):,} characters, more than {MAX_CHARS:,}"
    if not is_balanced(content):
        return "a brace or bracket is not closed"
    try:
        return read(normalise(content))
    except RecursionError:
        return "too many brackets inside each other"


def _tree_of_texts(golds: Sequence[str]) -> Node | str:
    trees = [_tree(gold) for gold in golds]
    nodes = tuple(tree for tree in trees if isinstance(tree, Node))
    if len(nodes) < len(trees):
        return next(tree for tree in trees if isinstance(tree, str))
    return nodes[0] if len(nodes) == 1 else Node(Kind.LIST, SEVERAL_TEXTS, nodes)


def _values(node: Node) -> list[str]:
    if node.kind is Kind.VALUE:
        return [node.text]
    return [text for item in node.items for text in _values(item)]


def _is_usable(text: str) -> bool:
    """Whether a value can be compared, if only by its letters."""
    return (re.search(r"[^\W\d_]", text) and not _BROKEN.search(text)) or is_readable(text)
