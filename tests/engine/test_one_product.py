"""Adapted layers of one product compute what PEFT's do, and are taken where they are less work."""

from typing import Any

import peft
import pytest
import torch

from budgetrl.engine.least_work import is_less_work
from budgetrl.engine.merging import lora_layers, merged
from budgetrl.engine.plain import PlainEngine
from budgetrl.recipe.load import load_recipe

ROWS = torch.arange(4 * 60).reshape(4, 60) % 200 + 48


def opened(*sets: str) -> Any:
    """A model whose adapter is not zero."""
    model = PlainEngine.open(load_recipe("quickstart", list(sets)).recipe).model
    noise = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(0.02 * torch.randn(weight.shape, generator=noise))
    return model.train()


def as_peft(model: Any) -> Any:
    for layer in lora_layers(model):
        layer.__class__ = peft.tuners.lora.Linear
    return model


def products(model: Any, rows: torch.Tensor = ROWS) -> int:
    """Calls of a matrix A on activations in one pass; none where each layer is one product."""
    calls = []
    hooks = [
        layer.lora_A["default"].register_forward_hook(lambda *_: calls.append(1))
        for layer in lora_layers(model)
    ]
    with torch.no_grad():
        model(rows)
    for hook in hooks:
        hook.remove()
    return len(calls)


def gradients(model: Any) -> torch.Tensor:
    model.zero_grad()
    model(ROWS, labels=ROWS).loss.backward()
    found = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    return torch.cat(found)


@pytest.mark.parametrize("rslora", [False, True])
def test_gradients_are_those_of_peft(rslora: bool) -> None:
    model = opened('lora.alpha_policy="rslora"') if rslora else opened()
    assert products(model) == 0
    ours = gradients(model)
    assert products(as_peft(model)) == 28
    wanted = gradients(model)
    assert ours.shape == wanted.shape
    assert (ours - wanted).norm() < 5e-6 * wanted.norm()


def test_a_recomputed_pass_takes_the_same_way() -> None:
    model = opened("engine.gradient_checkpointing=true")
    wanted = gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert torch.equal(gradients(model), wanted)


@pytest.mark.parametrize(
    "sets",
    [("lora.dropout=0.1",), ("model.dtype=bfloat16",), ("lora.rank=4", "lora.alpha=4")],
    ids=["dropout", "fewer bits", "low rank"],
)
def test_other_layers_stay_with_peft(sets: tuple[str, ...]) -> None:
    assert products(opened(*sets)) == 28


def test_few_tokens_do_not_pay_for_a_sum_of_weights() -> None:
    assert products(opened(), ROWS[:1, :8]) == 28


def test_a_merged_or_absent_adapter_is_not_added_again() -> None:
    model = opened().eval()
    with torch.no_grad():
        wanted = model(ROWS).logits
        with merged(model):
            assert torch.allclose(model(ROWS).logits, wanted, atol=1e-5)
        with model.disable_adapter():
            base = model(ROWS).logits
        assert not torch.allclose(base, wanted, atol=1e-3)
        for layer in lora_layers(model):
            layer.lora_B["default"].weight.zero_()
        assert torch.allclose(model(ROWS).logits, base, atol=1e-5)


def test_another_adapter_than_the_trained_one_is_that() -> None:
    """As TRL does for a reference."""
    model = opened().eval()
    model.add_adapter("ref", model.peft_config["default"])
    with torch.no_grad():
        wanted = model(ROWS).logits
        model.set_adapter("ref")
        with_ref = model(ROWS).logits
        model.set_adapter("default")
        with model.disable_adapter():
            base = model(ROWS).logits
        assert torch.equal(model(ROWS).logits, wanted)
    assert torch.allclose(with_ref, base, atol=1e-5)


def test_it_is_less_work_for_a_rank_above_a_sixth_of_the_width() -> None:
    many = 1_000_000
    assert is_less_work(many, 22, 128, 128)
    assert not is_less_work(many, 21, 128, 128)
    assert not is_less_work(many, 16, 576, 576)


def test_merged_weights_lie_by_columns_and_the_old_ones_come_back() -> None:
    model = opened().eval()
    weights = [layer.get_base_layer().weight for layer in lora_layers(model)]
    with merged(model):
        for layer, weight in zip(lora_layers(model), weights, strict=True):
            own = layer.get_base_layer().weight
            assert own.t().is_contiguous()
            wanted = weight + layer.get_delta_weight("default")
            assert torch.allclose(own, wanted, atol=1e-6)
    for layer, weight in zip(lora_layers(model), weights, strict=True):
        assert layer.get_base_layer().weight is weight
        assert weight.is_contiguous()
