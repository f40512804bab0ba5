"""Adapters from folders: the one place where their weights come into a model.

model = with_adapter(base, folder)     a PEFT model around the base, its adapter trainable
put_weights(model, folder)             into a model that has the layers already
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from budgetrl.engine.base import reading_weights
from budgetrl.errors import ModelError, first_line

ADAPTER = "default"
"""PEFT's name of the one adapter that is trained."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_MORE = (
    *("use_dora", "lora_bias", "bias", "modules_to_save", "trainable_token_indices"),
    *("rank_pattern", "alpha_pattern", "layers_to_transform", "layer_replication"),
    *("exclude_modules", "target_parameters", "use_qalora"),
)
"""Keys of an adapter's configuration for which a recipe has none."""
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of init_lora_weights with which PEFT changes the base's weights too."""


def more_than_lora(values: Mapping[str, Any]) -> list[str]:
    """What an adapter is besides one rank and scale on whole layers, as KEY = VALUE.

    Args:
        values: of its adapter_config.json.
    """
    more = [key for key in _MORE if values.get(key) not in (None, False, "none", [], {})]
    start = values.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_CHANGES_BASE):
        more.append("init_lora_weights")
    return [f"{key} = {json.dumps(values[key])}" for key in more]


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
