"""Known evaluation suites: where they lie on the hub, in which columns, and how many problems.

`tests/hub_sets.py` has their shapes, and says which of them were read in stored copies of the sets'
cards and of code that loads them (2026-11-30), and which are taken on trust.
"""

from collections.abc import Mapping
from typing import NamedTuple

from budgetrl.recipe.base import SuiteName
from budgetrl.recipe.model_tables import Columns


class HubSuite(NamedTuple):
    """A known suite."""

    id: str
    split: str
    columns: Columns
    problems: int
    """How many it has; another number is another set."""


SUITES: Mapping[str, HubSuite] = {
    SuiteName.MATH500: HubSuite(
        "HuggingFaceH4/MATH-500", "test", Columns(id="unique_id", level="level"), 500
    ),
    SuiteName.AIME24: HubSuite("HuggingFaceH4/aime_2024", "train", Columns(), 30),
    SuiteName.AIME25: HubSuite("yentinglin/aime_2025", "train", Columns(), 30),
    SuiteName.AMC23: HubSuite("math-ai/amc23", "test", Columns(problem="question"), 40),
}
