"""Adapters from folders: the one place where their weights come into a model.

model = with_adapter(base, folder)     a PEFT model around the base, its adapter trainable
put_weights(model, folder)             into a model that has the layers already
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from budgetrl.engine.base import reading_weights
from budgetrl.errors import ModelError, first_line

ADAPTER = "default"
"""PEFT's name of the one adapter that is trained."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def with_adapter(base: Any, folder: Path, dropout: float = 0.0) -> Any:
    """The base model with an adapter from a folder, which can be trained.

    Args:
        base: the model.
        folder: of the adapter.
        dropout: lora.dropout, whatever the adapter was trained with elsewhere.

    Raises:
        ModelError: it is damaged, or of another model.
    """
    import peft

    with _fitting(folder):
        config = peft.PeftConfig.from_pretrained(str(folder))
        config.inference_mode, config.base_model_name_or_path = False, base.name_or_path
        config.lora_dropout = dropout
        model = peft.get_peft_model(base, config, adapter_name=ADAPTER)
    put_weights(model, folder)
    return model


def put_weights(model: Any, folder: Path, name: str = ADAPTER) -> None:
    """Put the weights of an adapter's folder into a model of PEFT that has its layers.

    Raises:
        ModelError: they are damaged, or of another model.
    """
    import peft
    from safetensors.torch import load_file

    with _fitting(folder):
        weights = load_file(str(folder / ADAPTER_WEIGHTS))
        found = peft.set_peft_model_state_dict(model, weights, name)
        # PEFT is silent on these, and a layer without its weights is silently that of the base;
        # the base's own tensors are missing from every adapter.
        lacking = [key for key in found.missing_keys if "lora_" in key and name in key]
        for keys, what in (
            (lacking, "its file lacks {} of the tensors that its configuration asks for"),
            (found.unexpected_keys, "{} of its tensors belong to no layer of the model"),
        ):
            if keys:
                raise ValueError(f"{what.format(len(keys))}, such as {keys[0]}")


@contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    """What goes wrong inside, the folder's adapter is at fault for."""
    with reading_weights(f"adapter {folder}"):
        try:
            yield
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            # Without torch's heading of a list of mismatches.
            lines = str(error).strip().split("\n")
            listed = len(lines) > 1 and lines[0].endswith(":")
            why = (lines[1].strip() if listed else first_line(error))[:300].rstrip(".")
            raise ModelError(
                f"adapter {folder} does not fit the model: {why}.",
                hint="Give an adapter of the same base model, whole and unchanged.",
            ) from None
