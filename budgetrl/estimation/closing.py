"""What a supervisor takes from the end of its worker to its own, besides the report.

Seconds of work, measured by every run and kept in the user's cache; how long they last is told by
the slowness of the day (`budgetrl.pace`).
"""

from contextlib import suppress
from pathlib import Path

from budgetrl.files import parse_json, write_json

FILE = "closing.json"
UNMEASURED_S = 0.5
"""Of work, before a run of this machine has measured it."""
SLEEP_S = 0.2
"""Until a killed worker is gone and its supervisor has noticed."""
MARGIN = 1.3
LEAST_S, MOST_S = 0.05, 10.0
"""What a usable measurement lies between."""


def closing_s(work_s: float, slow: float) -> float:
    """Wall seconds of the end.

    Args:
        work_s: seconds of work in it.
        slow: wall seconds that a second of work takes now.
    """
    return slow * (SLEEP_S + MARGIN * work_s)


def known_closing_work_s(cache: Path) -> float:
    """Seconds of work that the end of a run took on this machine."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        work_s = float(parse_json((cache / FILE).read_bytes())["work_s"])
        if LEAST_S <= work_s <= MOST_S:
            return work_s
    return UNMEASURED_S


def store_closing_work_s(cache: Path, work_s: float) -> None:
    """Keep a measurement; a shorter one counts by a fifth, for ends differ."""
    known = known_closing_work_s(cache)
    kept = max(work_s, known + (work_s - known) / 5)
    if abs(kept - known) > 0.05 * known and LEAST_S <= kept <= MOST_S:
        with suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
            write_json(cache / FILE, {"work_s": round(kept, 4)})
