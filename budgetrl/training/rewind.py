"""The start of a step that takes several optimiser steps, kept so that it can be given up.

    rewind.remember(trainer)     after its rollout, before its first optimiser step
    rewind.undo(trainer)         adapter, optimiser and counter as they were, if one was taken

A run that has to stop between two optimiser steps of one rollout batch would otherwise save half a
step, which no resumed run could finish: the batch is gone. The copies lie in the host's memory: 12
bytes per adapter parameter with AdamW, 3.5 GB at rank 256 of a 1.5B model.
"""

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(slots=True)
class Rewind:
    """What a trainer was at the start of its running step."""

    _step: int = 0
    _weights: list[torch.Tensor] = field(default_factory=list)
    _optimizer: dict[str, Any] = field(default_factory=dict)

    def remember(self, trainer: Any) -> None:
        """Copy adapter and optimiser state to the host."""
        self._step = trainer.state.global_step
        self._weights = [parameter.detach().to("cpu", copy=True) for parameter in _trained(trainer)]
        self._optimizer = _on_host(trainer.optimizer.state_dict())

    def undo(self, trainer: Any) -> None:
        """Put them back, if the running step has taken some of its optimiser steps."""
        if trainer.state.global_step % trainer.parts.recipe.optimizer_steps == 0:
            return
        with torch.no_grad():
            for parameter, weight in zip(_trained(trainer), self._weights, strict=True):
                parameter.copy_(weight)
        trainer.optimizer.load_state_dict(self._optimizer)
        trainer.state.global_step = self._step


def _trained(trainer: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]


def _on_host(value: Any) -> Any:
    """A copy of nested dicts and lists, in which every tensor is on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_host(inner) for key, inner in value.items()}
    return [_on_host(inner) for inner in value] if isinstance(value, list) else value
