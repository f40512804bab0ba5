"""The model that a distillation moves towards: loaded once, only read.

    teacher = open_teacher(recipe, engine)
    teacher.side(prompt, completion)         its view of some completions, without gradients

It is a model object of its own: a PEFT student puts its layers into the base object, so that the
base of the student would be the student. Tokens have to mean the same to both, which the words of
the vocabularies decide and not their sizes: heads of one family are padded to different widths.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from budgetrl.engine.adapter import with_adapter
from budgetrl.engine.base import ModelEngine
from budgetrl.engine.divergence import Side, side_of
from budgetrl.engine.folder import model_folder
from budgetrl.engine.logits import are_its_logits, logits_of
from budgetrl.engine.merging import merge_for_good
from budgetrl.engine.plain import bare_model, load_base
from budgetrl.engine.tokenizer import load_tokenizer
from budgetrl.engine.vocabulary import check_vocabulary
from budgetrl.errors import ModelError
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import EngineName, Recipe, Teacher

Rows = tuple[torch.Tensor, torch.Tensor]
"""Ids and mask of the same shape."""


@dataclass(slots=True)
class LoadedTeacher:
    """A teacher at hand."""

    model: Any
    itself: bool
    """The student without its adapter, which sees the answer."""
    pad: int
    tokenizer: Any
    prompts: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)
    """Of a model that teaches itself: what it reads instead of the student's prompt."""

    def side(self, prompt: Rows, completion: Rows) -> Side:
        """What it says of the completion tokens (N of them) of B rows."""
        without = self.model.disable_adapter() if self.itself else nullcontext()
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), without:
                return side_of(self.model, self._own(prompt), completion)
        finally:
            self.model.train(was_training)

    def _own(self, prompt: Rows) -> Rows:
        if not self.itself:
            return prompt
        told = [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(*prompt, strict=True)]
        rows = [self.prompts.get(ids, ids) for ids in told]
        width = max(map(len, rows))
        ids = [[self.pad] * (width - len(row)) + list(row) for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        made = (torch.tensor(one, device=prompt[0].device) for one in (ids, mask))
        return next(made), next(made)


def open_teacher(recipe: Recipe, engine: ModelEngine) -> LoadedTeacher:
    """Load [teacher] and hold its vocabulary against the student's.

    Args:
        recipe: with a [teacher].
        engine: open, with the student.

    Raises:
        ModelError: it cannot be loaded, its tokens are others, or it ends in another way; or a
            model's logits cannot be made in pieces.
    """
    spec = recipe.teacher
    assert spec is not None
    if engine.name == EngineName.PLAIN:
        _check_logits("the model", engine.model)
    pad = engine.tokenizer.pad_token_id or 0
    if spec.is_self:
        return LoadedTeacher(engine.model, True, pad, engine.tokenizer)
    own = recipe_of(recipe, spec)
    source = model_folder(own)
    tokenizer = load_tokenizer(source, own)
    check_vocabulary(engine.tokenizer.get_vocab(), tokenizer.get_vocab(), spec.id)
    if tokenizer.eos_token_id not in engine.end_ids:
        raise ModelError(
            f"teacher {spec.id!r} ends its answers with {tokenizer.eos_token!r}, which ends none "
            "of the model's: it would teach never to end.",
            hint="Distil from a model of the same family and kind, base or instruct.",
        )
    model = load_base(source, own)
    if spec.adapter is not None:
        model = with_adapter(model, Path(local_path(spec.adapter)))
        merge_for_good(model)
    if not spec.load_in_4bit and spec.device == "model":
        model = model.to(engine.model.device)
    _check_logits(f"teacher {spec.id!r}", model)
    return LoadedTeacher(model.requires_grad_(False).eval(), False, pad, tokenizer)


def _check_logits(name: str, model: Any) -> None:
    """Refuse a model whose logits the divergence would make by another rule than its own."""
    inner = bare_model(model)
    if not are_its_logits(inner, logits_of(inner)):
        raise ModelError(
            f"{name} ({type(inner).__name__}) makes its logits of its last hidden states by a rule "
            "that is not known here, so a distillation would compare other ones.",
            hint="Use an SFT stage on the teacher's answers.",
        )


def recipe_of(recipe: Recipe, spec: Teacher) -> Recipe:
    """The recipe as if the teacher were its model."""
    names = ("id", "revision", "dtype", "load_in_4bit")
    return recipe.but({f"model.{name}": getattr(spec, name) for name in names})
