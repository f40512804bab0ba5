"""The adapter folded into weights that a sampler shares, and taken out again."""

import copy

import pytest
import torch

from budgetrl.engine.folding import Folding
from budgetrl.engine.plain import PlainEngine
from budgetrl.recipe.load import load_recipe


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.25)])
def test_folded_weights_answer_for_the_adapter_and_come_back_bit_for_bit(
    dtype: str, tolerance: float
) -> None:
    model = PlainEngine.open(load_recipe("quickstart", [f"model.dtype={dtype}"]).recipe).model
    noise = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.copy_(0.05 * torch.randn(weight.shape, generator=noise))
    row = torch.tensor([[5, 6, 7, 8]])
    model.eval()
    before = copy.deepcopy(model.state_dict())
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    with torch.no_grad():
        wanted = model(row).logits.float()
        with model.disable_adapter():
            base = model(row).logits.float()
            with Folding(model):
                folded = model(row).logits.float()
                assert places == {n: weight.data_ptr() for n, weight in model.named_parameters()}
            again = model(row).logits.float()
    assert (folded - wanted).abs().max() < tolerance < (base - wanted).abs().max() / 3
    assert torch.equal(again, base)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
