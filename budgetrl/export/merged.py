"""What a run trained as one model folder, which everybody takes: adapter and base, or all weights.

    export_merged("runs/x", out) -> MergedModel(files, projection, base, dtype)

Each weight is added to in float32 and rounded once, to the base's own type. What rounding leaves of
an adapter is measured (`engine.kept_share`), for a small one may be lost in bfloat16.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from budgetrl.account.evaluated import read_run
from budgetrl.engine.kept_share import LEAST
from budgetrl.errors import ModelError, UsageError, first_line
from budgetrl.evaluation.identity import CONFIG, model_files
from budgetrl.evaluation.target import Target, find_target
from budgetrl.export.folder import new_folder, refuse_existing, refuse_small_disk
from budgetrl.files import write_atomic, write_json
from budgetrl.hub.pins import OnDownload, untold
from budgetrl.recipe.schema import EngineName, Recipe
from budgetrl.report.card import model_card
from budgetrl.units import gib

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_BESIDE = ("*.jinja", "*.model", "merges.txt", "LICENSE*", "NOTICE*")
"""What belongs to a model besides weights and *.json."""
_MOST_HEADER = 100 << 20


class MergedModel(NamedTuple):
    """What `budgetrl export RUN --to merged` says."""

    files: list[Path]
    projection: float
    """Of what the weights changed by on what the adapter adds; 1 where all of it arrived."""
    least: float
    """The same, of the layer that lost most."""
    base: str
    dtype: str

    @property
    def warning(self) -> str | None:
        """What is wrong with such a model; None: nothing."""
        if self.projection >= LEAST:
            return None
        return (
            f"only {self.projection:.1%} of what was trained is left in {self.dtype} weights: the "
            "rest lies below what they can tell apart. Keep the adapter (--to adapter)"
        )

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "files": [str(file) for file in self.files],
            "projection": self.projection,
            "projection_least": self.least,
            "base": self.base,
            "dtype": self.dtype,
            "warning": self.warning,
        }


def export_merged(
    source: str,
    out: Path,
    base: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
    on_download: OnDownload = untold,
) -> MergedModel:
    """Write base and adapter as one model, with tokenizer, template and card.

    Args:
        source: a run, one of its checkpoints, or an adapter folder.
        out: a new folder.
        base: where the run's local base model lies now.
        tell: what is done now, for who waits.
        on_download: told how far the download of a base, or an adapter, is.

    Raises:
        UsageError: the folder exists, or the source has no adapter.
        RefusedError: the disk has no room.
        ModelError: base or adapter are missing or do not fit.
    """
    refuse_existing(out)
    target = find_target(source, None, base, on_download)
    if target.adapter is None:
        raise UsageError(
            f"{source} is a model without an adapter.", hint="Name a run, or an adapter folder."
        )
    from budgetrl.engine.folder import model_folder

    folder = Path(model_folder(target.recipe, on_download))
    weights = [file for file in model_files(folder) if file.suffix in (".safetensors", ".bin")]
    size = sum(file.stat().st_size for file in weights)
    refuse_small_disk(out, size)
    tell(f"merging into {target.recipe.model.id}, {gib(size)}: reads, adds and writes all of it")
    dtype = stored_dtype(folder) or target.recipe.model.dtype
    with new_folder(out) as draft:
        projection, least, untied = _write_weights(target, dtype, draft)
        _write_beside(folder, target.recipe, draft, untied)
        if target.run is not None:
            card = model_card(read_run(target.run), target.step, merged=True)
            write_atomic(draft / "README.md", card)
        names = sorted(path.name for path in draft.iterdir())
    files = [out / name for name in names]
    return MergedModel(files, projection, least, target.recipe.model.id, dtype)


def stored_dtype(folder: Path) -> str | None:
    """The type of a model's first large weight, as its file says; None for other files."""
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            try:
                header = json.loads(opened.read(min(length, _MOST_HEADER)))
            except ValueError:
                raise ModelError(
                    f"{file}: damaged or cut off.", hint="Copy or download it again."
                ) from None
        for tensor in header.values():
            if len(tensor.get("shape", ())) == 2 and tensor["dtype"] in _DTYPES:
                return _DTYPES[tensor["dtype"]]
    return None


def _write_weights(target: Target, dtype: str, draft: Path) -> tuple[float, float, bool]:
    """The merged weights.

    Returns:
        Which share of the adapter is in them, in all and at the least; and whether the head, tied
        to the embedding before, is a matrix of its own now.
    """
    import torch

    from budgetrl.engine.folder import model_folder
    from budgetrl.engine.logits import are_of_another, few_logits
    from budgetrl.engine.plain import PlainEngine, load_base

    recipe = _on_cpu(target.recipe, dtype)
    engine = PlainEngine.open(recipe, target.adapter)
    wanted, untied = few_logits(engine.model), False
    if recipe.lora.is_full:
        model = load_base(model_folder(recipe), recipe)
        shares = list(_replace(model, engine.model))
    else:
        shares = list(_merge(engine.model))
        model = engine.model.unload()
        untied = _settle_ties(model)
    if are_of_another(few_logits(model), wanted, getattr(torch, dtype)):
        raise _unmergeable("its logits would be others than those of base and adapter")
    total = sum(added for _, added in shares)
    projection = sum(kept for kept, _ in shares) / total if total else 1.0
    least = min((kept / added for kept, added in shares if added), default=1.0)
    model.save_pretrained(str(draft))
    return projection, least, untied


def _merge(model: Any) -> Iterator[tuple[float, float]]:
    """Adds each layer's delta d in float32; yields sum(f d) and sum(d d), f what it changed by.

    A weight that is tied to another becomes one of its own: an adapter of the head must not reach
    the embedding.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Parameter

    from budgetrl.engine.merging import lora_layers, sums

    others = {type(m).__name__ for m in model.modules() if isinstance(m, BaseTunerLayer)
              and not isinstance(m, LoraLayer)}  # fmt: skip
    if others:
        raise _unmergeable(f"it has {', '.join(sorted(others))} besides LoRA")
    uses = Counter(map(id, dict(model.named_parameters(remove_duplicate=False)).values()))
    for layer in lora_layers(model):
        base = layer.get_base_layer()
        try:
            made = sums(layer)
        except RuntimeError as error:
            raise _unmergeable(first_line(error)) from None
        for name, after in made.items():
            weight = getattr(base, name)
            delta = after - weight.detach().float()
            if not bool(delta.any()):
                continue
            if uses[id(weight)] > 1:
                setattr(base, name, Parameter(weight.detach().clone(), requires_grad=False))
            yield _add(getattr(base, name), delta)


def _unmergeable(why: str) -> ModelError:
    return ModelError(
        f"this adapter cannot become part of the weights: {why.rstrip('.')}.",
        hint="Take it as it is (--to adapter).",
    )


def _settle_ties(model: Any) -> bool:
    """Whether the head is not the embedding any more; its configuration says so from now on."""
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if None in ends or ends[0].weight is ends[1].weight:
        return False
    parts = {id(part): part for part in (model.config, model.config.get_text_config())}.values()
    tied = any(getattr(part, "tie_word_embeddings", False) for part in parts)
    for part in parts:
        part.tie_word_embeddings = False
    return tied


def _replace(model: Any, trained: Any) -> Iterator[tuple[float, float]]:
    """The same of a base that takes the weights of a model that was trained as a whole."""
    after = dict(trained.named_parameters())
    for name, weight in model.named_parameters():
        yield _add(weight, after[name].detach() - weight.detach().float())


def _add(weight: Any, delta: Any) -> tuple[float, float]:
    import torch

    with torch.no_grad():
        before = weight.float().clone()  # else it is the weight itself in float32
        weight.copy_(before + delta)
        change = weight.float() - before
        return float((change * delta).sum()), float(delta.square().sum())


def _on_cpu(recipe: Recipe, dtype: str) -> Recipe:
    """The plain engine in the base's own type; weights of 4 bits come from the whole base."""
    engine = {"engine.name": EngineName.PLAIN, "engine.device": "cpu"}
    model = {"model.dtype": dtype, "model.load_in_4bit": False}
    return recipe.but({**model, **engine, "engine.gradient_checkpointing": False})


def _write_beside(folder: Path, recipe: Recipe, draft: Path, untied: bool) -> None:
    """Configuration, tokenizer and template: the base's own files, as they are.

    Args:
        folder: of the base.
        recipe: with another template, perhaps.
        draft: with the weights.
        untied: head and embedding are two by now, which the base's configuration denies.
    """
    for file in model_files(folder, *_BESIDE):
        if file.suffix in (".safetensors", ".bin") or file.name.endswith(".index.json"):
            continue
        shutil.copyfile(file, draft / file.name)
    if untied:
        config = json.loads((draft / CONFIG).read_text(encoding="utf-8"))
        for part in (config, config.get("text_config") or {}):
            part["tie_word_embeddings"] = False
        write_json(draft / CONFIG, config)
    if not (folder / "generation_config.json").exists():
        (draft / "generation_config.json").unlink(missing_ok=True)
    if recipe.prompt.chat_template is not None:
        write_atomic(draft / "chat_template.jinja", recipe.prompt.chat_template)
