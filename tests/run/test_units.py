import math

import pytest
from hypothesis import given, strategies as st

from budgetrl.units import (
    GIB,
    duration,
    gib,
    hours_option,
    parse_duration_s,
    parse_usd,
    percent,
    usd,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24", 86400), ("1.5h", 5400), ("90m", 5400), ("45s", 45), (" 2 H ", 7200), (".5m", 30)],
)
def test_a_duration_is_hours_unless_it_says_otherwise(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "0", "0s", "-1h", "1h30m", "nan", "inf", "1e400", "5d"])
def test_what_is_no_positive_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a duration|above zero|100 years"):
        parse_duration_s(text)


@given(st.floats(1, 1e6))
def test_an_advised_duration_is_read_back_as_enough_and_hardly_more(seconds: float) -> None:
    advised = parse_duration_s(hours_option(seconds))
    assert seconds * (1 - 1e-9) <= advised <= seconds * 1.1 + 5


def test_an_advised_duration_is_short_to_type() -> None:
    typed = {42: "45s", 59: "1m", 147.2: "2.5m", 151.2: "155s", 240: "4m", 301: "5.5m",
             1812: "31m", 18073: "5.1", 86400: "24"}  # fmt: skip
    assert {seconds: hours_option(seconds) for seconds in typed} == typed


@pytest.mark.parametrize(("text", "amount"), [("5", 5.0), ("$5", 5.0), (" 0.44 ", 0.44)])
def test_dollars_are_read_with_and_without_the_sign(text: str, amount: float) -> None:
    assert parse_usd(text) == amount


@pytest.mark.parametrize(
    "text", ["", "$", "five", "0", "-1", "nan", "inf", "1e10", "1e-9", "5 EUR"]
)
def test_what_is_no_positive_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an amount|above zero|a billion"):
        parse_usd(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.7, "1 m 00 s"),
        (185, "3 m 05 s"),
        (3599.6, "1 h 00 m"),
        (18720, "5 h 12 m"),
        (-5, "-5.0 s"),
        (None, "-"),
    ],
)
def test_durations_are_rounded_before_they_are_split(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(min_value=10, max_value=1e6))
def test_a_printed_duration_is_right_to_its_last_unit(seconds: float) -> None:
    number, unit, *rest = duration(seconds).split()
    shown = parse_duration_s(number + unit)
    if rest:
        assert 0 <= int(rest[0]) < 60
        shown += {"s": 1, "m": 60}[rest[1]] * int(rest[0])
    assert math.isclose(shown, seconds, abs_tol=30 if unit == "h" else 0.5)


def test_money_memory_and_shares_for_people() -> None:
    assert [usd(x) for x in (None, 0, 0.0412, 5, 1234.5)] == [
        "-", "$0.00", "$0.0412", "$5.00", "$1,234.50",
    ]  # fmt: skip
    assert [gib(x) for x in (None, 2.5 * 2**20, 25.2e9, 80 * GIB)] == [
        "-", "2.5 MiB", "23.5 GiB", "80.0 GiB",
    ]  # fmt: skip
    assert [percent(x) for x in (None, 0.4217, 1)] == ["-", "42.2 %", "100.0 %"]
