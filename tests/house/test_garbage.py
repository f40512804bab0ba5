"""The search for garbage is kept from what libraries make as they are imported."""

import subprocess
import sys

CODE = """
import gc
from budgetrl.garbage import kept_for_good, search_seldom
before = gc.get_stats()[0]["collections"]
with kept_for_good():
    many = [[] for _ in range(100_000)]
assert gc.get_stats()[0]["collections"] == before, "no search while they are made"
assert gc.isenabled() and gc.get_freeze_count() > 100_000, "and they stay out of later ones"
search_seldom()
assert gc.isenabled() and gc.get_threshold()[0] > 700
"""


def test_what_is_kept_for_good_is_not_searched_and_later_objects_are() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=60)
