r"""Where brackets and arguments of LaTeX end; the only scanner of the rewards.

A half-open interval closes "[" with ")", so round and square brackets close one another; braces and
escaped braces only close their own kind. Stray closing brackets are ignored.
"""

import re
from collections.abc import Iterator

_TOKEN = re.compile(r"\\(?:begin|end)\{[^{}]*\}|\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENS = {"{": "}", "(": ")", "[": ")", r"\{": r"\}", r"\langle": r"\rangle"}
_OPENS |= {r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_NUM_ARGUMENTS = {r"\frac": 2, r"\binom": 2, r"\sqrt": 1, r"\overline": 1, r"\mathbb": 1}
_NUM_ARGUMENTS |= {r"\text": 1, r"\vec": 1, r"\hat": 1}
_CLOSES = {"}", ")", "]", r"\}", r"\rangle", r"\rfloor", r"\rceil"}


def scan(text: str, start: int = 0) -> Iterator[tuple[int, str, int]]:
    """Each token with its position and how many brackets are open around it.

    Brackets count as outside of themselves: in "(a)" the depths are 0, 1, 0.
    """
    stack: list[str] = []
    for match in _TOKEN.finditer(text, start):
        token = match.group()
        closes = ")" if token == "]" else token
        if token.startswith("\\end") or (token in _CLOSES and stack and stack[-1] == closes):
            if stack:
                stack.pop()
            yield match.start(), token, len(stack)
            continue
        yield match.start(), token, len(stack)
        if token in _OPENS:
            stack.append(_OPENS[token])
        elif token.startswith("\\begin"):
            stack.append("\\end")


def matching_end(text: str, start: int = 0) -> int | None:
    """One past the bracket that closes the one at `start`; None if there is none."""
    for position, token, depth in scan(text, start):
        if position > start and depth == 0:
            closed = token in _CLOSES or token.startswith("\\end")
            return position + len(token) if closed else None
    return None


def split_outside(text: str, separators: frozenset[str]) -> tuple[list[str], list[str]]:
    """The parts of a text between separators outside all brackets, and those separators."""
    parts: list[str] = []
    found: list[str] = []
    begin = 0
    for position, token, depth in scan(text):
        if depth == 0 and token in separators:
            parts.append(text[begin:position].strip())
            found.append(token)
            begin = position + len(token)
    parts.append(text[begin:].strip())
    return parts, found


def argument(text: str, start: int) -> tuple[str, int]:
    r"""The TeX argument at `start` without its braces, and one past it.

    One group, one command with its own arguments, or one character: `\frac12` has 1 and 2.
    """
    while start < len(text) and text[start].isspace():
        start += 1
    if start >= len(text):
        return "", start
    if text[start] == "{":
        end = matching_end(text, start)
        return (text[start + 1 : end - 1], end) if end else (text[start + 1 :], len(text))
    match = _TOKEN.match(text, start)
    end = match.end() if match else start + 1
    for _ in range(_NUM_ARGUMENTS.get(text[start:end], 0)):
        _, end = argument(text, end)
    return text[start:end], end


def is_balanced(text: str) -> bool:
    r"""Whether everything that opens is closed, and no brace closes nothing."""
    braces = brackets = 0
    for _, token, _ in scan(text):
        braces += (token == "{" or token.startswith("\\begin")) - (
            token == "}" or token.startswith("\\end")
        )
        brackets += (token in ("(", "[", r"\{")) - (token in (")", "]", r"\}"))
        if braces < 0:
            return False
    return braces == 0 and brackets <= 0
