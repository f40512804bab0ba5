r"""Whether two expressions have the same value. Exact: 0.333 is not 1/3, and 3^-40 is not 3^-41.

Single values only, normalised and free of words and names; reading.py takes lists and intervals
apart. math-verify's parser reads the LaTeX. Its comparison rounds to six places and takes what is
below 1e-15 for zero, so numbers are compared here; `math_verify.verify` decides about what has no
numeric value.

    same_value(r"\frac{1}{2}", "0.5")            -> True
    same_value(r"\frac{1}{3}", "0.333333")       -> True     six places or more may be rounded
    same_value("x^2-1", "(x-1)(x+1)")            -> True     equal at every sample point

Gold comes first. Nothing is ever evaluated as Python.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

Expression = Any
"""A sympy object; sympy has no types."""
Point = dict[Expression, Expression]
"""A value for each symbol."""

_DIGITS = r"(?:\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(rf"([+-]?)\s*({_DIGITS})")
_FRACTION = re.compile(
    rf"([+-]?)\s*(?:\\frac\{{\s*([+-]?{_DIGITS})\s*\}}\{{\s*([+-]?{_DIGITS})\s*\}}"
    rf"|({_DIGITS})\s*/\s*({_DIGITS}))"
)
_LONG_DECIMAL = re.compile(r"([+-]?)\s*(\d*)\.(\d{6,})(?:\s*(?:\.\.\.|\\ldots))?")
_DOTS = re.compile(r"(?<=\.\d{6})(\d*)\s*(?:\.\.\.|\\ldots)$")

_MIXED = re.compile(r"(?<![\w.}^])(\d+)(?:\s*\\frac\{(\d+)\}\{(\d+)\}|\s+(\d+)/(\d+)(?![\d.]))")
_REPEATING = re.compile(
    r"(?<![\w.])(\d*)\.(\d*)(?:\\overline\s*(?:\{(\d+)\}|(\d))|\((\d+)\)"
    r"|\\dot\s*\{?(\d)\}?(?:(\d*)\\dot\s*\{?(\d)\}?)?)"
)
_ENDLESS = re.compile(r"(?<![\w.])(\d*)\.(\d{0,20}?)((\d{1,12}?)\4{1,20})\s*(?:\.\.\.|\\ldots)")
_BASE = re.compile(
    r"(?<![\w.}\\])(?:\((\d[0-9A-Z]*)\)|(\d[0-9A-Z]*|[A-Z][0-9A-Z]*\d[0-9A-Z]*|"
    r"[A-F]{2,}(?=\s*_\s*\{?\s*16)))"
    r"\s*_\s*(?:\{\s*\(?(\d+)\)?\s*\}|(\d+))(?![\w{^.])"
)
_SCIENTIFIC = re.compile(rf"(?<![\w.])({_DIGITS})[eE]([+-]?\d{{1,4}})(?![\w.])")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DEGREES = re.compile(
    rf"({_DIGITS}|\([^()]*\)|\\?[A-Za-z]+|\\frac\{{[^{{}}]*\}}\{{[^{{}}]*\}})\^\{{\\circ\}}"
)
_ODD_ROOT = re.compile(r"\\sqrt\[([3579])\]\{\s*-\s*(\d+)\s*\}")
_SCRIPT = re.compile(r"([\^_])\s*(\d+)")
_FRAC = re.compile(r"\\frac(?=\{)")
_PRODUCT = re.compile(r"(?<=[\d)])\s*(?=\()|(?<=\))\s*(?=\d)")
_MAX_DIGITS = 10_000
_PERCENT = re.compile(r"\s*\\%$")
_UNREADABLE = re.compile(
    # what the parser would drop or misread in silence
    r"[^\x20-\x7e]|['\"#&@?`~;$%]|\\(?:ldots|pmod|text|begin|mid|Rightarrow|angle|triangle|Gamma|and|or)"
    r"(?![a-z])|\^\s*\{?\s*(?:T|\\top|\\circ|\\ast)\s*\}?(?![a-z])|\d\s+[\d.]|\.\s*\.|[\d)]\s*_|"
    r"\^\s*(?:\{[^{}]*\}|[\w.])\s*\^"
)


def same_value(gold: str, answer: str) -> bool:
    """Whether the answer has the gold's value; 50% is both 50 and 0.5."""
    if _compact(gold) == _compact(answer):
        return True
    plain_gold, plain_answer = _PERCENT.sub("", gold), _PERCENT.sub("", answer)
    if (plain_gold != gold) == (plain_answer != answer):
        return _same(plain_gold, plain_answer)
    if _same(plain_gold, plain_answer):
        return True
    if plain_gold != gold:
        return _same(rf"\frac{{{plain_gold}}}{{100}}", plain_answer)
    return _same(rf"100\cdot({plain_gold})", plain_answer)


def is_readable(text: str) -> bool:
    """Whether the text can be compared by its value, not only by its letters."""
    text = _PERCENT.sub("", text)
    return number(text) is not None or expression(text) is not None


def number(text: str) -> Fraction | None:
    """The value of a plain number or fraction, mixed, repeating or in a base; None for all else."""
    text = _plain_numbers(text.strip())
    match = _NUMBER.fullmatch(text)
    if match:
        return Fraction(match[1] + match[2])
    match = _FRACTION.fullmatch(text)
    if match is None:
        return None
    top, bottom = Fraction(match[2] or match[4]), Fraction(match[3] or match[5])
    return (-top if match[1] == "-" else top) / bottom if bottom else None


@lru_cache(maxsize=256)
def expression(text: str) -> Expression | None:
    """What the text means to math-verify's parser, with exact numbers; None if it means nothing."""
    text = _for_parser(text)
    if not text or _UNREADABLE.search(text):
        return None
    try:
        return _exact(_parse(text))
    except Exception:  # whatever the parser and sympy raise on text that is not mathematics
        return None


def _parse(text: str) -> Expression:
    """math-verify's parser, asked for an expression.

    Its public function tries sets, tuples and relations too, which takes a new formula seconds;
    math-verify pins the version of the package that this looks into.
    """
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy

    config = ConversionConfig(lowercase_symbols=False)
    converter = _Latex2Sympy(None, is_real=True, config=config)
    parser = converter.create_parser(text)
    tree = parser.expr()
    if parser.getCurrentToken().text != "<EOF>":
        raise ValueError("more than one expression")
    return converter.convert_expr(tree)


def proportional(gold: Expression, answer: Expression, *, positive: bool = False) -> bool:
    """Whether one expression is a constant, not zero, times the other."""
    symbols = gold.free_symbols
    if not symbols or symbols != answer.free_symbols:
        return False
    try:
        first, *others = _points(symbols)
        a, b = gold.xreplace(first), answer.xreplace(first)
        if _is_zero(a) is not False or _is_zero(b) is not False:
            return False
        if positive and not (a / b).evalf(15).is_positive:
            return False
        return all(_is_zero(gold * b - answer * a, point) is True for point in others)
    except Exception:  # sympy raises all kinds on odd input; what it cannot compare is not equal
        return False


def _compact(text: str) -> str:
    """Without the spaces that mean nothing; those between two letters or digits stay."""
    return re.sub(r"\s+(?![\dA-Za-z.])|(?<![\dA-Za-z.])\s+", "", text.strip())


def _same(gold: str, answer: str) -> bool:
    left, right = number(gold), number(answer)
    if left is not None and right is not None:
        return left == right or _is_rounded(left, answer)
    left, right = expression(gold), expression(_DOTS.sub(r"\1", answer))
    if left is None or right is None:
        return False
    try:
        if not (_is_expression(left) and _is_expression(right)):
            return _verify(left, right)
        return _same_expression(left, right) or _is_rounded(left, answer)
    except Exception:  # sympy raises all kinds on odd input; what it cannot compare is not equal
        return False


def _is_expression(value: Expression) -> bool:
    from sympy import Expr

    return isinstance(value, Expr) and value.is_commutative is not False


def _same_expression(gold: Expression, answer: Expression) -> bool:
    if gold == answer:
        return True
    same = _identical(gold, answer)
    if same is None:
        return _verify(gold, answer)
    if not same:
        gold, answer = _lower_case(gold), _lower_case(answer)
        return gold is not None and answer is not None and _identical(gold, answer) is True
    return True


def _identical(gold: Expression, answer: Expression) -> bool | None:
    """Equality by numbers, at sample points if there are symbols; None if numbers cannot tell."""
    from sympy import I

    difference = gold - answer
    symbols = gold.free_symbols | answer.free_symbols
    if not symbols:
        return _is_zero(difference)
    is_complex = gold.has(I) or answer.has(I)
    agreements = 0
    for point in _points(symbols):
        if is_complex or (_is_real(gold, point) and _is_real(answer, point)):
            zero = _is_zero(difference, point)
            if zero is False:
                return False
            agreements += zero is True
    return True if agreements >= 2 else None


def _points(symbols: set[Expression]) -> Sequence[Point]:
    """Fixed points with both signs, small and large; no structure that an identity could share."""
    from sympy import Rational

    ordered = sorted(symbols, key=str)
    primes = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    patterns = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 1), (1, 1), (1, 1), (-1, -1))
    return [
        {
            symbol: Rational(
                signs[i % 2] * primes[(3 * i + k) % 12] * (1 + i // 12),
                primes[(5 * i + 2 * k + 3) % 12] if k < 5 else 1 + k % 2,
            )
            for i, symbol in enumerate(ordered)
        }
        for k, signs in enumerate(patterns)
    ]


def _is_real(value: Expression, point: Point | None = None) -> bool:
    value = value.evalf(15, subs=point)
    return bool(value.is_Float or value.is_Rational)


def _is_zero(difference: Expression, point: Point | None = None) -> bool | None:
    """Whether a constant, or a value at a point, is zero; None if it has no finite value.

    sympy raises its precision until a digit is certain or `maxn` digits cancel. That limit grows
    with the numbers in the expression: 2^(1/2^1000) differs from 1 at the 302nd digit. Numbers too
    large for that are not taken for equal.
    """
    from sympy import nan, oo, zoo

    if difference.is_Rational:
        return bool(difference == 0)
    if difference.has(oo, -oo, zoo, nan):
        return None
    digits = 100 + _size(difference)
    if digits > _MAX_DIGITS:
        return False
    value = difference.evalf(15, subs=point, maxn=digits)
    parts = value.as_real_imag()
    if not all(part.is_Float or part.is_Rational for part in parts):
        return None
    return all(part == 0 or (part.is_Float and part._prec == 1) for part in parts)


def _size(value: Expression) -> int:
    """How many digits could matter: the bits of all numbers, and the size of constant powers."""
    from sympy import Pow, Rational, exp

    bits = sum(int(n).bit_length() for a in value.atoms(Rational) for n in (a.p, a.q))
    powers = [power.exp for power in value.atoms(Pow, exp) if not power.free_symbols]
    return bits + sum(int(min(abs(power.evalf(5)), _MAX_DIGITS)) for power in powers)


def _lower_case(value: Expression) -> Expression | None:
    """With lower-case symbols; None where that would make two symbols one, as in R^2 - r^2."""
    from sympy import Symbol

    symbols = value.free_symbols
    if len({str(s).lower() for s in symbols}) < len(symbols):
        return None
    return value.xreplace({s: Symbol(str(s).lower(), real=True) for s in symbols})


def _is_rounded(gold: Expression, answer: str) -> bool:
    """Whether the answer is a decimal of six places or more that rounds or cuts the gold there."""
    match = _LONG_DECIMAL.fullmatch(answer.strip())
    if match is None:
        return False
    places = len(match[3])
    stated = int(match[1] + (match[2] or "0") + match[3])
    scaled = gold * 10**places
    if isinstance(scaled, Fraction):
        gap = abs(scaled) - abs(stated)
        return stated != 0 and (scaled > 0) == (stated > 0) and -0.5 <= gap < 1
    if scaled.free_symbols or not _is_real(scaled):
        return False
    gap = (abs(scaled) - abs(stated)).evalf(15)
    return bool(stated != 0 and (scaled > 0) == (stated > 0) and -0.5 <= gap < 1)


def _verify(gold: Expression, answer: Expression) -> bool:
    from math_verify import verify

    return bool(verify(gold, answer, timeout_seconds=None))


def _exact(parsed: Expression) -> Expression | None:
    """With rationals for decimals and constants for e and i, evaluated; None if undefined."""
    from sympy import Basic, E, Float, I, Rational, Symbol, nan, zoo

    if not isinstance(parsed, Basic):
        return parsed if hasattr(parsed, "shape") else None
    exact = parsed.xreplace(
        {f: Rational(str(f)) for f in parsed.atoms(Float)}
        | {s: {"e": E, "i": I}[s.name] for s in parsed.atoms(Symbol) if s.name in ("e", "i")}
    ).doit()
    return None if exact.has(nan, zoo) else exact


def _for_parser(text: str) -> str:
    """Spelled as the parser understands it."""
    text = _plain_numbers(text)
    if _TRIGONOMETRY.search(text):
        text = _DEGREES.sub(r"(\1\\cdot\\frac{\\pi}{180})", text)
    text = text.replace("^{\\circ}", "").replace("\\bmod", "\\mod")
    text = re.sub(r"\\lg(?![a-z])", r"\\log_{10}", text)
    text = _ODD_ROOT.sub(r"(-\\sqrt[\1]{\2})", text)
    text = re.sub(r"\\log_(?:e|\{e\})(?![a-z])", r"\\ln", text)
    text = re.sub(r"\\gamma(?![a-z])", r"\\xi_{99}", text)  # the parser takes it for 0.5772
    text = _SCRIPT.sub(r"\1{\2}", text)
    return _PRODUCT.sub(r"\\cdot ", _parenthesised_fractions(text))


def _parenthesised_fractions(text: str) -> str:
    r"""`\frac{4}{2}(3)` is 6; the parser takes an integer before a number for a mixed number."""
    from budgetrl.grading.brackets import argument

    match = _FRAC.search(text)
    if match is None:
        return text
    top, middle = argument(text, match.end())
    bottom, end = argument(text, middle)
    top, bottom = _parenthesised_fractions(top), _parenthesised_fractions(bottom)
    rest = _parenthesised_fractions(text[end:])
    return f"{text[: match.start()]}(\\frac{{{top}}}{{{bottom}}}){rest}"


def _plain_numbers(text: str) -> str:
    """Mixed and repeating numbers, bases and scientific notation as fractions and powers."""
    if not any(mark in text for mark in ("\\frac", "/", "_", ".", "e", "E")):
        return text
    text = _BASE.sub(_from_base, text)
    if "..." in text or "\\ldots" in text:
        text = _ENDLESS.sub(_endless, text)
    text = _REPEATING.sub(_repeating, text)
    text = _MIXED.sub(_mixed, text)
    return _SCIENTIFIC.sub(r"(\1\\cdot 10^{\2})", text)


def _from_base(match: re.Match[str]) -> str:
    base = int(match[3] or match[4])
    try:
        return str(int(match[1] or match[2], base)) if 2 <= base <= 36 else match.group()
    except ValueError:  # a digit that this base does not have
        return match.group()


def _endless(match: re.Match[str]) -> str:
    """ "0.333..." as 0.(3) and "0.1212..." as 0.(12): three digits or more show the period."""
    whole, fixed, shown, period = match.groups()
    return f"{whole}.{fixed}({period})" if len(shown) >= 3 else match.group()


def _repeating(match: re.Match[str]) -> str:
    whole, fixed = match[1], match[2]
    period = match[3] or match[4] or match[5] or (match[6] + (match[7] or "") + (match[8] or ""))
    top = int(whole + fixed + period) - int((whole + fixed) or "0")
    return f"\\frac{{{top}}}{{{10 ** len(fixed) * (10 ** len(period) - 1)}}}"


def _mixed(match: re.Match[str]) -> str:
    whole, top, bottom = int(match[1]), int(match[2] or match[4]), int(match[3] or match[5])
    if not 0 < top < bottom:
        return match.group()
    return f"\\frac{{{whole * bottom + top}}}{{{bottom}}}"
