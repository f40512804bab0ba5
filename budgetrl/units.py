"""Parse and print time, money and memory: the only place that knows how they look.

parse_duration_s("90m") -> 5400.0        duration(5400) -> "1 h 30 m"
parse_usd("$5") -> 5.0                   usd(0.0412) -> "$0.04"
gib(25.2e9) -> "23.5 GiB"
"""

import math
import re

GIB = 1 << 30

_MOST_S = 100 * 365 * 24 * 3600.0
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([hms]?)\s*", re.IGNORECASE)


def parse_duration_s(text: str) -> float:
    """Seconds of "24" (hours), "1.5h", "90m" or "45s".

    Raises:
        ValueError: not a duration, not above zero, or beyond 100 years.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write 24 (hours), 1.5h, 90m or 45s")
    seconds = float(match[1]) * _UNITS_S[match[2].lower() or "h"]
    if seconds <= 0:
        raise ValueError(f"{text!r} must be above zero")
    if seconds > _MOST_S:
        raise ValueError(f"{text!r} is more than 100 years")
    return seconds


def hours(seconds: float) -> float:
    """Seconds in hours."""
    return seconds / _UNITS_S["h"]


def hours_option(seconds: float) -> str:
    """Seconds, rounded up to what one would type after `--hours`: "45s", "4m", "31m", "5.1"."""
    if seconds > 7140:
        return f"{math.ceil(seconds / 360) / 10:g}"
    step = 5 if seconds <= 300 else 30 if seconds <= 600 else 60
    whole = step * math.ceil(seconds / step)
    return f"{whole}s" if whole < 60 or whole % 30 else f"{whole / 60:g}m"


def parse_usd(text: str) -> float:
    """Dollars of "5", "$5" or "0.44".

    Raises:
        ValueError: not an amount, not above zero, or beyond reason.
    """
    try:
        amount = float(text.strip().removeprefix("$"))
    except ValueError:
        raise ValueError(f"{text!r} is not an amount in dollars; write 5, $5 or 1.50") from None
    if not amount > 0:
        raise ValueError(f"{text!r} must be above zero")
    if not 1e-6 <= amount <= 1e9:
        raise ValueError(f"{text!r} must lie between a millionth and a billion dollars")
    return amount


def duration(seconds: float | None) -> str:
    """Seconds for people: "0.4 s", "12 s", "3 m 05 s", "5 h 12 m"; "-" for None."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} m"


def usd(amount: float | None) -> str:
    """Dollars for people, with cents, or more digits below ten cents; "-" for None."""
    if amount is None:
        return "-"
    return f"${amount:.4f}" if 0 < abs(amount) < 0.1 else f"${amount:,.2f}"


def gib(num_bytes: float | None) -> str:
    """Bytes in GiB (2^30) for people, MiB below 0.1 GiB; "-" for None."""
    if num_bytes is None:
        return "-"
    if num_bytes < 0.1 * GIB:
        return f"{num_bytes / (1 << 20):.1f} MiB"
    return f"{num_bytes / GIB:.1f} GiB"


def percent(share: float | None, digits: int = 1) -> str:
    """A share (0..1) in percent; "-" for None."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"
