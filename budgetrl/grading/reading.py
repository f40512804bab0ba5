r"""Takes a normalised answer apart: lists, sets, intervals, equations, inequalities, words, values.

A tree of `Node`s, and no judgement: comparison.py says which trees are equal, values.py what a
single value is worth. Units and words beside a value are dropped here, unless they change it.

    read("x = 5")            -> VALUE "5" named "x"
    read(r"\{1, 2\}")        -> SET of two VALUEs
    read(r"[0, 3)")          -> TUPLE "[)" of two VALUEs
    read(r"1 \pm \sqrt{2}")  -> SET of two VALUEs
    read(r"(C) 12")          -> VALUE "12" labelled "C"
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

from budgetrl.grading.brackets import matching_end, scan, split_outside
from budgetrl.grading.words import contradicting_words, plain_words, without_words


class Kind(StrEnum):
    """The form of an answer."""

    VALUE = "value"
    """One expression."""
    WORDS = "words"
    """Compared as text."""
    LIST = "list"
    """Bare, unordered; `text` is what joins it: a comma, "and", "or" or `SEVERAL_TEXTS`."""
    SET = "set"
    r"""Unordered, a duplicate counts once; `text` is `\pm` for a plus-minus pair."""
    TUPLE = "tuple"
    """Ordered: a point, a vector, an interval; `text` is its two brackets."""
    MATRIX = "matrix"
    """Its items are its rows."""
    UNION = "union"
    INTERSECTION = "intersection"
    DIFFERENCE = "difference"
    BUILDER = "builder"
    r"""`\{x \mid x > 3\}`: its item is the condition."""
    RATIO = "ratio"
    """Or a time of day, which is WORDS where it is clear."""
    EQUATION = "equation"
    """Two sides or more, of which none is only a name."""
    INEQUALITY = "inequality"
    """`text` holds the signs between the items."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an answer."""

    kind: Kind
    text: str = ""
    items: tuple["Node", ...] = ()
    name: str = ""
    """What stood before "=" or "in": a variable, `f(3)`, `(x, y)`."""
    label: str = ""
    """The letter of the choice, in "(C) 12"."""
    words: frozenset[str] = frozenset()
    """Words beside the value that could contradict others: am, pm, north, ..."""


SEVERAL_TEXTS = "[]"
"""What joins a list that a data set gives as several texts: one answer, if they are equal."""

_NO_NAME = "frac|sqrt|pi\\b|infty|pm|mp|sin|cos|tan|cot|sec|csc|log|ln|exp|cdot|times"
_LETTER = rf"(?:[A-Za-z]|\\(?!{_NO_NAME})[a-z]+)"
_SUBSCRIPT = r"(?:_(?:\{[^{}]*\}|\w)|'|\^\{-1\}(?=\())"
_VARIABLE = rf"{_LETTER}(?:{_SUBSCRIPT})*"
_CALL = rf"{_VARIABLE}(?:\((?:[^()=]|\([^()]*\))*\)|\[[^\[\]]*\])"
_SEGMENT = r"(?:m?(?:\\(?:angle|overline|triangle)\s*)?\{?[A-Z]{1,4}\}?|\|[A-Z]{1,3}\|)"
_WORD_NAME = r"[A-Za-z]{3,}(?:\s+[A-Za-z]+)*"
_ONE_NAME = rf"(?:{_CALL}|{_VARIABLE}|{_SEGMENT}|{_WORD_NAME})"
_QUOTIENT = rf"{_SEGMENT}[:/]{_SEGMENT}|\\frac\{{(?:{_SEGMENT}|d\w?)\}}\{{(?:{_SEGMENT}|d\w)\}}"
_NAME = re.compile(rf"{_ONE_NAME}|\(\s*{_ONE_NAME}(?:\s*,\s*{_ONE_NAME})+\s*\)|{_QUOTIENT}")
_SIMPLE_VARIABLE = re.compile(rf"{_LETTER}(?:_(?:\{{[^{{}}]*\}}|\w))?")
_LABEL = re.compile(
    r"(?:\(\s*([A-J])\s*\)|([A-J])\s*[).:](?=\s))\s*"
    r"((?!\(\s*[A-J]\s*\)|[+=^_/*<>,|)\]-]|\\(?:cdot|times|cup|cap|in|leq|geq|neq|pm|setminus|approx|and|or)(?![a-z]))\S.*)",
    re.DOTALL,
)
_ONLY_LABEL = re.compile(r"^([A-J])\s*\)$")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_CLOCK = re.compile(r"\d{1,2}(?::\d\d){1,2}")
_DECIMAL = re.compile(r"-?\d*\.\d+(?:\.\.\.|\\ldots)?(?:\s*\\%)?")
_MATRIX = re.compile(
    r"\\begin\{([pbB]?(?:small)?matrix|array)\*?\}(?:\s*\{[^{}]*\})?(.*)\\end\{[a-z]*matrix\*?\}|"
    r"\\begin\{array\}(?:\s*\{[^{}]*\})?(.*)\\end\{array\}",
    re.DOTALL,
)
_SEPARATORS = frozenset({",", ";", r"\and", r"\or"})
_COMMAS = frozenset({",", ";"})
_APPROXIMATE = frozenset({r"\approx", r"\simeq", r"\doteq"})
_SIGNS = frozenset({"<", ">", r"\leq", r"\geq", r"\neq"})
_BRACKETS_OPEN = frozenset({"(", "[", r"\{", r"\langle"})
_BRACKETS_CLOSE = frozenset({")", "]", r"\}", r"\rangle"})
_SET_OPERATIONS = (
    (Kind.UNION, r"\cup"),
    (Kind.DIFFERENCE, r"\setminus"),
    (Kind.INTERSECTION, r"\cap"),
)
_DETERMINANT = re.compile(r"\\begin\{vmatrix\}((?:(?!\\begin|\\end).)*)\\end\{vmatrix\}", re.DOTALL)
_MAX_DETERMINANT = 4
_MAX_PLUS_MINUS = 4


def read(text: str, *, thousands: bool = True) -> Node:
    """The tree of a normalised answer; `thousands` reads "1,234" as one number."""
    text = tidy(_DETERMINANT.sub(_expanded, text) if "vmatrix" in text else text)
    if thousands:
        text = _join_thousands(text)
    parts, found = split_outside(text, _SEPARATORS)
    if ";" in found and "," in found:
        parts, found = split_outside(text, frozenset({";"}))
    parts = [part for part in parts if tidy(part)]
    if len(parts) > 1:
        joiner = r"\or" if r"\or" in found else r"\and" if r"\and" in found else ","
        return Node(Kind.LIST, joiner, _flat(read(part) for part in parts))
    return _read_one(parts[0] if parts else "")


def _expanded(match: re.Match[str]) -> str:
    """A determinant as sums of products; what is not square, or large, stays."""
    rows = _cells(match[1])
    is_square = all(len(row) == len(rows) for row in rows)
    return _determinant(rows) if is_square and len(rows) <= _MAX_DETERMINANT else match.group()


def _determinant(rows: list[list[str]]) -> str:
    """By the first row: sum over k of (-1)^k times its k-th cell times the minor of that cell."""
    if len(rows) == 1:
        return f"({rows[0][0]})"
    terms = []
    for k, cell in enumerate(rows[0]):
        minor = _determinant([row[:k] + row[k + 1 :] for row in rows[1:]])
        terms.append(rf"{'-' if k % 2 else '+'}({cell})\cdot{minor}")
    return f"({''.join(terms).removeprefix('+')})"


def tidy(text: str) -> str:
    """Without surrounding space, braces, full stops and a leading equals sign."""
    before = None
    while text != before:
        before = text
        text = text.strip().lstrip("=:").removesuffix("\\\\").strip()
        if not text.endswith("..."):
            text = text.rstrip(".,;:").strip()
        if text.startswith("{") and matching_end(text) == len(text):
            text = text[1:-1]
    return text


def is_name(text: str) -> bool:
    """Whether the text can stand before "=" without being part of the answer."""
    return _NAME.fullmatch(text.strip()) is not None


def is_variable(name: str) -> bool:
    """Whether the name is one letter, perhaps with a subscript."""
    return _SIMPLE_VARIABLE.fullmatch(name) is not None


def _read_one(text: str) -> Node:
    """An answer without separators outside brackets."""
    words = plain_words(text)
    if words is not None:
        return Node(Kind.WORDS, words)
    text = _ONLY_LABEL.sub(r"\1", text)
    label = _LABEL.fullmatch(text)
    if label:
        return replace(read(label[3]), label=label[1] or label[2])
    contradicting = contradicting_words(text)
    text = tidy(without_words(text))
    if contradicting & {"am", "pm"} and _CLOCK.fullmatch(text):
        return Node(Kind.WORDS, text.lstrip("0"), words=contradicting)
    return replace(_read_relation(text), words=contradicting)


def _read_relation(text: str) -> Node:
    parts, _ = split_outside(text, _APPROXIMATE)
    if len(parts) > 1:
        return _read_relation(_exact_part(parts))
    parts, _ = split_outside(text, frozenset({r"\in"}))
    if len(parts) == 2 and (not parts[0] or is_name(parts[0])):
        return replace(read(parts[1]), name=parts[0])
    parts, found = split_outside(text, _SIGNS | {"="})
    if set(found) & _SIGNS:
        return Node(Kind.INEQUALITY, " ".join(found), tuple(map(_value, parts)))
    if found:
        return _read_equation(parts)
    return _read_operation(text)


def _exact_part(parts: list[str]) -> str:
    """The part that is not a rounded decimal; names are left out."""
    candidates = [part for part in parts if part and not is_name(part)] or parts
    return next((part for part in candidates if not _DECIMAL.fullmatch(part)), candidates[0])


def _read_equation(sides: list[str]) -> Node:
    name = ""
    while len(sides) > 1 and is_name(sides[0]):
        name = name or sides[0].replace(" ", "")
        sides = sides[1:]
    if len(sides) == 1:
        return replace(read(sides[0]), name=name)
    return Node(Kind.EQUATION, "", tuple(read(side) for side in sides), name)


def _read_operation(text: str) -> Node:
    text = re.sub(r"\s*:\s*", ":", text)
    for kind, sign in _SET_OPERATIONS:
        parts, found = split_outside(text, frozenset({sign}))
        if found:
            return Node(kind, "", tuple(_read_operand(part) for part in parts))
    is_set = text.startswith(r"\{") and matching_end(text) == len(text)
    if not is_set and re.search(r"\\(?:pm|mp)(?![a-z])", text):
        return _read_plus_minus(text)
    parts, found = split_outside(text, frozenset({":"}))
    if found and all(parts):
        if _CLOCK.fullmatch(text) and ":0" in text:  # 1:00 is no multiple of 2:00
            return Node(Kind.WORDS, text.lstrip("0"))
        return Node(Kind.RATIO, text.lstrip("0"), tuple(map(_value, parts)))
    return _read_brackets(text)


def _read_operand(text: str) -> Node:
    """In a union or difference, plain braces are those of a set."""
    if text.startswith("{") and matching_end(text) == len(text):
        text = f"\\{{{text[1:-1]}\\}}"
    return read(text)


def _read_plus_minus(text: str) -> Node:
    r"""All sign choices; `\mp` has the sign that `\pm` has not."""
    pieces = re.split(r"\\(pm|mp)(?![a-z])", text)
    signs = pieces[1::2]
    num_choices = 1 if "mp" in signs else len(signs)
    if not 0 < num_choices <= _MAX_PLUS_MINUS:
        return Node(Kind.VALUE, text)
    variants = []
    for choice in product("+-", repeat=num_choices):
        variant = pieces[0]
        for i, piece in enumerate(pieces[2::2]):
            sign = choice[i if num_choices > 1 else 0]
            if signs[i] == "mp":
                sign = "-" if sign == "+" else "+"
            variant += (sign if sign == "-" or variant.strip(" ({[,") else "") + piece
        variants.append(variant)
    return Node(Kind.SET, r"\pm", _flat(map(_read_brackets, variants)))


def _read_brackets(text: str) -> Node:
    opening = next((token for _, token, _ in scan(text)), "")
    if opening in _BRACKETS_OPEN and matching_end(text) == len(text):
        closing = next(end for end in (r"\}", r"\rangle", text[-1]) if text.endswith(end))
        inner = text[len(opening) : -len(closing)].strip()
        if opening == r"\{":
            return _read_braces(inner)
        ends = ("[" if opening == "[" else "(") + ("]" if closing == "]" else ")")
        return _read_tuple(inner, ends)
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        return _read_matrix(matrix[2] if matrix[2] is not None else matrix[3])
    if text in (r"\emptyset", r"\{\}"):
        return Node(Kind.SET)
    return _value(text)


def _read_braces(inner: str) -> Node:
    parts, found = split_outside(inner, frozenset({r"\mid", "|", ":"}))
    if len(found) == 1:
        return Node(Kind.BUILDER, "", (read(parts[1]),), parts[0].split(r"\in")[0].strip())
    items = [read(part, thousands=False) for part in _elements(inner) if part]
    return Node(Kind.SET, "", _flat(items))


def _read_tuple(inner: str, ends: str) -> Node:
    parts = _elements(inner)
    if len(parts) == 1:
        return read(inner) if ends in ("()", "[]") else _value(ends[0] + inner + ends[1])
    return Node(Kind.TUPLE, ends, tuple(read(part, thousands=False) for part in parts))


def _elements(inner: str) -> list[str]:
    """Split at commas; "1,000" is one number only where other commas are followed by space."""
    commas = re.findall(r",\s*", inner)
    if any(len(comma) > 1 for comma in commas):
        inner = _join_thousands(inner)
    return split_outside(inner, _COMMAS)[0]


def _read_matrix(content: str) -> Node:
    rows = tuple(Node(Kind.TUPLE, "()", tuple(map(_value, row))) for row in _cells(content))
    return Node(Kind.MATRIX, "", rows)


def _cells(content: str) -> list[list[str]]:
    rows = [row for row in split_outside(content, frozenset({"\\\\"}))[0] if row]
    return [split_outside(row, frozenset({"&"}))[0] for row in rows]


def _value(text: str) -> Node:
    return Node(Kind.VALUE, tidy(without_words(text)))


def _flat(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes, with unnamed plus-minus pairs replaced by their two values."""
    flat: list[Node] = []
    for node in nodes:
        is_pair = node.kind is Kind.SET and node.text == r"\pm" and not node.name
        flat += node.items if is_pair else [node]
    return tuple(flat)


def _join_thousands(text: str) -> str:
    """Without the commas of "1,000" that stand outside the brackets of tuples and sets."""
    if not _THOUSANDS.search(text):
        return text
    depth, outside = 0, set()
    for position, token, _ in scan(text):
        depth += token in _BRACKETS_OPEN
        depth -= token in _BRACKETS_CLOSE
        if depth == 0:
            outside.add(position)
    return _THOUSANDS.sub(
        lambda m: m.group().replace(",", "") if m.start() in outside else m.group(), text
    )
