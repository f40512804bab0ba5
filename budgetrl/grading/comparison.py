r"""Which trees of two answers are equal: order, duplicates, names, labels, scaling.

Only the form is compared here; values.py compares single values, regions.py sets of real numbers.
Gold comes first everywhere, because some rules are not symmetric: a name that the gold gives
("x = 1, y = 2") orders a bare answer, and only an answer may be a rounded decimal.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from budgetrl.grading.reading import SEVERAL_TEXTS, Kind, Node, is_variable
from budgetrl.grading.regions import same_inequality, same_region
from budgetrl.grading.values import expression, proportional, same_value

_LETTER = re.compile(r"[A-Ja-j]")
_SUM_OF_NAMES = re.compile(r"-?[A-Za-z]{1,3}(?:\s*[+-]\s*[A-Za-z]{1,3})*")
_CALL_AT = re.compile(r"([A-Za-z])\((-?\d+)\)")
_NUMBERED = re.compile(r"([A-Za-z])_\{?(\d)\}?")
_COLLECTIONS = (Kind.LIST, Kind.SET)


def equal(gold: Node, answer: Node) -> bool:
    """Whether the answer is the gold, whatever its form."""
    gold, answer = _without_equals(gold), _without_equals(answer)
    if gold.words and answer.words and gold.words != answer.words:
        return False
    if gold.label or answer.label:
        return _same_choice(gold, answer)
    if gold.name.startswith("(") and answer.name.startswith("("):
        return _same_point(gold, answer)
    if Kind.EQUATION in (gold.kind, answer.kind) or _names_differ(gold, answer):
        return _same_equation(gold, answer)
    if gold.kind is Kind.VALUE and answer.kind is Kind.VALUE:
        return same_value(gold.text, answer.text)
    if Kind.WORDS in (kinds := {gold.kind, answer.kind}) and kinds <= {Kind.WORDS, Kind.RATIO}:
        return gold.text == answer.text
    if gold.kind is Kind.RATIO or answer.kind is Kind.RATIO:
        return _same_ratio(gold, answer)
    if gold.kind is Kind.MATRIX or answer.kind is Kind.MATRIX:
        return _same_matrix(gold, answer)
    if _same_items(gold, answer):
        return True
    if gold.kind is Kind.INEQUALITY and answer.kind is Kind.INEQUALITY:
        return _same_variables(gold, answer) and (
            same_region(gold, answer) or same_inequality(gold, answer)
        )
    return same_region(gold, answer)


def _without_equals(node: Node) -> Node:
    """ "4 or 4.0" is one answer written twice; "2, 2" is not."""
    if node.kind is Kind.LIST and node.text in (r"\or", SEVERAL_TEXTS):
        first, *others = node.items
        if all(equal(first, other) or equal(other, first) for other in others):
            return first
    return node


def _same_choice(gold: Node, answer: Node) -> bool:
    """ "(C) 12" is C, and 12, and "(C) 12", but neither "(D) 12" nor "(C) 13"."""
    plain_gold, plain_answer = replace(gold, label=""), replace(answer, label="")
    if gold.label and answer.label:
        return gold.label == answer.label and equal(plain_gold, plain_answer)
    letter, other = (gold.label, answer) if gold.label else (answer.label, gold)
    if other.kind is Kind.VALUE and _LETTER.fullmatch(other.text):
        return letter == other.text.upper()
    return equal(plain_gold, plain_answer)


def _same_point(gold: Node, answer: Node) -> bool:
    """(x, y) = (1, 2) is (y, x) = (2, 1), and neither (y, x) = (1, 2) nor (a, b) = (1, 2)."""
    wanted, given = (node.name.strip("()").split(",") for node in (gold, answer))
    if sorted(wanted) != sorted(given):
        return False
    gold, answer = replace(gold, name=""), replace(answer, name="")
    if wanted != given and len(answer.items) == len(given):
        by_name = dict(zip(given, answer.items, strict=True))
        answer = replace(answer, items=tuple(by_name[name] for name in wanted))
    return equal(gold, answer)


def _names_differ(gold: Node, answer: Node) -> bool:
    """x = 5 is not y = 5, nor f(2) = 5 f(3) = 5; but f(x) = 5 may be y = 5, and x = 5 may be 5."""
    if gold.name.lower() == answer.name.lower():
        return False
    calls = [_CALL_AT.fullmatch(node.name) for node in (gold, answer)]
    return (is_variable(gold.name) and is_variable(answer.name)) or (
        calls[0] is not None and calls[1] is not None and calls[0][1] == calls[1][1]
    )


def _same_items(gold: Node, answer: Node) -> bool:
    if Kind.SET in (gold.kind, answer.kind):
        left = gold.items if gold.kind in _COLLECTIONS else (replace(gold, name=""),)
        right = answer.items if answer.kind in _COLLECTIONS else (replace(answer, name=""),)
        return all(any(equal(a, b) for b in right) for a in left) and all(
            any(equal(a, b) for a in left) for b in right
        )
    if gold.kind is Kind.LIST and answer.kind is Kind.LIST:
        return _same_list(gold.items, answer.items)
    if gold.kind is answer.kind and gold.kind in (Kind.UNION, Kind.INTERSECTION):
        return _in_any_order(gold.items, answer.items)
    if gold.kind is Kind.TUPLE and answer.kind is Kind.TUPLE:
        is_interval = len(gold.items) == 2
        return (gold.text == answer.text or not is_interval) and _in_order(gold.items, answer.items)
    if {gold.kind, answer.kind} == {Kind.LIST, Kind.TUPLE}:  # "x = 1, y = 2" is the point (1, 2)
        point, named = (answer, gold) if gold.kind is Kind.LIST else (gold, answer)
        is_point = point.text == "()" and _different_names(named.items)
        return bool(is_point) and _in_order(_unnamed(gold.items), _unnamed(answer.items))
    return False


def _same_list(gold: Sequence[Node], answer: Sequence[Node]) -> bool:
    """By name if both give different names, in order if only the gold does, else in any order."""
    gold_names, answer_names = _different_names(gold), _different_names(answer)
    if gold_names and answer_names and set(gold_names) == set(answer_names):
        by_name = dict(zip(answer_names, answer, strict=True))
        return all(equal(item, by_name[name]) for name, item in zip(gold_names, gold, strict=True))
    gold, answer = _unnamed(gold), _unnamed(answer)
    has_dots = any("\\ldots" in item.text for item in (*gold, *answer))
    return (_in_order if gold_names or has_dots else _in_any_order)(gold, answer)


def _different_names(items: Sequence[Node]) -> list[str]:
    """The names of the items if each has its own; the roots x_1, x_2 have none of their own."""
    names = [item.name for item in items]
    if not all(names) or len(set(names)) < len(names):
        return []
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    if all(numbered) and len({match[1] for match in numbered if match}) == 1:
        numbers = sorted(int(match[2]) for match in numbered if match)
        if numbers == list(range(1, len(names) + 1)):
            return []
    return names


def _unnamed(items: Sequence[Node]) -> list[Node]:
    return [replace(item, name="") for item in items]


def _in_order(gold: Sequence[Node], answer: Sequence[Node]) -> bool:
    return len(gold) == len(answer) and all(map(equal, gold, answer))


def _in_any_order(gold: Sequence[Node], answer: Sequence[Node]) -> bool:
    if len(gold) != len(answer):
        return False
    left = list(answer)
    for item in gold:
        match = next((i for i, other in enumerate(left) if equal(item, other)), None)
        if match is None:
            return False
        left.pop(match)
    return True


def _same_matrix(gold: Node, answer: Node) -> bool:
    if gold.kind is Kind.MATRIX and answer.kind is Kind.MATRIX:
        return _in_order(gold.items, answer.items)
    matrix, other = (gold, answer) if gold.kind is Kind.MATRIX else (answer, gold)
    rows = [row.items for row in matrix.items]
    vector = rows[0] if len(rows) == 1 else [row[0] for row in rows if len(row) == 1]
    if other.kind is not Kind.TUPLE or (len(rows) > 1 and len(vector) < len(rows)):
        return False
    gold_items, answer_items = (vector, other.items) if matrix is gold else (other.items, vector)
    return _in_order(gold_items, answer_items)


def _same_ratio(gold: Node, answer: Node) -> bool:
    """3:4 is 6:8 and, as two numbers, 3/4; a ratio with a zero is not scaled."""
    if gold.kind is not answer.kind:
        ratio, other = (gold, answer) if gold.kind is Kind.RATIO else (answer, gold)
        if len(ratio.items) != 2 or other.kind is not Kind.VALUE:
            return False
        quotient = rf"\frac{{{ratio.items[0].text}}}{{{ratio.items[1].text}}}"
        texts = (quotient, other.text) if ratio is gold else (other.text, quotient)
        return same_value(*texts)
    if _in_order(gold.items, answer.items):
        return True
    if len(gold.items) != len(answer.items):
        return False
    left, right = ([item.text for item in node.items] for node in (gold, answer))
    if any(same_value("0", text) for text in (*left, *right)):
        return False
    return all(
        same_value(rf"({left[i]})\cdot({right[0]})", rf"({right[i]})\cdot({left[0]})")
        for i in range(1, len(left))
    )


def _same_variables(gold: Node, answer: Node) -> bool:
    def symbols(node: Node) -> set[str]:
        values = [expression(item.text) for item in node.items]
        return {str(s).lower() for v in values if v is not None for s in v.free_symbols}

    return symbols(gold) == symbols(answer)


def _same_equation(gold: Node, answer: Node) -> bool:
    left, right = _difference(gold), _difference(answer)
    if left is not None and right is not None and proportional(left, right):
        return True
    if gold.kind is Kind.EQUATION and answer.kind is Kind.EQUATION:
        return _in_order(gold.items, answer.items)
    if answer.kind is Kind.EQUATION:
        sides = _stated_values(gold, answer)
        return bool(sides) and all(equal(gold, side) for side in sides)
    if gold.kind is Kind.EQUATION and _in_order(gold.items[1:], gold.items[:-1]):
        return equal(gold.items[-1], answer)
    return False


def _difference(node: Node) -> object | None:
    """Left minus right side of an equation, or of a value with a name."""
    if node.kind is Kind.EQUATION and len(node.items) == 2 and not node.name:
        sides = [item.text if item.kind is Kind.VALUE else "" for item in node.items]
    elif node.kind is Kind.VALUE and node.name:
        sides = [node.name, node.text]
    else:
        return None
    left, right = map(expression, sides)
    return None if left is None or right is None else left - right


def _stated_values(gold: Node, answer: Node) -> Sequence[Node]:
    """The sides of an equation that all claim to be the value, without formulas after a name.

    "V = \\pi r^2 h = 12\\pi" states 12 pi, "x + y = 3 + 4 = 7" states 3 + 4 and 7; "3 = 5" states
    both, so it is equal to neither, and "2x = 6" states no value.
    """
    sides = list(answer.items)
    has_name = bool(answer.name)
    if not has_name and not _symbols(gold) and _SUM_OF_NAMES.fullmatch(sides[0].text):
        has_name = True
        sides.pop(0)
    if has_name and not _symbols(sides[-1]):
        sides = [side for side in sides if not _symbols(side)]
    return sides


def _symbols(node: Node) -> bool:
    """Whether a value has variables, or cannot be read."""
    value = expression(node.text) if node.kind is Kind.VALUE else None
    return value is None or bool(value.free_symbols)
