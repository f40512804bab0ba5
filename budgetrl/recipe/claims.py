"""What a recipe says of a paper stands only while its model and data are the paper's.

A layer that puts another model or other problems in the place of an earlier layer's drops the paper
table, the expected numbers and the deviations from them. It, and one that trains otherwise, also
gets a summary of what it changes, for the inherited one may be false. What the layer itself says of
a paper of its own stays.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from budgetrl.recipe.flat import flat_items

CLAIMS = ("paper", "expected", "deviation")
SUMMED_UP = ("lora", "grpo", "optimizer", "batch", "sampling", "rewards", "teacher")
"""Tables that a summary may speak of; none that a resumed run may change."""
MOST_TOLD = 3
"""Values in a summary."""


def drop_false_claims(merged: dict[str, Any], layer: dict[str, Any]) -> None:
    """Take out of the merged tables, and of the next layer, what its replacements make false.

    Args:
        merged: what earlier layers add up to.
        layer: the next one.
    """
    replaced = [_model(merged, layer), _data(merged, layer)]
    told = [f"{new} in place of {old}" for old, new in filter(None, replaced)]
    if not told:
        _sum_up(merged.get("recipe"), layer, list(_changed(merged, layer)))
        return
    own_paper = "paper" in layer
    for table in CLAIMS:
        merged.pop(table, None)
        if not own_paper:
            layer.pop(table, None)
    before, info = merged.get("recipe"), layer.setdefault("recipe", {})
    if not (isinstance(before, dict) and isinstance(info, dict)):
        return  # which validation will say
    false = [_plain(old) for old, _ in filter(None, replaced)] + ["as in the paper", "the paper's"]
    summary = str(info.get("summary", ""))
    if not own_paper and any(name in summary.lower() for name in false):
        del info["summary"]
    _sum_up({"summary": "of another", **before}, layer, [*told, *_changed(merged, layer)])


def _changed(merged: Mapping[str, Any], layer: Mapping[str, Any]) -> Iterator[str]:
    """Values that a summary may speak of and that are other ones than before."""
    held = dict(flat_items(merged))
    for key, value in flat_items(layer):
        if key.split(".")[0] in SUMMED_UP and key in held and held[key] != value:
            shown = value if isinstance(value, str) else json.dumps(value)
            yield f"{key} = {shown}"


def _sum_up(before: Any, layer: dict[str, Any], told: list[str]) -> None:
    """Give a layer without a summary one of what it changes, if there is one to take the place."""
    info = layer.get("recipe", {})
    if not told or not (isinstance(before, dict) and isinstance(info, dict)):
        return  # nothing to say, or validation will
    if not before.get("summary") or info.get("summary"):
        return
    more = [f"{len(told) - MOST_TOLD} more"] if len(told) > MOST_TOLD else []
    start = f"{before.get('name', 'a recipe')} with "
    if str(before["summary"]).startswith(start):
        start = f"{before['summary']}, "  # a second value of the command line
    layer["recipe"] = info | {"summary": start + ", ".join(told[:MOST_TOLD] + more)}


def _model(merged: Mapping[str, Any], layer: Mapping[str, Any]) -> tuple[str, str] | None:
    """Old and new model; None where it is the same, be it in a folder or of another owner."""
    old, new = _value(merged, "model", "id"), _value(layer, "model", "id")
    if old is None or new is None or _plain(old) == _plain(new):
        return None
    return old, new


def _data(merged: Mapping[str, Any], layer: Mapping[str, Any]) -> tuple[str, str] | None:
    old = _value(merged, "data", "id") or _value(merged, "data", "path")
    new = _value(layer, "data", "id") or _value(layer, "data", "path")
    return None if old is None or new is None or old == new else (old, new)


def _value(tables: Mapping[str, Any], table: str, key: str) -> str | None:
    found = tables.get(table)
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


def _plain(model: str) -> str:
    """A model's name without owner or folder."""
    return model.rstrip("/").rpartition("/")[2].lower()
