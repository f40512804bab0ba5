"""docs/recipe.md has every key of a recipe, with the meaning that stands at its field."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.stage_tables import OVERRIDES

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from recipe_keys import recipe_keys  # noqa: E402

PAGE = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The table that may stand there, alone, in a list or beside other types."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


def tables(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Every table that a file may hold, and its keys."""
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None:
            yield ".".join((*path, name)), set(inner.model_fields)
            yield from tables(inner, (*path, name))


def test_every_key_of_a_recipe_has_a_row_with_its_meaning() -> None:
    expected = dict(tables(Recipe))
    assert expected.pop("eval.columns") == expected["data.columns"]
    assert {"lora", "stages.gate", "eval.think"} <= expected.keys()
    sections = re.split(r"^#+ \[+([\w.]+)\]+$", PAGE, flags=re.MULTILINE)[1:]
    rows = re.compile(r"^\| `(\w+)` \| [^|]+ \| [^|]* \| [^|]{5,} \|$", re.MULTILINE)
    found = {
        name: set(rows.findall(body))
        for name, body in zip(sections[::2], sections[1::2], strict=True)
    }
    expected["stages"] -= set(OVERRIDES)  # a line of links to the tables of the run
    assert ", ".join(f"[`{key}`](#{key})" for key in OVERRIDES) in PAGE
    assert found == expected


def test_the_page_is_that_of_today() -> None:
    assert recipe_keys() in PAGE, "run scripts/update_readme.py"
