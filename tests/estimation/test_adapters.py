"""Multiplications that a plan counts are those that torch makes of a real model's update."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from budgetrl.engine.plain import PlainEngine
from budgetrl.estimation.adapters import adapter_of
from budgetrl.estimation.cpu_time import Passes, scoring, training
from budgetrl.estimation.shapes import find_shape
from budgetrl.recipe.load import load_recipe

ROWS, PROMPT, COMPLETION = 6, 26, 24
LENGTH = PROMPT + COMPLETION
SHAPE = find_shape("asset:tiny/quickstart")
ATTENTION = ROWS * LENGTH * SHAPE.attention_flops(LENGTH)


def counted(call: Callable[[], Any]) -> int:
    """FLOPs of matrix products; attention is one operation of its own."""
    with (counter := FlopCounterMode(display=False)):
        call()
    found, aten = counter.get_flop_counts()["Global"], torch.ops.aten
    return sum(found.get(one, 0) for one in (aten.mm, aten.addmm, aten.bmm))


@pytest.mark.parametrize(
    "sets",
    [
        ("lora.rank=32",),
        ("lora.rank=16",),
        ("lora.rank=8",),
        ("lora.rank=64", "lora.dropout=0.1"),
        ("lora.rank=64", 'lora.targets=["q_proj","up_proj"]'),
        ("lora.rank=64", "engine.gradient_checkpointing=true"),
        ("lora.rank=8", "engine.gradient_checkpointing=true"),
        ("lora.rank=full", "lora.alpha=unset"),
    ],
    ids=" ".join,
)
def test_an_update_is_counted_as_its_layers_make_it(sets: tuple[str, ...]) -> None:
    """One product, some of them, none, and passes that are made again."""
    recipe = load_recipe("quickstart", list(sets)).recipe
    model = PlainEngine.open(recipe).model.train()
    again = recipe.engine.gradient_checkpointing
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.enable_input_require_grads()  # the first layer as the others
    ids = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % 200 + 48
    work = Passes(ROWS, 1, PROMPT, COMPLETION, adapter_of(recipe), again)

    def forward() -> torch.Tensor:
        logits: torch.Tensor = model(ids, logits_to_keep=COMPLETION + 1).logits
        return logits

    update = counted(lambda: forward().sum().backward())
    planned = training(work, SHAPE)["cpu_train_flop"] - (3 + again) * ATTENTION
    # Where all is trained the head has a gradient of its own; a block's last product is not
    # made again, because nothing needs it.
    loose = again or recipe.lora.is_full
    assert planned == pytest.approx(update, rel=0.06 if loose else 1e-4)
    with torch.no_grad():
        pass_alone = counted(forward)
    assert scoring(work, SHAPE)["cpu_prefill_flop"] - ATTENTION == pytest.approx(
        pass_alone, rel=1e-4
    )


def test_a_high_rank_is_planned_with_less_work_than_twice_the_weights() -> None:
    """As PEFT multiplies, an adapter of rank 64 costs half as much again at a width of 128."""
    recipe = load_recipe("quickstart").recipe
    made = Passes(64, 1, 28, 40, adapter_of(recipe))
    without = Passes(64, 1, 28, 40, adapter_of(recipe.but({"lora.dropout": 0.1})))
    flops = [training(work, SHAPE)["cpu_train_flop"] for work in (made, without)]
    assert flops[1] > 1.35 * flops[0]
