"""Layers of tables become one, and every value keeps where it is from.

    merged = Merged(); merged.add(Layer(..)); merged.remove("prompt.system")

Tables merge key by key, arrays of tables by their `name`, `suite` or `key`. Not here: where layers
come from (load.py), and what is valid (schema.py).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from budgetrl.recipe.claims import drop_false_claims
from budgetrl.recipe.flat import MERGE_KEYS, PROVENANCE, flat_items, is_tables

_OF_A_SOURCE = ("revision", "config", "split", "columns", "filter")
"""What a recipe says of the place that its data come from."""


@dataclass(slots=True)
class Layer:
    """Tables of one file, or of the command line."""

    label: str
    """File path, or "command line"."""
    source: str
    """What `sources` says of its keys."""
    tables: dict[str, Any]


@dataclass(slots=True)
class Merged:
    """What layers add up to; `origin` and `sources` say where each flat key is from."""

    tables: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, layer: Layer) -> None:
        """Merge one more layer, which wins."""
        drop_false_claims(self.tables, layer.tables)
        keys = dict(flat_items(layer.tables))
        # Naming an element of an array does not set its name again.
        new = [key for key in keys if not (key in self.origin and _names_element(key))]
        self._drop_other_source(layer)
        self._drop_adapter(layer)
        _forget_provenance(self.tables, set(new))
        _merge(self.tables, layer.tables)
        for key in new:
            self.origin[key], self.sources[key] = layer.label, layer.source

    def remove(self, key: str) -> None:
        """Take a value out, with where it came from and what was said of it."""
        table: Any = _table_of(self.tables, key)
        if table is not None:
            table.pop(key.rpartition(".")[2], None)
        for name in [one for one in self.origin if one == key or one.startswith(f"{key}.")]:
            del self.origin[name], self.sources[name]
        _forget_provenance(self.tables, {key})

    def _drop_other_source(self, layer: Layer) -> None:
        """Data come from one place: what an earlier layer said of another one is dropped, and said.

        Columns, split and the like belong to their source.
        """
        specs: Any = layer.tables.get("eval")
        tables = {"data": layer.tables.get("data")}
        tables |= {f"eval.{s.get('suite')}": s for s in specs or [] if is_tables(specs)}
        for name, table in tables.items():
            held = _table_of(self.tables, f"{name}.id")
            if not isinstance(table, dict) or held is None:
                continue
            new = next((key for key in ("path", "id") if table.get(key) is not None), None)
            old = next((key for key in ("path", "id") if held.get(key) is not None), None)
            if new is None or old is None or (new, table[new]) == (old, held[old]):
                continue
            dropped = [key for key in _OF_A_SOURCE if self._is_inherited(f"{name}.{key}", layer)]
            self.notes.append(
                f"{name}.{new} = {table[new]} ({layer.label}) takes the place of "
                f"{name}.{old} = {held[old]}"
                + (f"; dropped with it: {', '.join(dropped)}" if dropped else "")
            )
            for key in (old, *dropped):
                self.remove(f"{name}.{key}")

    def _drop_adapter(self, layer: Layer) -> None:
        """Where a layer trains all weights, what an earlier one said of an adapter is dropped."""
        table, held = layer.tables.get("lora"), self.tables.get("lora")
        if not (isinstance(table, dict) and isinstance(held, dict)) or table.get("rank") != "full":
            return
        dropped = sorted(key for key in held if key != "rank" and key not in table)
        if dropped:
            self.notes.append(
                f'lora.rank = "full" ({layer.label}) trains all weights; dropped with the adapter: '
                f"{', '.join(f'lora.{key}' for key in dropped)}"
            )
        for key in dropped:
            self.remove(f"lora.{key}")

    def _is_inherited(self, key: str, layer: Layer) -> bool:
        """Whether another layer than this one set a value, or values inside it."""
        found = {
            label for one, label in self.origin.items() if one == key or one.startswith(f"{key}.")
        }
        return bool(found) and layer.label not in found


def _table_of(tables: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """The table that holds a flat key, or None."""
    table, *path = key.split(".")
    node: Any = tables.get(table)
    if is_tables(node) and table in MERGE_KEYS and node is not None:
        rest = key.removeprefix(f"{table}.")
        named = [one for one in node if rest.startswith(f"{one.get(MERGE_KEYS[table])}.")]
        if not named:
            return None
        node = named[0]
        path = rest.removeprefix(f"{node[MERGE_KEYS[table]]}.").split(".")
    for part in path[:-1]:
        node = node.get(part) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        old = base.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value)
        elif key in MERGE_KEYS and is_tables(value):
            base[key] = _merge_array(old if is_tables(old) else [], value, MERGE_KEYS[key])
        else:
            base[key] = copy.deepcopy(value)


def _merge_array(old: Any, new: Any, merge_key: str) -> list[dict[str, Any]]:
    """Elements by name; two of one name in the same layer stay two, for the schema to refuse."""
    merged: list[dict[str, Any]] = [dict(element) for element in old]
    by_name = {name: e for e in merged if isinstance(name := e.get(merge_key), str)}
    for element in new:
        name = element.get(merge_key)
        earlier = by_name.pop(name, None) if isinstance(name, str) else None
        if earlier is not None:
            _merge(earlier, element)
        else:
            merged.append(dict(element))
    return merged


def _names_element(key: str) -> bool:
    table, _, rest = key.partition(".")
    return rest.rpartition(".")[2] == MERGE_KEYS.get(table)


def _forget_provenance(merged: dict[str, Any], keys: set[str]) -> None:
    """Drop what earlier layers said of keys that a layer sets again."""
    for table in PROVENANCE:
        if is_tables(merged.get(table)):
            merged[table] = [entry for entry in merged[table] if str(entry.get("key")) not in keys]
