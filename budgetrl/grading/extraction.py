r"""Finds the answer that a completion states: the content of its last `\boxed{...}`.

Not a judgement of the content, and no parser of mathematics: only where a box begins and ends.

    find_answer(r"so \boxed{\frac12}.")          -> r"\frac12"
    find_answer(r"\boxed{2} and \boxed{3}")      -> "2, 3"      joined boxes are one answer
    find_answer(r"\boxed{2}. So it is \boxed{3") -> None        the last box is cut off

All scans are single passes, so that five megabytes of braces cost no more than time to read them.
"""

import re
import unicodedata
from dataclasses import dataclass

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_END_OF_FORMULA = re.compile(r"\$|\\\)|\\\]|\n")
_BARE_CONTENT = re.compile(
    # a box without braces: one run without white space, or with white space inside brackets
    r"(?:\\[A-Za-z]+(?:\s*\{[^{}]*\})*|\([^()\n]*\)|\[[^\[\]\n]*\]|\{[^{}\n]*\}|[^\s\\$])+"
)
_BLANK = re.compile(
    r"(?:\s|[{}$~]|\\(?:[ ,;:!()\[\]]|$)|\\q?quad|\\(?:text|mathrm|mbox)\s*\{\s*\}|\\f?box(?:ed)?)*"
)
_FILLER = r"(?:\s|\\[ ,;:!]|~|\\q?quad)"
_DELIMITER = r"(?:\$|\\[()\[\]]|\*)"
_WORD = r"(?:and|or|\\(?:text|textrm|mathrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*,?\s*\})"
_JOINT = re.compile(rf"(?:{_FILLER}|{_DELIMITER}|,|{_WORD})*", re.IGNORECASE)
_SEPARATOR = re.compile(rf",|{_WORD}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Box:
    start: int
    """Where the backslash is."""
    end: int
    """One past the box."""
    content: str | None
    """None when the box is never closed."""


def find_answer(text: str) -> str | None:
    r"""The content of the last box, or of the last boxes joined by commas, "and" or "or".

    Returns None when there is no box, or the last one is blank or never closed. Nested boxes count
    as the outermost one; `\boxed 5` and `\fbox{5}` are boxes, `boxed{5}` is not. A box inside the
    reasoning counts like any other.
    """
    boxes = _boxes(text)
    if not boxes or boxes[-1].content is None or is_blank(boxes[-1].content):
        return None
    contents = [boxes[-1].content]
    for box, following in zip(reversed(boxes[:-1]), reversed(boxes[1:]), strict=True):
        if box.content is None or is_blank(box.content):
            break
        if not _joins(text[box.end : following.start]):
            break
        if box.content != contents[-1]:
            contents.append(box.content)
    return ", ".join(reversed(contents))


def says_nothing(text: str) -> bool:
    """Whether a whole answer is blank, punctuation alone, or ends with a blank box."""
    boxes = _boxes(text)
    if boxes and boxes[-1].content is not None and is_blank(boxes[-1].content):
        return True
    return not any(unicodedata.category(char)[0] in "LNS" for char in text if char not in "$~`^")


def is_blank(content: str) -> bool:
    """Whether nothing but space, braces and dollar signs is there."""
    return _BLANK.fullmatch(content) is not None


def _joins(between: str) -> bool:
    """Whether two boxes with this text between them are one answer."""
    if len(between) > 100 or _JOINT.fullmatch(between) is None:
        return False
    return _SEPARATOR.search(between) is not None


def _boxes(text: str) -> list[_Box]:
    """The outermost boxes, in order."""
    starts = list(_BOX.finditer(text))
    closing = _closing_braces(text, {m.end() for m in starts if text[m.end() : m.end() + 1] == "{"})
    boxes: list[_Box] = []
    position = 0
    for match in starts:
        if match.start() < position:
            continue
        box = _box_at(text, match, closing)
        boxes.append(box)
        position = box.end
    return boxes


def _box_at(text: str, match: re.Match[str], closing: dict[int, int]) -> _Box:
    opening = match.end()
    if text[opening : opening + 1] != "{":
        bare = _BARE_CONTENT.match(text, opening, opening + 1000)
        content = re.split(r"\\[)\]]", bare.group())[0].rstrip(".,;:!*") if bare else ""
        return _Box(match.start(), opening + len(content), content.strip())
    if opening in closing:
        end = closing[opening]
        return _Box(match.start(), end + 1, text[opening + 1 : end].strip())
    # Cut off, or a brace is missing: then it reaches to the end of its formula, not further.
    formula_end = _END_OF_FORMULA.search(text, opening)
    return _Box(match.start(), formula_end.end() if formula_end else len(text), None)


def _closing_braces(text: str, wanted: set[int]) -> dict[int, int]:
    """For each wanted opening brace that is closed, where; escaped braces do not count."""
    closing: dict[int, int] = {}
    stack: list[int] = []
    for match in _BRACE.finditer(text, min(wanted, default=len(text))):
        if match.group() == "{":
            stack.append(match.start())
        elif match.group() == "}" and stack:
            opening = stack.pop()
            if opening in wanted:
                closing[opening] = match.start()
                if len(closing) == len(wanted):
                    break
    return closing
