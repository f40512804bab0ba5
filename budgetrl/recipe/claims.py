"""What a recipe says of a paper stands only while its model and data are the paper's.

A layer that puts another model or other problems in the place of an earlier layer's drops the paper
table, the expected numbers and the deviations from them, and a summary that no longer is true. What
the layer itself says of a paper of its own stays.
"""

from collections.abc import Mapping
from typing import Any

CLAIMS = ("paper", "expected", "deviation")


def drop_false_claims(merged: dict[str, Any], layer: dict[str, Any]) -> None:
    """Take out of the merged tables, and of the next layer, what its replacements make false.

    Args:
        merged: what earlier layers add up to.
        layer: the next one.
    """
    replaced = [_model(merged, layer), _data(merged, layer)]
    told = ", ".join(f"{new} in place of {old}" for old, new in filter(None, replaced))
    if not told:
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
    if not summary or (not own_paper and any(name in summary.lower() for name in false)):
        info["summary"] = f"{before.get('name', 'a recipe')} with {told}"


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
