"""What an entry of the table of settings is, and names in verl that several places know."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from budgetrl.export.layout import Layout
from budgetrl.recipe.schema import Recipe

VERL = "0.9.1"
"""The version that the keys were checked against."""
ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{name}" for name in ("actor", "rollout", "model"))
NO_DUAL_CLIP = 1e9
"""Of clip_ratio_c: a ratio that none reaches."""
GENERATION = "generation"
"""Folder with a generation_config.json of end tokens, in an exported folder."""
GENERATION_KEY = f"{ROLLOUT}.engine_kwargs.vllm.generation_config"
EPOCHS = 100_000
"""More than any training has: total_training_steps ends it."""
UNWRITTEN = object()
"""A value for which verl's own default is left."""

To = Callable[[Recipe, Layout], Any]


class Entry(NamedTuple):
    """One setting."""

    recipe: tuple[str, ...]
    """Recipe keys."""
    verl: tuple[str, ...]
    """verl keys, or words where there is none."""
    trl: str
    """Argument of TRL or Unsloth, for the page."""
    remark: str = ""
    to: To | None = None
    """The value of the verl key; of several, a tuple of as many. None: that of the recipe key."""
    written: bool = True
    """False: text for the page alone."""

    def values(self, recipe: Recipe, layout: Layout) -> dict[str, Any]:
        """verl key -> value."""
        if not self.written:
            return {}
        if self.to is None:
            found: Any = (attrgetter(self.recipe[0])(recipe),) * len(self.verl)
        else:
            found = self.to(recipe, layout)
            found = found if len(self.verl) > 1 else (found,)
        pairs = zip(self.verl, found, strict=True)
        return {key: value for key, value in pairs if value is not UNWRITTEN}
