"""A teacher that a distillation needs: there, of an adapter's own base, with the same vocabulary.

    check_teacher(recipe)              local files, before anything is paid
    check_words(recipe, pins)          vocabularies, of files here and of the hub

No torch: whether its tensors fit the layers is for the engine to say.
"""

from pathlib import Path

from budgetrl.engine.vocabulary import check_vocabulary, words_of
from budgetrl.errors import RecipeError
from budgetrl.evaluation.identity import adapter_on
from budgetrl.hub.peek import read_range
from budgetrl.hub.pins import Pin, Pins
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Recipe

_TOKENIZER = "tokenizer.json"


def check_teacher(recipe: Recipe) -> None:
    """Refuse a teacher that no stage asks for, or an adapter of another base.

    Raises:
        ModelError: the adapter is missing, damaged or of another base.
        RecipeError: nothing distils.
    """
    spec = recipe.teacher
    if spec is None:
        return
    if not recipe.distils:
        raise RecipeError(
            "[teacher] says nothing: no stage distils.",
            hint='Add [[stages]] with kind = "distill", or leave [teacher] out.',
        )
    if spec.adapter is None:
        return
    adapter_on(Path(local_path(spec.adapter)), spec.id, "teacher.adapter", "teacher.id")


def check_words(recipe: Recipe, pins: Pins) -> None:
    """Compare the vocabularies of model and teacher, of which a few megabytes are read.

    Where one has no `tokenizer.json`, the worker compares what it loads.

    Raises:
        ModelError: they differ.
        HubError: the hub does not give a file.
    """
    spec = recipe.teacher
    if spec is None or not recipe.distils or spec.is_self:
        return
    ours = _tokenizer(recipe.model.id, pins.get("model"))
    theirs = _tokenizer(spec.id, pins.get("teacher"))
    if ours is None or theirs is None or ours == theirs:
        return
    words, others = words_of(ours), words_of(theirs)
    if words is not None and others is not None:
        check_vocabulary(words, others, spec.id)


def _tokenizer(model: str, pin: Pin | None) -> bytes | None:
    if pin is not None:
        file = pin.found.named(_TOKENIZER)
        return None if file is None else read_range(pin.found, file, 0, file.size)
    path = Path(local_path(model)) / _TOKENIZER
    return path.read_bytes() if path.is_file() else None
