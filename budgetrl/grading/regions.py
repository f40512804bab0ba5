r"""Answers as sets of real numbers: intervals, unions, inequalities, set builders.

    region(read("x > 3")) and region(read(r"(3, \infty)")) are the same sympy set.

None wherever an answer is no such set, or has ends that are no real numbers.
"""

from functools import reduce
from itertools import pairwise

from budgetrl.grading.reading import Kind, Node, is_name
from budgetrl.grading.values import Expression, expression, proportional

_FLIPPED = {"<": ">", ">": "<", r"\leq": r"\geq", r"\geq": r"\leq", r"\neq": r"\neq", "=": "="}
_NAMED_SETS = {r"\mathbb{R}": "Reals", r"\mathbb{Z}": "Integers", r"\mathbb{N}": "Naturals"}


def region(node: Node) -> Expression | None:
    """The set of real numbers that an answer describes, or None."""
    try:
        return _region(node)
    except (TypeError, ValueError, NotImplementedError, AttributeError, RecursionError):
        return None  # sympy cannot order the ends, or cannot solve the inequality


def same_region(gold: Node, answer: Node) -> bool:
    """Whether two answers describe the same set of real numbers."""
    left, right = region(gold), region(answer)
    if left is None or right is None:
        return False
    try:
        return bool(left == right or ((left - right).is_empty and (right - left).is_empty))
    except (TypeError, ValueError, NotImplementedError):
        return False


def same_inequality(gold: Node, answer: Node) -> bool:
    """Whether two inequalities in several variables say the same, up to a positive factor."""
    left, right = _differences(gold), _differences(answer)
    return len(left) == len(right) > 0 and all(
        any(a[0] == b[0] and proportional(a[1], b[1], positive=a[0] != r"\neq") for b in right)
        for a in left
    )


def _differences(node: Node) -> list[tuple[str, Expression]]:
    """Each adjacent pair as a sign and an expression compared with zero; "<" and `\\leq` only."""
    result = []
    for (left, right), sign in zip(pairwise(node.items), node.text.split(), strict=True):
        a, b = expression(left.text), expression(right.text)
        if a is None or b is None:
            return []
        result.append((_FLIPPED[sign], b - a) if sign in (">", r"\geq") else (sign, a - b))
    return result


def _region(node: Node) -> Expression | None:
    import sympy

    match node.kind:
        case Kind.VALUE:
            name = _NAMED_SETS.get(node.text.replace(" ", ""))
            return getattr(sympy.S, name) if name else None
        case Kind.SET:
            values = [_real(item) for item in node.items]
            return None if None in values else sympy.FiniteSet(*values)
        case Kind.TUPLE if len(node.items) == 2:
            low, high = (_real(item) for item in node.items)
            if low is None or high is None or not bool(low < high):
                return None
            return sympy.Interval(low, high, node.text[0] == "(", node.text[1] == ")")
        case Kind.UNION | Kind.DIFFERENCE | Kind.INTERSECTION:
            return _combined(node.items, node.kind)
        case Kind.LIST if all(item.kind is Kind.INEQUALITY for item in node.items):
            return _combined(node.items, Kind.UNION if node.text == r"\or" else Kind.LIST)
        case Kind.LIST if node.text == r"\or" and not node.name:
            return _combined(node.items, Kind.UNION)
        case Kind.BUILDER:
            return _region(node.items[0])
        case Kind.INEQUALITY:
            return _solved(node)
    return None


def _combined(items: tuple[Node, ...], kind: Kind) -> Expression | None:
    import sympy

    sets = [_region(item) for item in items]
    if None in sets:
        return None
    if kind is Kind.UNION:
        return sympy.Union(*sets)
    combine = sympy.Complement if kind is Kind.DIFFERENCE else sympy.Intersection
    return reduce(combine, sets)


def _real(node: Node) -> Expression | None:
    """A real number or an infinity."""
    value = expression(node.text) if node.kind is Kind.VALUE and not node.name else None
    if value is None or not getattr(value, "is_extended_real", False) or value.free_symbols:
        return None
    return value


def _solved(node: Node) -> Expression | None:
    """The solutions of an inequality in one variable."""
    import sympy

    solutions = sympy.S.Reals
    variable = sympy.Symbol("x", real=True)
    names = {item.text.replace(" ", "") for item in node.items if is_name(item.text)}
    for (left, right), sign in zip(pairwise(node.items), node.text.split(), strict=True):
        if len(names) == 1 and is_name(left.text):
            part = _half_line(sign, right)
        elif len(names) == 1 and is_name(right.text):
            part = _half_line(_FLIPPED[sign], left)
        else:
            part = _solve_general(left, sign, right, variable)
        if part is None:
            return None
        solutions = sympy.Intersection(solutions, part)
    return solutions


def _half_line(sign: str, bound: Node) -> Expression | None:
    import sympy

    end = _real(bound)
    if end is None:
        return None
    return {
        "<": sympy.Interval.open(-sympy.oo, end),
        ">": sympy.Interval.open(end, sympy.oo),
        r"\leq": sympy.Interval(-sympy.oo, end),
        r"\geq": sympy.Interval(end, sympy.oo),
        r"\neq": sympy.Complement(sympy.S.Reals, sympy.FiniteSet(end)),
        "=": sympy.FiniteSet(end),
    }[sign]


def _solve_general(left: Node, sign: str, right: Node, variable: Expression) -> Expression | None:
    import sympy

    a, b = expression(left.text), expression(right.text)
    if a is None or b is None or len((a - b).free_symbols) != 1:
        return None
    relation = {
        "<": sympy.Lt,
        ">": sympy.Gt,
        r"\leq": sympy.Le,
        r"\geq": sympy.Ge,
        r"\neq": sympy.Ne,
        "=": sympy.Eq,
    }[sign](a, b).subs(next(iter((a - b).free_symbols)), variable)
    if relation in (sympy.true, sympy.false):
        return sympy.S.Reals if relation == sympy.true else sympy.S.EmptySet
    return sympy.solve_univariate_inequality(relation, variable, relational=False)
