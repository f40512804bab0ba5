r"""Takes away how an answer is set: Markdown, colours, sizes, frames, alignment.

Only what never means anything in mathematics. What may (a power written with two stars, an
overline) stays for normalise.py.

    without_typography("**73**")                          -> "73"
    without_typography(r"\textcolor{blue}{\large 73}")    -> " 73"
    without_typography(r"\begin{aligned}x&=2+3\\&=5\end{aligned}")  -> "x=2+3 =5"
"""

import re

from budgetrl.grading.brackets import argument, matching_end, split_outside

_EMPHASIS = re.compile(
    r"(?P<mark>\*{1,3}|_{1,3})(?![\s*_{])"
    r"(?P<inside>(?:[^*_]|(?<=[^\s*_])[*_](?=[^\s*_]))+)(?<!\s)(?P=mark)(?![*_])"
)
_BEFORE_EMPHASIS = re.compile(r"(?:^|[=,;:({\[$]|\\text|(?<![A-Za-z\\])[A-Za-z]{2,})\s*$")
_AFTER_EMPHASIS = re.compile(r"\s*(?:$|[.,;:!?)\]}$=]|\s[A-Za-z]{2,}|\\(?:text|[)\],; ]|q?quad))")
_CODE = re.compile(r"(`{1,3})([^`']+)\1")

_SIZES = "tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge"
_WRAPPER = re.compile(
    # the command with all that stands before the content
    r"\\(?:(?:textcolor|mathcolor|colorbox)\s*(?:\[[^\[\]]*\])?\s*\{[^{}]*\}|"
    r"fcolorbox\s*\{[^{}]*\}\s*\{[^{}]*\}|"
    rf"(?:underline|uline|pmb|framebox|bbox|smash|ensuremath|{_SIZES.replace(' ', '|')})"
    r"(?![A-Za-z])(?:\s*\[[^\[\]]*\])*)"
)
_TAKES_ARGUMENT = re.compile(r"(?:[\^_}]|\\[A-Za-z]+)\s*$")
_ALIGNED = re.compile(r"\\begin\{((?:align|aligned|alignat|gather|gathered|split|equation)\*?)\}")
_POSITION = re.compile(r"\s*\[[tbc]\]")
_RELATION = re.compile(r"=|<|>|\\(?:leq?|geq?|neq?|approx|equiv|in)(?![a-z])")
_MAX_DEPTH = 8


def without_typography(text: str) -> str:
    """The same answer, plainly set."""
    if "`" in text:
        text = _CODE.sub(r"\2", text)
    if "\\" in text:
        text = _without_wrappers(_without_alignment(text) if "\\begin" in text else text)
    if "*" in text or "_" in text:
        text = _EMPHASIS.sub(_emphasis, text)
    return text


def _emphasis(match: re.Match[str]) -> str:
    """Without the marks where no operand stands beside them: `2**3**4` stays."""
    before, after = match.string[: match.start()], match.string[match.end() :]
    if _BEFORE_EMPHASIS.search(before) and _AFTER_EMPHASIS.match(after):
        return match["inside"]
    return match.group()


def _without_wrappers(text: str, depth: int = 0) -> str:
    """Contents in place of their frames; they keep their braces as the argument of something."""
    if depth > _MAX_DEPTH or not _WRAPPER.search(text):
        return text
    result, position = "", 0
    while match := _WRAPPER.search(text, position):
        result += text[position : match.start()]
        content, position = "", match.end()
        if text[position:].lstrip().startswith("{"):
            content, position = argument(text, position)
            if _TAKES_ARGUMENT.search(result):
                content = f"{{{content}}}"
        result += _without_wrappers(content, depth + 1)
    return result + text[position:]


def _without_alignment(text: str) -> str:
    """Rows of an aligned environment as one relation, or as a list."""
    match = _ALIGNED.search(text)
    if match is None:
        return text
    end = matching_end(text, match.start())
    closing = f"\\end{{{match[1]}}}"
    if end is None or not text.endswith(closing, 0, end):
        return text
    inside = _POSITION.sub("", text[match.end() : end - len(closing)], count=1)
    rows = [
        " ".join(split_outside(row, frozenset({"&"}))[0]).strip()
        for row in split_outside(inside, frozenset({"\\\\"}))[0]
    ]
    joined = ""
    for row in filter(None, rows):
        joined += row if not joined else f" {row}" if _RELATION.match(row) else f", {row}"
    return text[: match.start()] + joined + _without_alignment(text[end:])
