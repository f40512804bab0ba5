"""Python's search for cyclic garbage, kept away from what is none.

    with kept_for_good(): import torch      its objects are never searched, now or later
    search_seldom()                         in a process that makes much and throws little away

Importing torch, transformers, PEFT and TRL makes 770,000 objects of which hardly one is garbage;
searching them again and again takes 1.5 of 9 CPU seconds. What no cycle holds is freed at once, as
ever: nothing here changes what a program computes.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = 50_000
"""New objects between two searches; Python's own is 700."""


@contextmanager
def kept_for_good() -> Iterator[None]:
    """What is made inside stays for the life of the process, and is not searched for garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def search_seldom() -> None:
    """For a process that lives for one command: events and reports are trees, not cycles."""
    gc.freeze()
    gc.set_threshold(SELDOM, 20, 100)
