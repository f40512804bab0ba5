"""What a trainer leaves on the model it trained, and taking it off again between stages.

    with kept_clean(model): ...         a trainer that is only tried
    before = Leftovers.of(model)        before a trainer is made
    before.restore()                    after its last update

TRL 1.14.2 and accelerate wrap `forward` in bf16 autocast, put a chunked loss in the place of the
inner model's, and turn the cache off; all of it stays on the object, and none of it shows. The
adapter "ref" of a KL term is taken off where it is made (`training.trainer`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from budgetrl.engine.plain import bare_model

_PLACES = ("forward", "_original_forward")


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a model was before a trainer had it."""

    _methods: tuple[tuple[Any, dict[str, Any]], ...]
    """Of the model, and of what is in a PEFT model: methods that were the object's own."""
    _use_cache: Any
    _ends: Any

    @classmethod
    def of(cls, model: Any) -> "Leftovers":
        """A model as it is now."""
        layers = (model, bare_model(model))
        held = tuple(
            (layer, {name: vars(layer)[name] for name in _PLACES if name in vars(layer)})
            for layer in layers
        )
        generation = model.generation_config
        return cls(held, model.config.use_cache, generation.eos_token_id)

    def restore(self) -> None:
        """Take off what came since."""
        for layer, held in self._methods:
            for name in _PLACES:
                vars(layer).pop(name, None)
            vars(layer).update(held)
        model = self._methods[0][0]
        model.config.use_cache = self._use_cache
        model.generation_config.eos_token_id = self._ends


@contextmanager
def kept_clean(model: Any) -> Iterator[None]:
    """A model to which nothing sticks of what is done inside."""
    before = Leftovers.of(model)
    try:
        yield
    finally:
        before.restore()
