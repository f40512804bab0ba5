"""Models: open one as a recipe says, and draw completions from it."""

from pathlib import Path

from budgetrl.engine.base import Engine
from budgetrl.recipe.schema import EngineName, Recipe


def open_engine(recipe: Recipe, folder: Path, adapter: Path | None = None) -> Engine:
    """Load the model that a recipe names, with a fresh adapter or a saved one.

    Args:
        recipe: says which engine, model and adapter.
        folder: for files that the engine compiles or caches.
        adapter: a PEFT adapter to load instead of a fresh one.

    Raises:
        ModelError: model, tokenizer or adapter missing or not matching.
        HardwareError: no GPU for an engine that needs one.
    """
    match recipe.engine.name:
        case EngineName.PLAIN:
            from budgetrl.engine.plain import PlainEngine

            return PlainEngine.open(recipe, adapter)
        case EngineName.SCRIPTED:
            from budgetrl.engine.scripted import ScriptedEngine

            return ScriptedEngine.open(recipe)
        case EngineName.UNSLOTH:
            from budgetrl.engine.unsloth import UnslothEngine

            return UnslothEngine.open(recipe, folder, adapter)


def import_first(recipe: Recipe, folder: Path) -> None:
    """Import what has to come before transformers, trl and peft.

    Args:
        recipe: says which engine.
        folder: where it may keep compiled code.

    Raises:
        HardwareError: the engine is not installed.
    """
    if recipe.engine.name is EngineName.UNSLOTH:
        from budgetrl.engine.unsloth import import_unsloth

        import_unsloth(recipe, folder)
