"""Step events as long runs need them: their numbers, in a fraction of the room and of the time.

    lean_step(line) -> Step | None      None: no step event, or one that `events.parse` must see

It has the attributes of `events.Step` but for the sample and whatever a newer budgetrl added.
"""

from collections import namedtuple
from collections.abc import Collection
from functools import cache
from math import isfinite
from operator import itemgetter
from types import NoneType
from typing import Any, cast, get_args

from pydantic_core import from_json

from budgetrl.events import SCHEMA_VERSION, Step

_MARK, _MARK_WITHIN = b'"kind": "step"', 64
"""Near the start of a line."""
_LEFT_OUT = ("schema_version", "kind", "sample")
_MISSING = object()
"""Of a type that no field may have."""


def lean_step(line: bytes) -> Step | None:
    """The numbers of a step event, or None for any other line and for one of unusual content.

    A `Step` by its attributes only: it is of a slim class of its own.
    """
    if line.find(_MARK, 0, _MARK_WITHIN) < 0:
        return None
    try:
        data = from_json(line, allow_inf_nan=False)
    except ValueError:
        return None
    return _shape().fill(data) if data.get("schema_version") == SCHEMA_VERSION else None


class _Shape:
    """What a step event is made of, by its model; built when first used, as the model is."""

    def __init__(self) -> None:
        fields = {n: f for n, f in Step.model_fields.items() if n not in _LEFT_OUT}
        self._names = tuple(fields)
        self._defaults = [_MISSING if f.is_required() else f.default for f in fields.values()]
        self._kind: Any = _kind(self._names)
        self._allowed = [_types(f.annotation) for f in fields.values()]
        self._floats_of: dict[tuple[type, ...], itemgetter[Any]] = {}
        """Where floats are among values of these types; of steps that were looked at closely."""

    def fill(self, data: dict[str, Any]) -> Step | None:
        """The slim step, or None where a value is missing or of another type."""
        values = tuple(map(data.get, self._names, self._defaults))
        types = tuple(map(type, values))
        floats = self._floats_of.get(types)
        if floats is None:
            if any(kind not in allowed for kind, allowed in zip(types, self._allowed, strict=True)):
                return None
            places = [at for at, kind in enumerate(types) if kind is float]
            if len(places) < 2:
                return None
            floats = self._floats_of[types] = itemgetter(*places)
        if not isfinite(sum(floats(values))):  # the quickest way to see one that is not
            return None
        return cast(Step, self._kind._make(values))


def _kind(names: tuple[str, ...]) -> Any:
    """A class of these attributes that takes little room."""
    base: Any = namedtuple("LeanStep", list(names))  # type: ignore[misc]

    class LeanStep(base):
        __slots__ = ()

        def model_dump(self, exclude: Collection[str] = ()) -> dict[str, Any]:
            """As a model's."""
            return {name: getattr(self, name) for name in names if name not in exclude}

    return LeanStep


@cache
def _shape() -> _Shape:
    return _Shape()


def _types(annotation: Any) -> frozenset[type]:
    """What JSON may hold in a field."""
    known: dict[Any, tuple[type, ...]] = {float: (int, float), int: (int,), str: (str,)}
    if annotation in known or annotation is NoneType:
        return frozenset(known.get(annotation, (NoneType,)))
    if getattr(annotation, "__origin__", None) is dict:
        return frozenset({dict})
    parts = get_args(annotation)
    if parts and isinstance(parts[0], str):  # a Literal
        return frozenset({str})
    return frozenset(kind for part in parts for kind in _types(part))
