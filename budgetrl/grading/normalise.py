r"""Rewrites an answer into one spelling: LaTeX without typography, Unicode mathematics or synonyms.

Text in, text out, and no judgement: what is rewritten here means the same in every answer. Words
survive as `\text{...}`, and "and", "or" as `\and`, `\or`; reading.py decides what they are worth.

    normalise(r"$\left(1{,}000,\,\tfrac12\right)$")  -> r"(1000, \frac{1}{2})"
    normalise("√2 ≤ x²")                               -> r"\sqrt{2} \leq x^{2}"
"""

# ruff: noqa: RUF001  (characters that look like others are what the tables are about)

import re
import unicodedata

from budgetrl.grading.brackets import argument, matching_end, scan
from budgetrl.grading.typography import without_typography

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙₓ", "0123456789+-=()nx")
_SCRIPTS = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+)|([₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙₓ]+)")
_SAME = {
    "-": "−–—‐‑‒﹣",
    "'": "’‘′",
    "|": "∣",
    "/": "÷∕⁄",
    ":": "∶",
    "*": "∗",
    "": "€£¥₹¢“”„✓✔✅\u200b\u200c\u200d\u2060\ufeff",
    ". ": "。",
    ", ": "、",
    r"\text{ units}": "㎜㎝㎞㎟㎠㎡㎢㎣㎤㎥㎦㎎㎏㎖㏄",
    r"\cdot ": "·⋅•∙",
    r"\times ": "×✕",
    r"\leq ": "≤⩽",
    r"\geq ": "≥⩾",
    r"\neq ": "≠",
    r"\approx ": "≈≃",
    r"\pm ": "±",
    r"\mp ": "∓",
    r"\in ": "∈",
    r"\cup ": "∪",
    r"\cap ": "∩",
    r"\setminus ": "∖",
    r"\infty ": "∞",
    r"\emptyset ": "∅",
    r"\sqrt ": "√",
    r"\sqrt[3] ": "∛",
    r"\ldots ": "…⋯",
    r"^{\circ}": "°˚",
    r"\langle ": "⟨〈",
    r"\rangle ": "⟩〉",
    r"\lfloor ": "⌊",
    r"\rfloor ": "⌋",
    r"\lceil ": "⌈",
    r"\rceil ": "⌉",
    r"\angle ": "∠",
    r"\triangle ": "△",
    r"\to ": "→",
    r"\Rightarrow ": "⇒",
    r"\and ": "∧",
    r"\or ": "∨",
    r"\mathbb{R}": "ℝ",
    r"\mathbb{Z}": "ℤ",
    r"\mathbb{Q}": "ℚ",
    r"\mathbb{N}": "ℕ",
    r"\mathbb{C}": "ℂ",
    r"\lambda ": "λ",
}
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi pi rho sigma tau phi chi psi"
    " omega"
)
_CHARACTERS = {char: text for text, chars in _SAME.items() for char in chars} | {
    unicodedata.lookup(f"GREEK SMALL LETTER {name.upper()}"): f"\\{name} "
    for name in _GREEK.split()
}

_COMMANDS = {
    name: text
    for text, names in {
        r"\frac": "dfrac tfrac cfrac",
        r"\binom": "dbinom tbinom",
        r"\leq": "le leqslant leqq",
        r"\geq": "ge geqslant geqq",
        r"\neq": "ne",
        r"\emptyset": "varnothing",
        r"\ldots": "dots cdots dotsc dotsb",
        r"\cup": "bigcup",
        r"\cap": "bigcap",
        r"\setminus": "backslash smallsetminus",
        r"\{": "lbrace",
        r"\}": "rbrace",
        r"\Rightarrow": "implies Longrightarrow",
        r"\to": "rightarrow longrightarrow",
        r"\overline": "bar",
        r"\and": "land wedge",
        r"\or": "lor vee",
        r"^{\circ}": "degree degrees",
        r"\cdot": "ast bullet",
        "<": "lt",
        ">": "gt",
        "/": "div",
        ":": "colon",
        "|": "lvert rvert vert",
        "[": "lbrack",
        "]": "rbrack",
        "'": "prime",
        r"\mathbb{R}": "R reals",
        "": "pounds euro displaystyle textstyle limits nolimits strut middle left right boxed fbox "
        "big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm rm bf it sf tt",
        " ": "quad qquad enspace thinspace space newline hfill hfil checkmark",
    }.items()
    for name in names.split()
}
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_QUADX = re.compile(r"\\q?quad(?=[A-Za-z])")
_NULL_BRACKET = re.compile(r"\\(?:left|right)\s*\.")
_INVISIBLE = re.compile(
    r"\\!|\\(?:phantom|hspace|vspace|label|tag|color)(?![A-Za-z])\*?\s*(?:\{[^{}]*\}|\S)"
)
_SPACING = re.compile(r"(?<!\\)\\(?:[,;: >]|$)|~|\s+")
_DOUBLED_BACKSLASH = re.compile(r"\\\\(?=[A-Za-z{}%$,;!()\[\]])")
_DOLLAR = re.compile(r"\\\$")
_DELIMITER = re.compile(r"\$|(?<!\\)\\[()\[\]]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SPACED_THOUSANDS = re.compile(
    r"(?<![\d.])\d{1,3}(?:(?:\\[,;:! ]|~|\s|\{\s*,\s*\}|,\\!)\s*\d{3})+(?![\d/])"
)

_FUNCTION_NAMES = (
    "arcsin arccos arctan arccot sinh cosh tanh sin cos tan cot sec csc log ln lg exp gcd lcm max "
    "min det"
)
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_FONT = re.compile(
    r"\\(?:(text|textbf|textit|textrm|textnormal|textsf|texttt|mbox|hbox|mathrm|operatorname)|"
    r"(?:mathbf|mathit|mathsf|mathtt|boldsymbol|bm|emph))\*?\s*\{([^{}]*)\}"
)
_QUOTES = re.compile(r"``(.*?)''|\"")
_BRACED_COLON = re.compile(r"\{\s*:\s*\}")
_CHOOSE = re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}")
_ORDINAL = re.compile(
    r"(?<=\d)\s*\^\s*(?:\{\s*(?:\\text\{\s*(?:st|nd|rd|th)\s*\}|st|nd|rd|th)\s*\}|"
    r"\\text\{\s*(?:st|nd|rd|th)\s*\})"
)
_OLD_FONT = re.compile(r"\{\s*\\(?:rm|bf|it)(?![A-Za-z])\s*([^{}]*)\}")
_ONLY_WORDS = re.compile(r"\s*(?:\\text\{([^{}]*)\}|\{\s*\\text\{([^{}]*)\}\s*\})[\s.,;]*")
_WORDS = re.compile(r"(\\text\{[^{}]*\})")
_PERCENT = re.compile(r"(?:percentage|percent|per cent|pct)\b\.?")
_AND_OR = re.compile(r",?\s*(?<![A-Za-z\\])(and|or)(?![A-Za-z])\s*,?", re.IGNORECASE)
_BARE_NAME = re.compile(
    # "5 min" and "3 sec" are no functions
    rf"(?<![A-Za-z\\])(?:((?:{'|'.join(_FUNCTIONS)})(?=\s*[\^_(\\]|\s+\w|\d)|sqrt|pi|theta)|"
    r"(infinity|inf|oo))(?![A-Za-z])"
)
_RATIO_WORD = re.compile(r"(?<=[\d)}])\s*(?:\\text\{\s*to\s*\}|\bto\b)\s*(?=[\d(\\])")
_CJK_AND_OR = re.compile(r"(?<=[\d)}])\s*([和与與及]|或者?)\s*(?=[\d(\\-])")
_UNION = re.compile(r"(?<=[)\]}])\s*U\s*(?=[(\[\\{])")
_OPERATORS = {
    "**": "^",
    "<=": r"\leq ",
    "=<": r"\leq ",
    ">=": r"\geq ",
    "!=": r"\neq ",
    "*": r"\cdot ",
    "%": r"\%",
    r"\%": r"\%",
}
_OPERATOR = re.compile(r"\*\*|<=|=<|>=|!=|\*|\\?%")
_DEGREE = re.compile(
    r"\^\s*(?:\{\s*\^\{\\circ\}\s*\}|\^\{\\circ\}|\{\s*\\circ\s*\}|\\circ(?![a-z]))"
)
_BASE_NAMES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_BASE_WORD = re.compile(
    rf"_\s*\{{?\s*(?:\\text\{{\s*)?({'|'.join(_BASE_NAMES)})(?:\s*\}})?\s*\}}?|"
    rf"\s*\\text\{{[\s(]*(?:in )?base[\s-]*(\d+|{'|'.join(_BASE_NAMES)})[\s)]*\}}|"
    rf"(?<=\d)\s+\(?(?:in )?base[\s-]*(\d+|{'|'.join(_BASE_NAMES)})\b\)?"
)


def normalise(text: str) -> str:
    """The same answer in one spelling; the time is linear in the length of the text."""
    text = without_typography(_unicode(_CONTROL.sub("", text)))
    if "\\begin" not in text:
        text = _DOUBLED_BACKSLASH.sub(r"\\", text)
    text = _SPACED_THOUSANDS.sub(lambda m: re.sub(r"\D", "", m.group()), text)
    text = _DELIMITER.sub(" ", _DOLLAR.sub("", text))
    text = _NULL_BRACKET.sub("", _INVISIBLE.sub("", text))
    text = _OLD_FONT.sub(r"\\text{\1}", _QUADX.sub(" ", text))
    text = _COMMAND.sub(lambda m: _COMMANDS.get(m.group(1), m.group()), text)
    text = _QUOTES.sub(r"\1", _BRACED_COLON.sub(":", text))
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", _SPACING.sub(" ", text))
    text = _ORDINAL.sub("", _BASE_WORD.sub(_base, _fonts(text)))
    if "to" in text:
        text = _RATIO_WORD.sub(":", text)
    text = text.replace("\\&", " \\and ")
    text = "".join(
        _in_words(part) if part.startswith("\\text{") else _outside_words(part)
        for part in _WORDS.split(text)
    )
    return _braced_arguments(text).strip()


def _unicode(text: str) -> str:
    if text.isascii():
        return text
    text = _SCRIPTS.sub(
        lambda m: (
            f"^{{{m[1].translate(_SUPERSCRIPTS)}}}"
            if m[1]
            else f"_{{{m[2].translate(_SUBSCRIPTS)}}}"
        ),
        text,
    )
    text = "".join(_CHARACTERS.get(char) or _fraction(char) for char in text)
    text = unicodedata.normalize("NFKC", text)
    return re.sub(r"(\\sqrt(?:\[3\])?) (\d+)", r"\1{\2}", text)


def _fraction(char: str) -> str:
    """The vulgar fractions as fractions, before NFKC glues them to a digit on the left."""
    if char in _CHARACTERS:
        return ""
    if not unicodedata.decomposition(char).startswith("<fraction>"):
        return char
    top, _, bottom = unicodedata.normalize("NFKD", char).partition("\u2044")
    return f"\\frac{{{top}}}{{{bottom}}}" if bottom else char


def _fonts(text: str) -> str:
    r"""Fonts: words become `\text{...}`, names of functions become commands, all else is plain."""
    for _ in range(3):  # fonts inside fonts
        text = _FONT.sub(_font, text)
    text = text.replace("\x00", "\\text")
    whole = _ONLY_WORDS.fullmatch(text)
    return whole[1] or whole[2] if whole else text


def _font(match: re.Match[str]) -> str:
    upright, content = match.groups()
    word = content.strip()
    if word in _FUNCTIONS and word not in ("min", "sec"):  # those are units of time
        return f"\\{word} "
    letters = re.sub(r"[\W\d_]", "", word)
    if not letters or "\\" in word or re.fullmatch(r"[eid]|\([A-Za-z]\)|[\dA-Z]*\d[\dA-Z]*", word):
        return content
    return f"\x00{{{content}}}" if upright or len(letters) > 1 else content


def _base(match: re.Match[str]) -> str:
    name = match[1] or match[2] or match[3]
    return f"_{{{name if name.isdigit() else _BASE_NAMES.index(name) + 2}}}"


def _in_words(text: str) -> str:
    r"""`\text{ and }` separates, `\text{percent}` is a sign; other words stay."""
    word = text[len("\\text{") : -1].strip(" ,.:;").lower()
    if word in ("and", "or"):
        return f" \\{word} "
    return r"\%" if _PERCENT.fullmatch(word) else text


def _outside_words(text: str) -> str:
    text = re.sub(rf"(?<![A-Za-z\\]){_PERCENT.pattern}", "%", text)
    text = _AND_OR.sub(lambda m: f" \\{m[1].lower()} ", text)
    if not text.isascii():
        text = _CJK_AND_OR.sub(lambda m: f" \\{'or' if m[1][0] == '或' else 'and'} ", text)
    text = _BARE_NAME.sub(lambda m: f"\\{m[1]} " if m[1] else r"\infty ", text)
    text = _UNION.sub(r" \\cup ", text)
    text = _OPERATOR.sub(lambda m: _OPERATORS[m.group()], text)
    return _DEGREE.sub(r"^{\\circ}", text)


def _braced_arguments(text: str) -> str:
    r"""`\frac12`, `\sqrt2`, `x^(1/2)` and `sqrt(5)` with their arguments in braces."""
    result: list[str] = []
    position = 0
    for start, token, _ in scan(text):
        if start < position:
            continue
        name = _COMMAND.match(text, start)
        if name and name[1] in ("frac", "binom"):
            top, middle = argument(text, start + len(token))
            bottom, end = argument(text, middle)
            parts = [_braced_arguments(top), _braced_arguments(bottom)]
        elif name and name[1].startswith("sqrt"):
            token, parts, end = _root(text, start)
        elif token == "^" and text[start + 1 :].lstrip().startswith("("):
            opening = text.index("(", start)
            end = matching_end(text, opening) or opening
            parts = [_braced_arguments(text[opening + 1 : end - 1])]
        else:
            continue
        if end <= start + len(token):
            continue
        result += [text[position:start], token, *(f"{{{part}}}" for part in parts)]
        position = end
    return "".join([*result, text[position:]])


def _root(text: str, start: int) -> tuple[str, list[str], int]:
    r"""A root at `start`: `\sqrt[3]{2}`, `\sqrt2`, `\sqrta` or `\sqrt(5)`."""
    opening = start + len("\\sqrt")
    command = "\\sqrt"
    index = re.compile(r"\s*\[([^\[\]]*)\]").match(text, opening)
    if index:
        command, opening = f"\\sqrt[{index[1]}]", index.end()
    rest = text[opening:].lstrip()
    opening = len(text) - len(rest)
    end = matching_end(text, opening) if rest.startswith("(") else None
    if end:
        return command, [_braced_arguments(text[opening + 1 : end - 1])], end
    radicand, end = argument(text, opening)
    return command, [_braced_arguments(radicand)], end
